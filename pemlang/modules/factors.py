"""The parameters of a site as values of a program, and what combines them: sums, concatenations,
padding, truncation. Nothing is computed here: steps are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pemlang.kernels.program import Builder, Value


@dataclass(frozen=True, slots=True)
class Factors:
    """The parameters of one site.

    LoRA: a is (r, in, …), b is (out, r, …), Δ = scale·b·a. (IA)³: a is g = l − 1, b is None.
    """

    a: Value
    b: Value | None
    scale: float = 1.0

    @property
    def out(self) -> Value:
        """B, which a LoRA always has."""
        assert self.b is not None
        return self.b

    @property
    def rank(self) -> int:
        """r; 0 for (IA)³."""
        return 0 if self.b is None else self.a.shape[0]


def weighted(builder: Builder, parts: Iterable[tuple[float, Value]]) -> Value:
    """Σ cᵢ·xᵢ in the values' own precision, in the order given. Never empty."""
    total: Value | None = None
    for number, x in parts:
        total = builder.scale(x, number) if total is None else builder.fma(x, number, total)
    assert total is not None
    return total


def concatenated(builder: Builder, parts: Iterable[tuple[float, Factors]], scale: float) -> Factors:
    """Σ cᵢ·Δᵢ as one pair of factors: A stacked, B side by side and carrying cᵢ·sᵢ/scale.

    The sum is exact: its rank is the sum of the ranks.
    """
    parts = list(parts)
    a = builder.concat([part.a for _, part in parts], axis=0)
    b = builder.concat([_carry(builder, number, part, scale) for number, part in parts], axis=1)
    return Factors(a, b, scale)


def _carry(builder: Builder, number: float, part: Factors, scale: float) -> Value:
    factor = number if part.scale == scale else number * part.scale / scale
    return builder.scale(part.out, factor)


def padded(builder: Builder, part: Factors, rank: int) -> Factors:
    """The same Δ with zero rows in A and zero columns in B up to a rank."""
    a, b = builder.pad(part.a, 0, rank), builder.pad(part.out, 1, rank)
    return Factors(a, b, part.scale)


def rescaled(builder: Builder, part: Factors, scale: float) -> Factors:
    """The same Δ under another scale: the ratio moves into B."""
    return Factors(part.a, _carry(builder, 1.0, part, scale), scale)


def zeros(
    builder: Builder, a: tuple[int, ...], b: tuple[int, ...], rank: int, scale: float
) -> Factors:
    """The zero LoRA of a rank at a site whose factors have the shapes a and b without it."""
    return Factors(
        builder.const(0.0, "F32", (rank, *a)),
        builder.const(0.0, "F32", (b[0], rank, *b[1:])),
        scale,
    )


def truncated(builder: Builder, part: Factors, rank: int) -> tuple[Factors, Value]:
    """The best approximation of Δ of a rank, and what it costs, as lowrank.truncate says."""
    a, b, cost = builder.core_svd(part.a, part.out, part.scale, rank)
    return Factors(a, b, part.scale), cost
