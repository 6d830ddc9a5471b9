"""What computes on the whole arrays of a site, as native loops that hold no lock."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from pemlang.execute.elementwise import Arena, Kernel, addresses, scratch
from pemlang.execute.native import cholesky, native, tall, widen
from pemlang.failures import TooLarge
from pemlang.kernels.algebra import Matrix
from pemlang.kernels.llvm_tall import COLUMNS, ROWS
from pemlang.kernels.llvm_text import WIDTH
from pemlang.kernels.passes import scans
from pemlang.kernels.program import Program
from pemlang.kernels.scratch import scratch_sizes
from pemlang.kernels.step import NotFinite
from pemlang.kernels.steps.deltas import tile_rows
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import Array, Bits, stored_dtype

PANEL = 3 << 10
"""Numbers of a panel of a tall matrix in float64: those stay in the nearest cache."""

_APART = 128
"""Columns of numbers so far apart, or a multiple, would take the same places in a cache."""

_DEEP = 32
"""The fewest rows of a panel, so that what it adds to is not fetched too often."""


class _Native:
    """See kernels.algebra.Algebra."""

    def widened(self, bits: Bits, dtype: str, work: str) -> Array:
        """See Algebra."""
        numbers: Array = np.empty(bits.shape, stored_dtype(work))
        bits = np.ascontiguousarray(bits)
        if widen(dtype, work)(bits.size, bits.ctypes.data, numbers.ctypes.data):
            raise NotFinite
        return numbers

    def gram(self, x: Array) -> Matrix:
        """See Algebra."""
        x, turned, stride = _lines(x)
        (n, r), wide = x.shape, _filled(x.shape[1], COLUMNS)
        if wide % _APART == 0:
            wide += COLUMNS
        tile = _tile(wide)
        panel, out = np.zeros((tile, wide)), np.zeros((wide, wide))
        tall(_real(x), "gram")(
            n, r, stride, turned, tile, wide, x.ctypes.data, panel.ctypes.data, out.ctypes.data
        )
        return out[:r, :r]

    def cholesky(self, gram: Matrix) -> tuple[Matrix, Matrix] | None:
        """See Algebra."""
        size = len(gram)
        r, inverse = np.zeros((2, size, _filled(size, COLUMNS)))
        r[:, :size] = gram
        made = cholesky()(size, r.shape[1], r.ctypes.data, inverse.ctypes.data)
        return (r[:, :size], inverse[:, :size]) if made else None

    def times(self, x: Array, y: Matrix) -> Matrix:
        """See Algebra."""
        x, turned, stride = _lines(x)
        if turned:
            return self.across(y.T, x).T
        (n, r), k = x.shape, y.shape[1]
        wide, tile = _filled(k, COLUMNS), _tile(r)
        small, panel = np.zeros((r, wide)), np.empty((tile, r))
        small[:, :k] = y
        out = np.empty((_filled(n, ROWS), wide))
        tall(_real(x), "columns")(
            n, r, stride, tile, wide,
            x.ctypes.data, panel.ctypes.data, small.ctypes.data, out.ctypes.data,
        )  # fmt: skip
        return out[:n, :k]

    def across(self, y: Matrix, x: Array) -> Matrix:
        """See Algebra."""
        x, turned, stride = _lines(x)
        if not turned:
            return np.ascontiguousarray(self.times(x, y.T).T)
        (n, r), k = x.shape, len(y)
        wide, tile = _filled(n, COLUMNS), _tile(r)
        small, panel = np.zeros((_filled(k, ROWS), r)), np.empty((r, tile))
        small[:k] = y
        out = np.empty((len(small), wide))
        tall(_real(x), "rows")(
            n, r, stride, tile, wide, len(small),
            x.ctypes.data, panel.ctypes.data, small.ctypes.data, out.ctypes.data,
        )  # fmt: skip
        return out[:k, :n]

    def over_deltas(
        self, program: Program, factors: Sequence[tuple[Array, Array]], constants: Sequence[float]
    ) -> tuple[Array, float]:
        """See Algebra; a tile of Δ is formed at a time."""
        (_, columns), rows = factors[0][0].shape, len(factors[0][1])
        tile, kind = tile_rows(columns), factors[0][0].dtype
        a = [_panels(x) for x, _ in factors]
        b = [np.ascontiguousarray(x) for _, x in factors]
        tiles = [np.empty(tile * columns + WIDTH, kind) for _ in factors]
        whole = np.empty(rows * columns + WIDTH, kind)
        sizes = scratch_sizes(program, tile * columns)
        pieces = [np.empty(size, "u1") for size in sizes]
        numbers = np.array([*constants, 0.0])
        finds = 1 + max([1, *(len(found) for found in scans(program))])
        settled, found, total = (np.empty(n) for n in (len(program.steps), finds, finds))
        ranks = (ctypes.c_int64 * len(factors))(*(len(x) for x, _ in factors))
        native(program, "tiles")(
            rows, columns, tile, ranks, addresses(a), addresses(b), addresses(tiles),
            whole.ctypes.data, numbers.ctypes.data, settled.ctypes.data, found.ctypes.data,
            total.ctypes.data, scratch(pieces),
        )  # fmt: skip
        if total[1] != 0:
            raise TooLarge(None)
        return whole[: rows * columns].reshape(rows, columns), float(total[0])

    def over_arrays(
        self, program: Program, arrays: Sequence[Array], constants: Sequence[float]
    ) -> Array:
        """See Algebra."""
        size = arrays[0].size
        kernel = Kernel(program, Arena(), size)
        kernel.start()
        for block, array in zip(kernel.inputs(), arrays, strict=True):
            block[:size] = array.reshape(-1)
        [[square]] = kernel.run([size], [constants])
        whole: Array = kernel.output(0, 0, size)  # type: ignore[assignment]  # floats
        if not np.isfinite(square) and not np.isfinite(whole).all():
            raise TooLarge(None)
        return whole.reshape(arrays[0].shape)


NATIVE = _Native()
"""What executors compute sites with."""


def _lines(x: Array) -> tuple[Array, bool, int]:
    """A tall matrix whose rows lie one after the other, or where it is turned its columns do; and
    how far they lie apart."""
    size = x.itemsize
    for turned, lines in ((False, x), (True, x.T)):
        if lines.size == 0 or (lines.strides[1] == size and lines.strides[0] % size == 0):
            return x, turned, lines.strides[0] // size
    x = np.ascontiguousarray(x)
    return x, False, x.shape[1]


def _real(x: Array) -> str:
    return "float" if x.dtype == np.float32 else "double"


def _filled(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def _tile(width: int) -> int:
    """The rows of a panel of a width."""
    return max(_DEEP, PANEL // max(1, width) // COLUMNS * COLUMNS)


def _panels(a: Array) -> Array:
    """A as panels of WIDTH columns one after the other, the last filled up with zeros."""
    rank, columns = a.shape
    wide = np.zeros((rank, -(-columns // WIDTH) * WIDTH), a.dtype)
    wide[:, :columns] = a
    return np.ascontiguousarray(wide.reshape(rank, -1, WIDTH).transpose(1, 0, 2))
