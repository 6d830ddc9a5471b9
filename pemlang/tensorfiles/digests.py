"""Digests of inputs, and a memory of them: a build should not read its inputs twice.

A file is known by its device, inode, size, and times of the last change to its content and to
itself. The last one is set by the system alone, so that a file with its old date put back is not
taken for the one before. Digests of files changed a moment ago are not remembered: a second
change within one tick of the clock would leave no trace.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pemlang.diagnostics import Fault, visible
from pemlang.disk import lfs_pointer, open_plain, replace_file
from pemlang.lazy import blake3

ALGORITHM = "blake3"
REMEMBERED = 4096
WORTH_REMEMBERING = 1 << 20  # bytes
SETTLED = 2_000_000_000  # nanoseconds
TICK = 20_000_000  # nanoseconds; clocks that date changes go on every 1 to 10 ms
WAITS = 3  # for a file that is written all the time; it will have changed in the end

_HERE: dict[str, tuple[tuple[int, ...], str]] = {}


def identity(file: Path | int) -> tuple[int, ...]:
    """What tells a file, given by its path or open, from any other, and from itself before a
    change; raises OSError."""
    stat = os.fstat(file) if isinstance(file, int) else file.stat()
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def seen_now(paths: Iterable[Path]) -> dict[Path, tuple[int, ...]]:
    """What some files are, of those that are there, so that any change from now on shows: a file
    that has just been written is waited for until the clock that dates changes has gone on."""
    seen = {}
    for path in paths:
        for _ in range(WAITS):
            try:
                seen[path] = identity(path)
            except OSError:
                break
            age = time.time_ns() - seen[path][-1]
            if not 0 <= age < TICK:
                break
            time.sleep((TICK - age) / 1e9)
    return seen


def hold_unchanged(seen: Mapping[Path, tuple[int, ...]]) -> None:
    """Raise PEM0412 or PEM0411 unless some files are what they were."""
    for path, before in seen.items():
        if _identified(path) != before:
            raise changed(path)


def _place(path: Path) -> str:
    """A path that means the same in any working directory."""
    return os.path.abspath(path)  # noqa: PTH100  # links may lead elsewhere later


def digested(path: Path) -> tuple[int, ...] | None:
    """What a file was when its digest was taken in this process, if it was."""
    taken = _HERE.get(_place(path))
    return None if taken is None else taken[0]


def file_digest(path: Path) -> str:
    """BLAKE3 of a file, remembered while the file stays as it is; raises PEM0411."""
    take_digests([path], 1)
    return _HERE[_place(path)][1]


def take_digests(paths: Sequence[Path], threads: int) -> None:
    """Have the digests of some files at hand, those that are not remembered taken side by side;
    raises PEM0411 for the first that cannot be read."""
    missing: list[tuple[Path, tuple[int, ...]]] = []
    for path in dict.fromkeys(paths):
        file = _identified(path)
        if digested(path) == file:
            continue
        remembered = _DigestCache.get(file)
        if remembered is None:
            missing.append((path, file))
        else:
            _HERE[_place(path)] = (file, remembered)
    taken: list[str | Exception] = [""] * len(missing)
    queue = iter(range(len(missing)))

    def work() -> None:
        while (index := next(queue, None)) is not None:
            try:
                taken[index] = _digest(missing[index][0])
            except Exception as error:  # a thread has nobody to tell
                taken[index] = error

    crew = [threading.Thread(target=work) for _ in range(min(threads, len(missing)) - 1)]
    for member in crew:
        member.start()
    work()
    for member in crew:
        member.join()
    fresh = {}
    for (path, file), digest in zip(missing, taken, strict=True):
        if isinstance(digest, OSError):
            raise unreadable(path, digest)
        if isinstance(digest, Exception):
            raise digest
        if _identified(path) != file:
            raise changed(path)
        _HERE[_place(path)] = (file, digest)
        fresh[file] = digest
    _DigestCache.put(fresh)


def _identified(path: Path) -> tuple[int, ...]:
    try:
        return identity(path)
    except OSError as error:
        raise unreadable(path, error) from None


def not_fetched(path: Path) -> Fault | None:
    """PEM0411 for a file in whose place Git LFS has left a pointer; None for any other."""
    if lfs_pointer(path) is None:
        return None
    return Fault(
        "PEM0411",
        f"{visible(path)} is a Git LFS pointer: the file itself was not fetched",
        "run `git lfs pull` in its folder",
    )


def unreadable(path: Path, error: OSError) -> Fault:
    """PEM0411 for a file that is not there, or not to be read."""
    why = error.strerror or str(error)
    return Fault(
        "PEM0411",
        f"cannot read {visible(path)}: {why}",
        "see that it is there and can be read, and build again",
    )


def changed(path: Path) -> Fault:
    """PEM0412 for a file that is not what it was when the recipe was checked."""
    return Fault(
        "PEM0412",
        f"{visible(path)} was changed while it was read",
        "let nothing write to it, and build again",
    )


def _digest(path: Path) -> str:
    """Read in pieces of a cache's size: a map would count as memory of the process."""
    hasher, buffer = blake3.blake3(), memoryview(bytearray(1 << 20))
    with open_plain(path) as file:
        while count := file.readinto(buffer):  # type: ignore[attr-defined]
            hasher.update(buffer[:count])
    return hasher.hexdigest()


def text_digest(text: str) -> str:
    """BLAKE3 of a text as a file would hold it."""
    return blake3.blake3(text.encode()).hexdigest()


def _folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "pemlang"


@contextlib.contextmanager
def anew() -> Iterator[None]:
    """Take digests from the files themselves, whatever is remembered of them: where something is
    held to a digest, it is the bytes that count."""
    before = _DigestCache.asked
    _DigestCache.asked = False
    _HERE.clear()
    try:
        yield
    finally:
        _DigestCache.asked = before


class _DigestCache:
    """Digests by identity, in one file of the user's cache that is replaced whole. It may be lost
    or unwritable at any time: then files are read again.

    Attributes:
        asked: whether it is asked at all.
    """

    asked = True
    _loaded: dict[str, str] | None = None

    @classmethod
    def get(cls, file: tuple[int, ...]) -> str | None:
        if file[2] < WORTH_REMEMBERING or not cls.asked:
            return None
        if cls._loaded is None:
            cls._loaded = _read()
        return cls._loaded.get(_name(file))

    @classmethod
    def put(cls, digests: Mapping[tuple[int, ...], str]) -> None:
        now = time.time_ns()
        fresh = {
            _name(file): digest
            for file, digest in digests.items()
            if file[2] >= WORTH_REMEMBERING and now - max(file[3:]) >= SETTLED
        }
        if not fresh:
            return
        # What another process wrote meanwhile stays; of two at once, one is forgotten.
        remembered = {name: digest for name, digest in _read().items() if name not in fresh} | fresh
        cls._loaded = remembered
        kept = dict(list(remembered.items())[-REMEMBERED:])
        with contextlib.suppress(OSError, RuntimeError):
            folder = _folder()
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / "digests.json", json.dumps(kept).encode(), lasting=False)


def _name(file: tuple[int, ...]) -> str:
    return f"{ALGORITHM} " + " ".join(map(str, file))


def _read() -> dict[str, str]:
    try:
        with open_plain(_folder() / "digests.json") as file:
            digests: object = json.loads(file.read(REMEMBERED * 300))
    except (OSError, ValueError, RecursionError, RuntimeError):
        return {}
    if not isinstance(digests, dict):
        return {}
    return {k: v for k, v in digests.items() if isinstance(v, str) and len(v) == 64}
