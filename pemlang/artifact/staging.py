"""Outputs that appear whole or not at all.

An output is made in a directory beside its place, which the build holds a lock on. Where the build
is killed the lock goes, and the next build of that output, or `pem clean`, removes what it left.
What has a record of finished files stays however a build ends, and `pem build --resume` goes on
with it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import field
from functools import cache, partial
from pathlib import Path

from pemlang.artifact.place import (
    CARD,
    PROVENANCE,
    SIGNATURE,
    files_in,
    is_one_file,
    of_one_file,
    own_name,
)
from pemlang.artifact.provenance import read_provenance
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault
from pemlang.disk import (
    claimed,
    exchange,
    flush,
    is_file,
    is_free,
    let_go,
    parts,
    share,
    stem_of,
    turn,
    uninterrupted,
)
from pemlang.formats import FORMATS
from pemlang.tensorfiles.digests import file_digest

RECORD = ".finished.jsonl"
"""What of an output is finished, in the folder that it is made in: see finished.py."""
_OLD = ".old"
_LEFT = re.compile(
    r"\.(?P<target>.+\.[0-9a-f]{8})-(?P<host>[0-9a-f]{8})[0-9a-f]{16}(?P<old>\.old)?"
)
_TRIES = 5
_A_DAY = 86_400  # seconds

_LIVE: list[Stage] = []
_STAYED: list[Path] = []
_MOVING = threading.Lock()
"""Held where anything takes its place, so that nothing is removed meanwhile."""


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
    """The names of all that folders of outputs consist of."""
    adapters = (name for record in FORMATS.values() for name in record.outputs)
    return {CARD, PROVENANCE, SIGNATURE, *adapters}


def has_record(at: Path) -> bool:
    """Whether it is written down in a folder that something in it is finished."""
    return os.path.lexists(at / RECORD)


@dataclass(eq=False)
class Stage:
    """Finished directories, the parents that were made for them, and the handles by which they
    are ours.

    Attributes:
        lasting: whether it is waited for until outputs are on the disk.
        left: by target, what killed builds of it left with a record, which is ours now: to go on
            with or to remove.
    """

    lasting: bool
    directories: list[Staged] = field(default_factory=list)
    made: list[Path] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    left: dict[Path, list[Path]] = field(default_factory=dict)

    def with_records(self) -> list[Staged]:
        """The directories that stay if they do not take their place."""
        return [staged for staged in self.directories if has_record(staged.at)]

    def give_up(self) -> None:
        """Leave nothing to go on with."""
        for staged in self.directories:
            (staged.at / RECORD).unlink(missing_ok=True)

    def flush(self, directory: Path, names: Iterable[str] | None = None) -> None:
        """Bring a directory and its files, or some of them, to the disk, where they are to last."""
        if self.lasting:
            files = directory.iterdir() if names is None else map(directory.joinpath, names)
            for path in (*files, directory):
                flush(path)

    def clear(self) -> None:
        """Remove all that has not taken its place, but for what has a record."""
        for staged in self.directories:
            if has_record(staged.at):
                _STAYED.append(staged.at)
            else:
                shutil.rmtree(staged.at, ignore_errors=True)
            if staged.target.exists():
                shutil.rmtree(staged.old, ignore_errors=True)
        for folder in self.made:
            with suppress(OSError):
                folder.rmdir()  # only where it is empty: nothing took its place


@contextmanager
def staging(lasting: bool) -> Iterator[Stage]:
    """A stage; on any failure, Ctrl-C included, nothing of it stays behind."""
    stage = Stage(lasting)
    _LIVE.append(stage)
    try:
        yield stage
    finally:
        with uninterrupted():
            stage.clear()
            _LIVE.remove(stage)
            for handle in stage.handles:
                let_go(handle)


def clear_all(seconds: float) -> None:
    """Remove all that has not taken its place and has no record, of every build of this process,
    which ends then. Where something is on its way for longer than some seconds, all is left to the
    next build."""
    if _MOVING.acquire(timeout=seconds):  # and never let go: nothing moves any more
        for stage in list(_LIVE):
            stage.clear()


def stayed() -> bool:
    """Whether a build of this process ended and left finished files to go on with."""
    return bool(_STAYED)


def new_stage(target: Path, stage: Stage) -> Path:
    """An empty directory beside a target, on the same file system; raises OSError."""
    name = f".{_name_of(target)}-{_host()}{os.urandom(8).hex()}"
    staged = Staged(target.with_name(name), target)
    for _ in range(_TRIES):  # another build may fail, and remove a parent that it made
        stage.made.extend(folder for folder in target.parents if not folder.exists())
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), turn(target.parent), uninterrupted():
            staged.at.mkdir()
            stage.directories.append(staged)
            handle = claimed(staged.at)
            assert handle is not None  # it is new, and it is our turn
            stage.handles.append(handle)
            return staged.at
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target.parent))


def go_on_in(at: Path, target: Path, stage: Stage, kept: Collection[str]) -> None:
    """Go on in a folder that a killed build of a target left, with some of its files; raises
    OSError."""
    for path in at.iterdir():
        if path.name != RECORD and path.name not in kept:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    stage.left[target].remove(at)
    stage.directories.append(Staged(at, target))


def remove_left(stage: Stage) -> None:
    """Remove what killed builds left and nobody goes on with."""
    for at in (at for target in stage.left.values() for at in target):
        shutil.rmtree(at, ignore_errors=True)
    stage.left.clear()


def take_place(staged: Staged, stage: Stage) -> None:
    """Move what is staged to its target, in the place of an earlier output. It is nobody else's
    turn there."""
    with uninterrupted(), _MOVING:
        (staged.at / RECORD).unlink(missing_ok=True)
        if is_one_file(staged.target):
            _take_places(staged)
        elif not staged.target.exists():
            staged.at.rename(staged.target)
        elif not exchange(staged.at, staged.target):
            staged.target.rename(staged.old)
            try:
                staged.at.rename(staged.target)
            except BaseException:
                staged.old.rename(staged.target)
                raise
        stage.flush(staged.target.parent, ())


def _take_places(staged: Staged) -> None:
    """Move the files of an output that is one file to their places, the file itself last: it never
    stands there without its provenance. Where one cannot be moved, those before it go back."""
    target = staged.target
    back: list[Callable[[], object]] = []
    try:
        for name in (own_name(target, SIGNATURE), own_name(target, PROVENANCE), target.name):
            back.append(_moved(staged.at / name, target.with_name(name)))
    except BaseException:
        for move in reversed(back):
            move()
        raise


def _moved(new: Path, place: Path) -> Callable[[], object]:
    """Move a staged file to its place, and what is there into the stage; gives what undoes it.
    Where something is there, something is there at any moment."""
    if not new.exists():
        if not place.exists():
            return lambda: None
        place.rename(new)
        return partial(new.rename, place)
    if not place.exists():
        new.rename(place)
        return partial(place.rename, new)
    if exchange(new, place):
        return partial(exchange, new, place)
    old = new.with_name(new.name + _OLD)
    old.unlink(missing_ok=True)  # of a build that was killed here
    share(place, old)
    new.replace(place)
    return partial(old.replace, place)


# --- what killed builds left -----------------------------------------------------------------


def _name_of(target: Path) -> str:
    """What tells the stages of a target from those of others beside it."""
    return f"{stem_of(target)}.{zlib.crc32(os.fsencode(target.name)):08x}"


@cache
def _host() -> str:
    """What tells the stages of this machine from those of others: where a folder is shared, a lock
    may not reach them."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def leftovers(folder: Path, names: Collection[str] | None = None) -> list[Path]:
    """The stages in a folder that nobody is at work on. It is nobody else's turn there.

    Args:
        folder: where.
        names: what `_name_of` says of the targets whose stages are meant; all unless given.

    Raises:
        OSError: the folder cannot be read.
    """
    left = []
    with os.scandir(folder) as entries:
        stages = [(entry, _LEFT.fullmatch(entry.name)) for entry in entries]
    for entry, name in sorted(stages, key=lambda pair: pair[0].name):
        if name is None or (names is not None and name["target"] not in names):
            continue
        with suppress(OSError):  # it may be gone, or another user's
            path = Path(entry.path)
            is_ours = name["host"] == _host() or time.time() - path.stat().st_mtime > _A_DAY
            if is_ours and entry.is_dir(follow_symlinks=False) and _is_left(path):
                left.append(path)
    return left


def _is_left(stage: Path) -> bool:
    """Whether nobody holds a stage, and nothing is in it but what is ours."""
    return is_free(stage) and all(map(_may_be_ours, files_in(stage)))


def _may_be_ours(name: str) -> bool:
    name = name.removesuffix(_OLD)
    of_a_format = any(record.writes(name) for record in FORMATS.values())
    return name in {RECORD, *own_files()} or of_one_file(name) or of_a_format


def clean_up(folder: Path, targets: Iterable[Path], stage: Stage) -> None:
    """Remove what builds of some outputs in a folder left that were killed; what has a record is
    taken to the stage. It is nobody else's turn there; raises OSError."""
    by_name = {_name_of(target): target for target in targets}
    if folder.is_dir():
        for left in leftovers(folder, by_name):
            name = _LEFT.fullmatch(left.name)
            assert name is not None
            target = by_name[name["target"]]
            handle = claimed(left) if has_record(left) and name["old"] is None else None
            if handle is None:
                remove_leftover(left, target)
            else:
                stage.handles.append(handle)
                stage.left.setdefault(target, []).append(left)


def clean(folder: Path) -> Iterator[tuple[Path, int]]:
    """Remove what killed commands left in a folder and those inside it: each path, and the bytes
    that it took. Links are not followed, and folders that may not be read are left out."""
    for at, inside, _ in os.walk(folder):
        here = Path(at)
        inside[:] = [name for name in inside if _LEFT.fullmatch(name) is None]
        with suppress(OSError), turn(here):
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
    name = _LEFT.fullmatch(stage.name)
    assert name is not None
    target = stage.with_name(name["target"].rpartition(".")[0])
    return target if _name_of(target) == name["target"] else None


def remove_leftover(stage: Path, target: Path) -> None:
    """Remove a stage that a killed build left. An earlier output that was about to be replaced goes
    back to its place, where that is empty."""
    if stage.name.endswith(_OLD) and not target.exists():
        stage.rename(target)
    else:
        if is_one_file(target):
            _finish(Staged(stage, target))
        shutil.rmtree(stage, ignore_errors=True)


def _finish(left: Staged) -> None:
    """Go on with what a build was killed at while the files of an output took their places, so
    that the file there and its provenance are of one build."""
    target = left.target
    try:
        wanted = read_provenance(target).subjects[target.name].blake3
    except (Fault, LookupError):
        return
    if _digest(target) != wanted == _digest(left.at / target.name):
        _moved(left.at / target.name, target)


def _digest(path: Path) -> str:
    return file_digest(path) if is_file(path) else ""
