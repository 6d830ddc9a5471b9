"""What a build has finished of an output, written down in the folder that it works in, so that the
next build can go on from there.

The record has a line for each part of the output, added once the part's files are on the disk. A
line says what it is a part of, and the digests of its files: they are taken again before anything
is used. A record counts only where it is this user's and nobody else's to write.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pemlang.artifact.provenance import Subject
from pemlang.artifact.staging import RECORD
from pemlang.artifact.subjects import subject
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.execute.result import OutputSeen
from pemlang.graph.formula import count, size_text
from pemlang.kernels.plan import TruncationKey
from pemlang.kernels.rounding import Rounding
from pemlang.tensorfiles.jsons import parse_json
from pemlang.version import __version__

_MOST = 64 << 20  # bytes of a record: what truncation took, at each of some 500,000 sites


@dataclass(frozen=True)
class FinishedKey:
    """What tells an output from any that would have other bytes.

    Attributes:
        semantic_hash: its meaning.
        layout: digest of what its files are to hold but for numbers, and of what else their last
            digits go by.
        version: of pemlang.
    """

    semantic_hash: str
    layout: str
    version: str = __version__


@dataclass(frozen=True)
class FinishedFile:
    """A file of tensors: its digest, and what was seen while it was written."""

    blake3: str
    seen: OutputSeen


Truncations = Sequence[tuple[TruncationKey, tuple[float, float]]]
"""What truncations took, and the norms of what they cut."""


@dataclass(frozen=True)
class FinishedPart:
    """A part of an output.

    Attributes:
        files: by name.
        truncations: those that were told while it was made.
    """

    files: Mapping[str, FinishedFile]
    truncations: Truncations


def add_finished(stage: Path, key: FinishedKey, part: FinishedPart) -> None:
    """Write down a part whose files are on the disk; raises OSError."""
    files = {
        name: {
            "blake3": file.blake3,
            "seen": {k: [x.lost, x.norm, x.kept] for k, x in file.seen.rounding.items()},
        }
        for name, file in part.files.items()
    }
    truncations = [[cut.node, cut.site, cut.by, *cost] for cut, cost in part.truncations]
    line = {
        "version": key.version,
        "semantic_hash": key.semantic_hash,
        "layout": key.layout,
        "files": files,
        "truncations": truncations,
    }
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(stage / RECORD, how, 0o600)
    try:
        # What was cut short is a line by itself.
        rest = memoryview(f"\n{json.dumps(line)}".encode())
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def read_finished(stage: Path) -> list[tuple[FinishedKey, FinishedPart]]:
    """What is written down in a folder, the oldest first; nothing where that does not count."""
    try:
        handle = os.open(stage / RECORD, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not _is_own(status) or status.st_mode & 0o022 or status.st_size > _MOST:
                return []
            lines = file.read(_MOST).split(b"\n")
    except OSError:
        return []
    parts = []
    for line in filter(None, lines):
        with suppress(ValueError, TypeError, LookupError, AttributeError, OverflowError):
            parts.append(_parsed(line))
    return parts


def _parsed(text: bytes) -> tuple[FinishedKey, FinishedPart]:
    """A line of a record; raises ValueError, TypeError and the like for what is none."""
    line = parse_json(text)
    key = FinishedKey(str(line["semantic_hash"]), str(line["layout"]), str(line["version"]))
    files = {}
    for name, file in line["files"].items():
        if name != os.path.basename(name):  # noqa: PTH119  # it names nothing elsewhere
            raise ValueError
        seen = {
            str(factor): Rounding(float(lost), float(norm), kept is True)
            for factor, (lost, norm, kept) in file["seen"].items()
        }
        files[name] = FinishedFile(str(file["blake3"]), OutputSeen(seen))
    truncations = [
        (TruncationKey(str(node), str(site), int(by)), (float(lost), float(norm)))
        for node, site, by, lost, norm in line["truncations"]
    ]
    return key, FinishedPart(files, truncations)


def _is_own(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid()


def finished_parts(stage: Path, key: FinishedKey) -> dict[frozenset[str], FinishedPart]:
    """The parts of an output that are written down in a folder, by the names of their files."""
    return {frozenset(part.files): part for at, part in read_finished(stage) if at == key}


def why_not(stage: Path, key: FinishedKey) -> str:
    """Why nothing that is written down in a folder is a part of an output, in words."""
    keys = [at for at, _ in read_finished(stage)]
    if not keys:
        return "what it wrote down cannot be read"
    if keys[-1].version != key.version:
        return f"pemlang {visible(keys[-1].version, 40)} made it"
    if keys[-1].semantic_hash != key.semantic_hash:
        return "the recipe, or what it is made from, has changed since"
    return "its files, or what their last digits go by, are others now"


def verified(stage: Path, part: FinishedPart, sizes: Mapping[str, int]) -> dict[str, Subject]:
    """The files of a part as they are in a folder, by name; nothing where one of them is not what
    was written down.

    Args:
        stage: the folder.
        part: what was written down.
        sizes: the bytes of each file.
    """
    try:
        for name, size in sizes.items():
            status = (stage / name).lstat()
            if not _is_own(status) or status.st_size != size:
                return {}
        with ThreadPoolExecutor(2) as pool:
            subjects = dict(
                zip(sizes, pool.map(subject, (stage / name for name in sizes)), strict=True)
            )
    except (OSError, ValueError, Fault):
        return {}
    return subjects if all(subjects[n].blake3 == part.files[n].blake3 for n in sizes) else {}


def finished_text(stage: Path) -> str:
    """How many files are written down in a folder, and their bytes there, in words."""
    names = {name for _, part in read_finished(stage) for name in part.files}
    sizes = []
    for name in names:
        with suppress(OSError, ValueError):  # it is gone, or no name
            sizes.append((stage / name).lstat().st_size)
    return f"{count(len(sizes), 'file')} ({size_text(sum(sizes))})"
