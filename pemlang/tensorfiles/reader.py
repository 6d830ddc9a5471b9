"""Tensors of input adapters: where they lie, and reading them into buffers that are reused.

Files are read and not mapped: pages of a map count as memory of the process, and each costs a
fault the first time it is touched.
"""

from __future__ import annotations

import math
import os
import resource
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pemlang.diagnostics import Fault, visible
from pemlang.formats.peft import Adapter
from pemlang.tensorfiles.digests import changed, digested, identity, unreadable
from pemlang.tensorfiles.disk import open_plain
from pemlang.tensorfiles.dtypes import stored_dtype

Bits = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of an input.

    Attributes:
        file: that holds it.
        start: its first byte there.
        key: its name there.
    """

    file: Path
    start: int
    key: str

    @property
    def name(self) -> str:
        """What a message calls it."""
        return f"{visible(self.key)} of {visible(self.file.parent)}"


def source(adapter: Adapter, key: str) -> Source:
    """Where a tensor of an adapter lies."""
    start = adapter.header.data_start + adapter.header.entries[key].start
    return Source(adapter.weights, start, key)


def statistic(adapter: Adapter, key: str) -> Source:
    """Where one of the statistics of an adapter lies."""
    assert adapter.statistics is not None
    start = adapter.statistics.data_start + adapter.statistics.entries[key].start
    return Source(adapter.statistics_file, start, key)


def not_finite(what: Source, bits: Iterable[float]) -> Fault:
    """PEM0502 for an input that holds infinity or NaN."""
    found = "NaN" if any(map(math.isnan, bits)) else "an infinite number"
    return Fault(
        "PEM0502",
        f"{what.name} holds {found}",
        "the adapter is damaged; train or download it again",
    )


class Files:
    """Files held open to be read at any place, by any thread, until the end of a build."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}
        self._known: dict[Path, tuple[int, ...]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Files:
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
            Fault: PEM0411 it cannot be read, PEM0412 it has become shorter.
        """
        handle = self._open.get(file)
        if handle is None:
            handle = self._opened(file)
        try:
            rest = out.data.cast("B") if out.size else memoryview(b"")
            while rest:
                count = os.preadv(handle, [rest], start)
                if count == 0:
                    raise changed(file)
                start, rest = start + count, rest[count:]
        except OSError as error:
            raise unreadable(file, error) from None

    def tensor(self, what: Source, dtype: str, shape: tuple[int, ...]) -> Bits:
        """One tensor whole, as it is stored."""
        out: Bits = np.empty(shape, stored_dtype(dtype))
        self.read(what.file, what.start, out)
        return out

    def unchanged(self) -> None:
        """Raise PEM0412 if a file that was read is no longer what it was when it was opened."""
        for file, known in self._known.items():
            try:
                if identity(file) != known:
                    raise changed(file)
            except OSError as error:
                raise unreadable(file, error) from None

    def _opened(self, file: Path) -> int:
        with self._lock:
            if file not in self._open:
                make_room(len(self._open))
                try:
                    self._known[file] = identity(file)
                    if digested(file) not in (None, self._known[file]):
                        raise changed(file)
                    with open_plain(file) as opened:
                        self._open[file] = os.dup(opened.fileno())
                except OSError as error:
                    raise unreadable(file, error) from None
            return self._open[file]


def make_room(opened: int) -> None:
    """Let the process have many files open, as far as it may: a recipe can read thousands."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if opened + 64 > soft and soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
