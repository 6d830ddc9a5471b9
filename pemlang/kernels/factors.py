"""What happens to the factors of one site: sums, concatenations, padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pemlang.diagnostics import Fault
from pemlang.kernels.dtypes import Array


@dataclass(frozen=True, slots=True)
class Factors:
    """The parameters of one site.

    LoRA: a is (r, in, …), b is (out, r, …), Δ = scale·b·a. (IA)³: a is g = l − 1, b is None.
    """

    a: Array
    b: Array | None
    scale: float = 1.0

    @property
    def out(self) -> Array:
        """B, which a LoRA always has."""
        assert self.b is not None
        return self.b


def weighted(parts: Iterable[tuple[float, Array]]) -> Array:
    """Σ cᵢ·xᵢ in the arrays' own precision, in the order given. Never empty."""
    total: Array | None = None
    with finite():
        for number, array in parts:
            term = array if number == 1 else np.multiply(array, array.dtype.type(number))
            total = term if total is None else total + term
    assert total is not None
    return total


@contextmanager
def finite() -> Iterator[None]:
    """Numbers stay finite, so that no later step meets infinity or NaN; raises PEM0503."""
    try:
        with np.errstate(over="raise"):
            yield
    except (FloatingPointError, np.linalg.LinAlgError):
        raise Fault(
            "PEM0503", "a result is too large for the precision it is computed in", "scale it down"
        ) from None


def concatenated(parts: Iterable[tuple[float, Factors]], scale: float) -> Factors:
    """Σ cᵢ·Δᵢ as one pair of factors: A stacked, B side by side and carrying cᵢ·sᵢ/scale.

    The sum is exact: its rank is the sum of the ranks.
    """
    parts = list(parts)
    a = np.concatenate([part.a for _, part in parts], axis=0)
    b = np.concatenate([_carry(number, part, scale) for number, part in parts], axis=1)
    return Factors(a, b, scale)


def _carry(number: float, part: Factors, scale: float) -> Array:
    factor = number if part.scale == scale else number * part.scale / scale
    if factor == 1:
        return part.out
    with finite():
        product: Array = part.out * part.out.dtype.type(factor)
    return product


def padded(part: Factors, rank: int) -> Factors:
    """The same Δ with zero rows in A and zero columns in B up to a rank."""
    more = rank - part.a.shape[0]
    if more <= 0:
        return part
    a = np.concatenate([part.a, np.zeros((more, *part.a.shape[1:]), part.a.dtype)], axis=0)
    shape = (part.out.shape[0], more, *part.out.shape[2:])
    b = np.concatenate([part.out, np.zeros(shape, part.out.dtype)], axis=1)
    return Factors(a, b, part.scale)


def rescaled(part: Factors, scale: float) -> Factors:
    """The same Δ under another scale: the ratio moves into B."""
    return Factors(part.a, _carry(1.0, part, scale), scale)


def zeros(a: tuple[int, ...], b: tuple[int, ...], rank: int, scale: float) -> Factors:
    """The zero LoRA of a rank at a site whose factors have the shapes a and b without it."""
    return Factors(
        np.zeros((rank, *a), np.float32), np.zeros((b[0], rank, *b[1:]), np.float32), scale
    )
