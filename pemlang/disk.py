"""Files that recipes name, which may be anything: asked about safely, opened when plain; and files
and directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_LFS = re.compile(rb"version https://git-lfs[^\n]*\n(?:[^\n]*\n)*?oid sha256:([0-9a-f]{64})\n")
_POINTER_SIZE = 1024  # bytes that one is shorter than
_STEM = 200  # bytes of a name that one made from it keeps; there may be 255
_PART = re.compile(r"\..*\.[0-9a-f]{16}\.pem-part")  # what is being written
_TEMPORARY = "pem-tmp-"
_NEW = 60  # seconds in which whoever makes a file or folder has claimed it, or is done with it

_AT_HERE, _EXCHANGE = -100, 2  # of renameat2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def is_file(path: Path) -> bool:
    """Whether a file is there. Path.is_file raises on names too long and folders not to be read."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_dir(path: Path) -> bool:
    """Whether a directory is there."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_special(path: Path) -> bool:
    """Whether something is there that is neither a file nor a directory, such as a pipe."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def lfs_pointer(path: Path) -> str | None:
    """The SHA-256 of what a Git LFS pointer stands for; None for a file that is none."""
    try:
        if path.stat().st_size > _POINTER_SIZE:
            return None
        with open_plain(path) as file:
            pointer = _LFS.match(file.read(_POINTER_SIZE))
    except OSError:
        return None
    return None if pointer is None else pointer[1].decode()


def sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_plain(path: Path) -> BinaryIO:
    """A file opened to be read; raises OSError for what may never end, such as a pipe."""
    _hold_plain(path.stat())
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # it may have become another since
    try:
        _hold_plain(os.fstat(handle))
        return os.fdopen(handle, "rb")
    except OSError:
        os.close(handle)
        raise


def _hold_plain(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a plain file")


def stem_of(path: Path) -> str:
    """The start of a name, short enough for more to stand beside it."""
    return os.fsencode(path.name)[:_STEM].decode(errors="ignore")


def beside(path: Path) -> Path:
    """A name of no file yet, in the same folder: where a file is made until it is whole."""
    return path.with_name(f".{stem_of(path)}.{os.urandom(8).hex()}.pem-part")


def exchange(one: Path, other: Path) -> bool:
    """Let two files or directories change places at once; False where the system cannot. Raises
    OSError."""
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    rename.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    places = (_AT_HERE, os.fsencode(one), _AT_HERE, os.fsencode(other))
    if rename(*places, _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def share(old: Path, new: Path) -> None:
    """Give a file a second name, on a file system without links a copy; raises OSError."""
    import shutil

    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)


@contextlib.contextmanager
def turn(directory: Path) -> Iterator[None]:
    """Wait until nobody else moves anything inside a directory, if there is one; raises OSError."""
    handle = None
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        handle = os.open(directory, os.O_RDONLY)
    try:
        if handle is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            let_go(handle)


def let_go(handle: int) -> None:
    """Give a turn or a claim back. To close the handle would not do: a process that was forked
    meanwhile has it too."""
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def claimed(directory: Path) -> int | None:
    """A handle by which a directory is somebody's for as long as it is open; None where it is
    another's already. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


@contextlib.contextmanager
def temporary(purpose: str) -> Iterator[Path]:
    """A folder of our own among the temporary ones, which is not there afterwards. Those of
    commands that were killed go first."""
    import shutil
    import tempfile

    for left in temporaries():
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_TEMPORARY}{purpose}-") as name:
        inner = Path(name).resolve() / "inner"  # whoever works there takes turns in it
        inner.mkdir()
        handle = claimed(Path(name))
        try:
            yield inner
        finally:
            if handle is not None:
                let_go(handle)


def temporaries() -> list[Path]:
    """Temporary folders that commands of this user left when they were killed."""
    import tempfile

    left = []
    for path in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            if ours and time.time() - status.st_mtime > _NEW and is_free(path):
                left.append(path)
    return left


def parts(folder: Path) -> list[Path]:
    """Files in a folder that were being written when a command was killed; raises OSError."""
    left = []
    for path in folder.iterdir():
        if _PART.fullmatch(path.name):
            with contextlib.suppress(OSError):  # it may be done meanwhile
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and time.time() - status.st_mtime > _NEW:
                    left.append(path)
    return left


def is_free(directory: Path) -> bool:
    """Whether nobody has claimed a directory; raises OSError."""
    handle = claimed(directory)
    if handle is not None:
        let_go(handle)
    return handle is not None


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals that ask to end wait until what is inside is done."""
    if threading.current_thread() is not threading.main_thread():
        yield  # they come to the main thread
        return
    arrived: list[int] = []
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not None:  # else it was not set from Python
            before[number] = signal.signal(number, lambda arriving, _: arrived.append(arriving))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


def replace_file(path: Path, data: bytes, mode: int | None = None, lasting: bool = True) -> None:
    """Give a file other content, whole or not at all: written beside its place and renamed.

    Args:
        path: the file, which need not be there yet.
        data: what it is to hold.
        mode: its permissions; those of any new file when not given.
        lasting: whether to wait until it is on the disk.

    Raises:
        OSError: it cannot be written; it is as it was.
    """
    new = beside(path)
    try:
        with new.open("xb") as file:
            file.write(data)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        new.replace(path)
        if lasting:
            flush(path.parent)
    finally:
        new.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Bring a file, or the names in a directory, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
