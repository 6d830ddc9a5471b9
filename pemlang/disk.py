"""Files that recipes name, which may be anything: asked about safely, opened when plain; and files
that are written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

_LFS = re.compile(rb"version https://git-lfs[^\n]*\n(?:[^\n]*\n)*?oid sha256:([0-9a-f]{64})\n")
_POINTER_SIZE = 1024  # bytes that one is shorter than


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
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "not a plain file")
    return path.open("rb")


def beside(path: Path) -> Path:
    """A name of no file yet, in the same folder: where something is made until it is whole."""
    return path.with_name(f".{path.name[:100]}.{os.urandom(8).hex()}")


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
            flush_entry(path.parent)
    finally:
        new.unlink(missing_ok=True)


def flush_entry(directory: Path) -> None:
    """Bring a rename inside a directory to disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
