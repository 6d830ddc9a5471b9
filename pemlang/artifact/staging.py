"""Directories that appear whole or not at all.

An output is made in a directory beside its place, which the build holds a lock on. Where the build
is killed the lock goes, and the next build of that output, or `pem clean`, removes what it left.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from pemlang.dataclass import dataclass
from pemlang.disk import (
    claimed,
    exchange,
    flush_entry,
    parts,
    stem_of,
    turn,
    uninterrupted,
)
from pemlang.formats import FORMATS

CARD, PROVENANCE, SIGNATURE = "README.md", "provenance.json", "model.sig"
MARK = "<!-- made by pemlang -->"
_OLD = ".old"
_LEFT = re.compile(rf"\.(?P<target>.+\.[0-9a-f]{{8}})-[0-9a-f]{{16}}(?P<old>{re.escape(_OLD)})?")


_LIVE: list[Stage] = []


def clear_all() -> None:
    """Remove all that has not taken its place, of every build of this process."""
    for stage in _LIVE:
        stage.clear()


@dataclass(frozen=True)
class Staged:
    """A finished directory, beside the place it will take."""

    at: Path
    target: Path

    @property
    def old(self) -> Path:
        """Where an earlier output waits, on a file system where the two cannot be exchanged."""
        return self.at.with_name(self.at.name + _OLD)


def own_files() -> set[str]:
    """The names of all that outputs of this tool consist of."""
    adapters = (name for record in FORMATS.values() for name in record.outputs)
    return {CARD, PROVENANCE, SIGNATURE, *adapters}


@dataclass
class Stage:
    """Finished directories, the parents that were made for them, and the handles by which they
    are ours."""

    directories: list[Staged] = field(default_factory=list)
    made: list[Path] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        _LIVE.append(self)

    def clear(self) -> None:
        """Remove all that has not taken its place."""
        for staged in self.directories:
            shutil.rmtree(staged.at, ignore_errors=True)
            if staged.target.exists():
                shutil.rmtree(staged.old, ignore_errors=True)
        for folder in self.made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only where it is empty: nothing took its place


@contextlib.contextmanager
def staging() -> Iterator[Stage]:
    """A stage; on any failure, Ctrl-C included, nothing of it stays behind."""
    stage = Stage()
    try:
        yield stage
    finally:
        stage.clear()
        _LIVE.remove(stage)
        for handle in stage.handles:
            os.close(handle)


def new_stage(target: Path, stage: Stage) -> Path:
    """An empty directory beside a target, on the same file system; raises OSError."""
    missing = [folder for folder in target.parents if not folder.exists()]
    with uninterrupted():
        stage.made.extend(missing)
        target.parent.mkdir(parents=True, exist_ok=True)
        with turn(target.parent):
            staged = Staged(target.with_name(f".{_name_of(target)}-{os.urandom(8).hex()}"), target)
            staged.at.mkdir()
            stage.directories.append(staged)
            handle = claimed(staged.at)
            assert handle is not None  # it is new, and it is our turn
            stage.handles.append(handle)
    return staged.at


def flush(directory: Path) -> None:
    """Bring a directory and its files to disk."""
    for path in (*directory.iterdir(), directory):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def take_place(staged: Staged) -> None:
    """Move a staged directory to its target, in the place of an earlier output. It is nobody
    else's turn there."""
    with uninterrupted():
        if not staged.target.exists():
            staged.at.rename(staged.target)
        elif not exchange(staged.at, staged.target):
            staged.target.rename(staged.old)
            try:
                staged.at.rename(staged.target)
            except BaseException:
                staged.old.rename(staged.target)
                raise
        flush_entry(staged.target.parent)


# --- what killed builds left -----------------------------------------------------------------


def _name_of(target: Path) -> str:
    """What tells the stages of a target from those of others beside it."""
    return f"{stem_of(target)}.{zlib.crc32(os.fsencode(target.name)):08x}"


def _named(stage: Path) -> str | None:
    left = _LEFT.fullmatch(stage.name)
    return None if left is None else left["target"]


def leftovers(folder: Path) -> list[Path]:
    """The stages in a folder that nobody is at work on; raises OSError. Nobody else's turn comes
    before they are removed."""
    left = []
    for path in sorted(folder.iterdir()):
        if _named(path) is None or path.is_symlink() or not path.is_dir():
            continue
        if not {inner.name for inner in path.iterdir()} <= own_files():
            continue
        with contextlib.suppress(OSError):
            handle = claimed(path)
            if handle is not None:
                os.close(handle)
                left.append(path)
    return left


def clean_up(target: Path) -> None:
    """Remove what builds of an output left that were killed. It is nobody else's turn there."""
    if target.parent.is_dir():
        for left in leftovers(target.parent):
            if _named(left) == _name_of(target):
                remove_leftover(left, target)


def clean(folder: Path) -> Iterator[tuple[Path, int]]:
    """Remove what killed commands left in a folder and those inside it: each path, and the bytes
    that it took. Links are not followed; raises OSError."""
    for at, inside, _ in os.walk(folder):
        here = Path(at)
        inside[:] = [name for name in inside if _named(here / name) is None]
        with turn(here):
            for left in leftovers(here):
                target = target_of(left)
                if target is not None or not left.name.endswith(_OLD):
                    size = sum(path.lstat().st_size for path in left.iterdir())
                    remove_leftover(left, target or left)
                    yield left, size
            for part in parts(here):
                size = part.lstat().st_size
                part.unlink(missing_ok=True)
                yield part, size


def target_of(stage: Path) -> Path | None:
    """The target that a stage was for; None where its name is too long to tell."""
    name = _named(stage)
    target = stage.with_name((name or "").rpartition(".")[0] or ".")
    return target if _name_of(target) == name else None


def remove_leftover(stage: Path, target: Path) -> None:
    """Remove a stage that a killed build left. An earlier output that was about to be replaced goes
    back to its place, where that is empty."""
    if stage.name.endswith(_OLD) and not target.exists():
        stage.rename(target)
    else:
        shutil.rmtree(stage, ignore_errors=True)
