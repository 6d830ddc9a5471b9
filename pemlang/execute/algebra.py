"""What computes on the whole arrays of a site, as native loops that hold no lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pemlang.execute.deltas import DeltaTiles
from pemlang.execute.elementwise import Arena, Kernel
from pemlang.execute.helpers import ALONE, Helpers
from pemlang.execute.native import cholesky, tall, widen
from pemlang.failures import TooLarge
from pemlang.kernels.algebra import Matrix, Piece
from pemlang.kernels.llvm_tall import COLUMNS, ROWS
from pemlang.kernels.program import Program
from pemlang.kernels.step import NotFinite
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import Array, Bits, stored_dtype

PANEL = 3 << 10
"""Numbers of a panel of a tall matrix in float64: those stay in the nearest cache."""

_APART = 128
"""Columns of numbers so far apart, or a multiple, would take the same places in a cache."""

_DEEP = 32
"""The fewest rows of a panel, so that what it adds to is not fetched too often."""


class NativeAlgebra:
    """See kernels.algebra.Algebra."""

    def __init__(self, helpers: Helpers) -> None:
        """Take who helps with what has many parts."""
        self._helpers = helpers

    def each(self, do: Callable[[Piece], None], parts: Sequence[Piece]) -> None:
        """See Algebra."""
        self._helpers.each(do, parts)

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
        return DeltaTiles(program, factors, constants).run(self._helpers)

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


NATIVE = NativeAlgebra(ALONE)
"""What computes sites in one thread."""


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
