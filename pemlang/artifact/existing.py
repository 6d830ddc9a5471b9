"""What already stands where an output is to go, and whether it will do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pemlang.artifact.provenance import NAME, Provenance, read_provenance
from pemlang.diagnostics import Fault, visible
from pemlang.formats.peft import CONFIG, WEIGHTS
from pemlang.tensorfiles.digests import file_digest
from pemlang.tensorfiles.disk import is_dir
from pemlang.version import __version__


@dataclass(frozen=True)
class Standing:
    """What is there.

    Attributes:
        provenance: of an output that need not be made again; None where it has to be.
        why: why it has to be, in words; empty where it need not.
    """

    provenance: Provenance | None
    why: str


def standing(target: Path, semantic_hash: str) -> Standing:
    """Whether a directory holds the output of a meaning, whole, made by this version.

    Its config and tensors are held to their digests; its card says nothing that is not known.
    """
    if not is_dir(target):
        return Standing(None, "not built yet")
    try:
        found = read_provenance(target)
    except Fault:
        return Standing(None, f"what is there has no {NAME} that this version reads")
    if found.semantic_hash != semantic_hash:
        return Standing(
            None, f"its meaning has changed: {visible(found.semantic_hash, 12)} is there"
        )
    if found.tool != __version__:
        return Standing(None, f"pemlang {visible(found.tool, 40)} built it")
    for name in (CONFIG, WEIGHTS):
        try:
            if file_digest(target / name) != found.subjects[name].blake3:
                return Standing(None, f"its {name} is not what was built")
        except Fault:
            return Standing(None, f"its {name} cannot be read")
    return Standing(found, "")
