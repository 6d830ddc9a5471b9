"""Parametrisations whose one tensor is a vector of its own: adapters add by adding it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pemlang.lazy import numpy as np
from pemlang.modules.record import Parametrisation, SiteBuilder, SiteValues
from pemlang.modules.sites import SiteShape

if TYPE_CHECKING:
    from pemlang.kernels.builder import Value
    from pemlang.kernels.step import Dense, Shape
    from pemlang.tensorfiles.dtypes import Array


def weighted(builder: SiteBuilder, parts: Iterable[tuple[float, Value]]) -> Value:
    """Σ cᵢ·xᵢ in the values' own precision, in the order given. Never empty."""
    total: Value | None = None
    for number, x in parts:
        total = builder.scale(x, number) if total is None else builder.fma(x, number, total)
    assert total is not None
    return total


class OneTensor(Parametrisation):
    """One tensor x a site, stored as it is: Σ cᵢ·Δᵢ is Σ cᵢ·xᵢ."""

    factors = ("x",)
    bases = (0.0,)

    def shapes(self, site: SiteShape, rank: int) -> tuple[Shape, ...]:
        """That of the tensor."""
        return (site.a,)

    def loaded(self, builder: SiteBuilder, stored: Sequence[Value], work: str) -> tuple[Value, ...]:
        """The tensor as it is."""
        return (builder.cast(stored[0], work),)

    def total(
        self, builder: SiteBuilder, parts: Sequence[tuple[float, SiteValues]], scale: float
    ) -> SiteValues:
        """The weighted sum of the tensors, each times its scale and over that of what comes out:
        what PEFT stores of a bias it multiplies by the scale of the LoRA."""
        terms = [(c * part.scale / scale, part.values[0]) for c, part in parts]
        return SiteValues(self, (weighted(builder, terms),), scale)

    def zeros(self, builder: SiteBuilder, site: SiteShape, rank: int, scale: float) -> SiteValues:
        """A tensor of zeros."""
        return SiteValues(self, (builder.const(0.0, "F32", site.a),))

    def orientations(self, site: SiteShape, tensor: Shape) -> tuple[bool, ...]:
        """One that is of the same shape."""
        return (False,) if tensor == site.a else ()

    def baked(
        self, builder: SiteBuilder, weight: Value, part: SiteValues, site: SiteShape, turned: bool
    ) -> Value:
        """W + x."""
        return weighted(builder, [(1.0, weight), (1.0, part.values[0])])

    def delta(self, tensors: Sequence[Dense], scale: float) -> Dense:
        """The tensor itself."""
        return tensors[0].astype("f8")

    def norm(self, tensors: Sequence[Array], scale: float) -> float:
        """‖x‖."""
        return float(np.linalg.norm(tensors[0].astype(np.float64)))

    def inner(
        self, left: Sequence[Array], right: Sequence[Array], scales: tuple[float, float]
    ) -> float:
        """⟨x₁, x₂⟩."""
        return float(np.sum(left[0].astype(np.float64) * right[0]))
