"""What computing on whole arrays needs beside NumPy: in NumPy too, or as an executor does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from pemlang.kernels.step import NotFinite
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import FLOATS, NATIVE, Array, Bits, decoded

if TYPE_CHECKING:
    from pemlang.kernels.program import Program

Matrix: TypeAlias = Array
"""Of float64."""

Piece = TypeVar("Piece")


class Algebra(Protocol):
    """Narrow floats taken to wide ones; products of tall matrices with small ones, and triangles of
    small ones, in float64; and elementwise programs with one output, over arrays in memory.

    A tall matrix (n, r) is float32 or float64, and it or its transpose lies in memory row by row.
    """

    def each(self, do: Callable[[Piece], None], parts: Sequence[Piece]) -> None:
        """Do something with each of some parts, in any order, perhaps at once."""

    def widened(self, bits: Bits, dtype: str, work: str) -> Array:
        """Numbers of a narrow dtype in a work dtype. Raises NotFinite."""

    def gram(self, x: Array) -> Matrix:
        """xᵀx."""

    def cholesky(self, gram: Matrix) -> tuple[Matrix, Matrix] | None:
        """R, with RᵀR a symmetric matrix that has ones on its diagonal, and R⁻¹; None where it is
        not positive definite."""

    def times(self, x: Array, y: Matrix) -> Matrix:
        """x·y, (n, k)."""

    def across(self, y: Matrix, x: Array) -> Matrix:
        """y·xᵀ, (k, n), its rows one after the other in memory."""

    def over_deltas(
        self, program: Program, factors: Sequence[tuple[Array, Array]], constants: Sequence[float]
    ) -> tuple[Array, float]:
        """What a program makes of Δ = B·A of some factors (A, B), all of them finite: a matrix, and
        the sum of its squares. Raises TooLarge."""

    def over_arrays(
        self, program: Program, arrays: Sequence[Array], constants: Sequence[float]
    ) -> Array:
        """What a program makes of some arrays of one shape, all of them finite. Raises TooLarge."""


class _NumPy:
    """See Algebra."""

    def each(self, do: Callable[[Piece], None], parts: Sequence[Piece]) -> None:
        """See Algebra."""
        for part in parts:
            do(part)

    def widened(self, bits: Bits, dtype: str, work: str) -> Array:
        """See Algebra."""
        return finite_numbers(decoded(bits, dtype, work))

    def gram(self, x: Array) -> Matrix:
        """See Algebra."""
        wide = _wide(x)
        with np.errstate(over="ignore"):  # what is too large is infinite
            return wide.T @ wide

    def cholesky(self, gram: Matrix) -> tuple[Matrix, Matrix] | None:
        """See Algebra."""
        try:
            low = np.linalg.cholesky(gram)
        except np.linalg.LinAlgError:
            return None
        return low.T, np.linalg.inv(low).T

    def times(self, x: Array, y: Matrix) -> Matrix:
        """See Algebra."""
        return _wide(x) @ y

    def across(self, y: Matrix, x: Array) -> Matrix:
        """See Algebra."""
        return y @ _wide(x).T

    def over_deltas(
        self, program: Program, factors: Sequence[tuple[Array, Array]], constants: Sequence[float]
    ) -> tuple[Array, float]:
        """See Algebra: all of each Δ is formed."""
        whole = self.over_arrays(program, [b @ a for a, b in factors], constants)
        return whole, float(np.sum(whole**2, dtype="f8"))

    def over_arrays(
        self, program: Program, arrays: Sequence[Array], constants: Sequence[float]
    ) -> Array:
        """See Algebra."""
        from pemlang.kernels.interpret import computed

        [whole] = computed(program, arrays, constants)
        return whole


class StoredTensor:
    """A tensor as its file stores it, of which parts are taken to float64 when they are needed.

    Attributes:
        shape: of it.
    """

    def __init__(self, bits: Bits, dtype: str, algebra: Algebra) -> None:
        """Take its bits, and their dtype."""
        self.shape, self._flat = bits.shape, bits.reshape(-1)
        self._dtype, self._algebra = dtype, algebra

    def part(self, first: int, end: int) -> Matrix:
        """Some of its numbers, in one dimension. Raises NotFinite."""
        bits = self._flat[first:end]
        if self._dtype in FLOATS and self._dtype not in NATIVE:
            return self._algebra.widened(bits, self._dtype, "F64")
        return bits.astype(np.float64, copy=False)

    def whole(self) -> Matrix:
        """All of them, in its shape. Raises NotFinite."""
        return self.part(0, self._flat.size).reshape(self.shape)


def finite_numbers(x: Array) -> Array:
    """x; raises NotFinite where it holds infinity or NaN."""
    if not np.isfinite(x).all():
        raise NotFinite
    return x


def _wide(x: Array) -> Matrix:
    return x.astype(np.float64, copy=False)


NUMPY = _NumPy()
"""What steps are held to."""
