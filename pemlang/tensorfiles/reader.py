"""Tensors read into buffers that are used again and again.

Files are read and not mapped: pages of a map count as memory of the process, and each costs a
fault the first time it is touched.
"""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path
from types import TracebackType

from pemlang.disk import open_plain
from pemlang.failures import InputChanged, InputUnreadable
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.digests import digested, identity
from pemlang.tensorfiles.dtypes import Bits, stored_dtype
from pemlang.tensorfiles.reference import TensorRef


class TensorReader:
    """Files held open to be read at any place, by any thread, until the end of a build."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}
        self._identities: dict[Path, tuple[int, ...]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """Let go of all files."""
        while self._open:
            os.close(self._open.popitem()[1])

    def read(self, file: Path, start: int, out: Bits) -> None:
        """Fill an array with the bytes of a file from a place on.

        Raises:
            InputUnreadable: it cannot be read.
            InputChanged: it has become shorter.
        """
        handle = self.handle(file)
        try:
            rest = out.data.cast("B") if out.size else memoryview(b"")
            while rest:
                count = os.preadv(handle, [rest], start)
                if count == 0:
                    raise InputChanged(file)
                start, rest = start + count, rest[count:]
        except OSError as error:
            raise _unreadable(file, error) from None

    def tensor(self, what: TensorRef, dtype: str, shape: tuple[int, ...]) -> Bits:
        """One tensor whole, as it is stored; raises as `read`."""
        out: Bits = np.empty(shape, stored_dtype(dtype))
        self.read(what.file, what.start, out)
        return out

    def unchanged(self) -> None:
        """Raise InputChanged if a file that was read is no longer what it was when it was
        opened."""
        for file, before in self._identities.items():
            try:
                if identity(file) != before:
                    raise InputChanged(file)
            except OSError as error:
                raise _unreadable(file, error) from None

    def handle(self, file: Path) -> int:
        """The open file; raises as `read`, of what the file was when it was opened."""
        handle = self._open.get(file)
        return self._opened(file) if handle is None else handle

    def _opened(self, file: Path) -> int:
        with self._lock:
            if file not in self._open:
                make_room(len(self._open))
                try:
                    with open_plain(file) as opened:
                        self._identities[file] = identity(opened.fileno())
                        if digested(file) not in (None, self._identities[file]):
                            raise InputChanged(file)
                        self._open[file] = os.dup(opened.fileno())
                except OSError as error:
                    raise _unreadable(file, error) from None
            return self._open[file]


def _unreadable(file: Path, error: OSError) -> InputUnreadable:
    return InputUnreadable(file, error.strerror or str(error))


def make_room(opened: int) -> None:
    """Let the process have many files open, as far as it may: a recipe can read thousands."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if opened + 64 > soft and soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
