"""What of the inputs is read while a build runs."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from pemlang.execute import Kernel
from pemlang.tensorfiles import TensorReader

SYSTEM = ctypes.CDLL(None)
PREAD = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
)
"""What native calls read files by."""


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Each read from here on, in native calls too: the folder of the file, the first byte, and how
    many there are."""
    done: list[tuple[str, int, int]] = []
    names: dict[int, str] = {}
    handle, read, pread = TensorReader.handle, TensorReader.read, PREAD(("pread", SYSTEM))

    def named(self: TensorReader, file: Path) -> int:
        names[handle(self, file)] = file.parent.name
        return handle(self, file)

    def alone(self: TensorReader, file: Path, start: int, out: Any) -> None:
        done.append((file.parent.name, start, out.nbytes))
        read(self, file, start, out)

    @PREAD
    def natively(file: int, into: int, size: int, start: int) -> int:
        done.append((names[file], start, size))
        return pread(file, into, size, start)

    functions = natively, SYSTEM.pwrite

    def addresses() -> list[int | None]:
        return [ctypes.cast(function, ctypes.c_void_p).value for function in functions]

    monkeypatch.setattr(TensorReader, "handle", named)
    monkeypatch.setattr(TensorReader, "read", alone)
    monkeypatch.setitem(Kernel.stream.__globals__, "disk", addresses)
    return done
