"""What already stands where an output is to go, and whether it will do."""

from __future__ import annotations

from pathlib import Path

from pemlang.artifact.place import CARD, PROVENANCE, folder_of, is_one_file, own_name
from pemlang.artifact.provenance import Provenance, read_provenance
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.disk import is_dir, is_file
from pemlang.tensorfiles.digests import file_digest
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
    """Whether a place holds the output of a meaning, whole, made by this version.

    The adapter's files are held to their digests; its card says nothing that is not known.
    """
    if not (is_file(target) if is_one_file(target) else is_dir(target)):
        return Standing(None, "not built yet")
    try:
        provenance = read_provenance(target)
    except Fault:
        return Standing(
            None, f"what is there has no {own_name(target, PROVENANCE)} that this version reads"
        )
    if provenance.semantic_hash != semantic_hash:
        return Standing(
            None, f"its meaning has changed: {visible(provenance.semantic_hash, 12)} is there"
        )
    if provenance.tool != __version__:
        return Standing(None, f"pemlang {visible(provenance.tool, 40)} built it")
    for name in provenance.subjects.keys() - {CARD}:
        try:
            if file_digest(folder_of(target) / name) != provenance.subjects[name].blake3:
                return Standing(None, f"its {name} is not what was built")
        except Fault:
            return Standing(None, f"its {name} cannot be read")
    return Standing(provenance, "")
