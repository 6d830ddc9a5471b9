"""Files that recipes name, which may be anything: asked about safely, opened when plain."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import BinaryIO


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


def open_plain(path: Path) -> BinaryIO:
    """A file opened to be read; raises OSError for what may never end, such as a pipe."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "not a plain file")
    return path.open("rb")
