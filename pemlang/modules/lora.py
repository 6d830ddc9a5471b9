"""LoRA: A (r, in, …) and B (out, r, …), Δ = s·B·A. Nothing larger than the factors is formed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pemlang.kernels import lowrank
from pemlang.kernels.lowrank import LowRank
from pemlang.modules.record import Parametrisation, SiteBuilder, SiteValues, register
from pemlang.modules.sites import SiteShape
from pemlang.modules.vectors import weighted

if TYPE_CHECKING:
    from pemlang.kernels.builder import Value
    from pemlang.kernels.step import Dense, Shape
    from pemlang.tensorfiles.dtypes import Array


class Lora(Parametrisation):
    """Hu et al. 2021, *LoRA*. The scale s is α/r, or α/√r with rsLoRA."""

    name = "lora"
    title = "LoRA"
    acts = "adds s·B·A to W"
    factors = ("a", "b")
    ranked = True
    factored = True
    matrices = True
    norm_title = "‖Δ‖ (Frobenius), Δ = s·B·A"
    bases = (0.0, 0.0)

    def shapes(self, site: SiteShape, rank: int) -> tuple[Shape, ...]:
        """A and B."""
        return (rank, *site.a), (site.b[0], rank, *site.b[1:])

    def loaded(self, builder: SiteBuilder, stored: Sequence[Value], work: str) -> tuple[Value, ...]:
        """A and B as they are."""
        return tuple(builder.cast(x, work) for x in stored)

    def total(
        self, builder: SiteBuilder, parts: Sequence[tuple[float, SiteValues]], scale: float
    ) -> SiteValues:
        """A stacked, B side by side and carrying cᵢ·sᵢ/scale: its rank is the sum of the ranks."""
        of_a, of_b = self.rank_axes
        a = builder.concat([part.values[0] for _, part in parts], of_a)
        b = builder.concat([_carrying(builder, c, part, scale) for c, part in parts], of_b)
        return SiteValues(self, (a, b), scale)

    def zeros(self, builder: SiteBuilder, site: SiteShape, rank: int, scale: float) -> SiteValues:
        """Zeros of a rank."""
        values = (builder.const(0.0, "F32", shape) for shape in self.shapes(site, rank))
        return SiteValues(self, tuple(values), scale)

    def delta(self, tensors: Sequence[Dense], scale: float) -> Dense:
        """s·B·A of matrices."""
        a, b = (x.astype("f8") for x in tensors)
        delta: Dense = scale * b.reshape(b.shape[0], -1) @ a.reshape(a.shape[0], -1)
        return delta

    def low_rank(self, tensors: Sequence[Array], scale: float) -> LowRank | None:
        """A and B."""
        return _pair(tensors, scale)

    def by_row(self, site: SiteShape) -> tuple[bool, ...]:
        """B; an embedding has outputs of its own kind."""
        return () if site.layer == "embedding" else (False, True)

    def statistics(self, site: SiteShape, rank: int) -> Mapping[str, Mapping[str, Shape]]:
        """See Parametrisation; `gram` is xᵀx of the inputs."""
        a, b = self.shapes(site, rank)
        gram = (site.a[0], site.a[0])
        return {"gram": {"gram": gram}, "fisher": {"fisher_A": a, "fisher_B": b}}

    def norm(self, tensors: Sequence[Array], scale: float) -> float:
        """From the core."""
        return lowrank.norm(_pair(tensors, scale))

    def inner(
        self, left: Sequence[Array], right: Sequence[Array], scales: tuple[float, float]
    ) -> float:
        """From the cores over common bases."""
        return lowrank.inner(_pair(left, scales[0]), _pair(right, scales[1]))

    def orientations(self, site: SiteShape, tensor: Shape) -> tuple[bool, ...]:
        """The rows of a linear layer are its outputs, or in transformers' Conv1D its inputs; those
        of an embedding are its inputs, the tokens. LoHa and its like store a convolution as if it
        were linear, its kernel among its inputs."""
        shape = (site.b[0], *site.a)
        if site.layer == "linear" and len(tensor) > 2:
            return (False,) if shape == (tensor[0], math.prod(tensor[1:])) else ()
        ways = {"linear": (False, True), "embedding": (True,)}.get(site.layer, (False,))
        return tuple(turned for turned in ways if tensor == (shape[::-1] if turned else shape))

    def baked(
        self, builder: SiteBuilder, weight: Value, part: SiteValues, site: SiteShape, turned: bool
    ) -> Value:
        """W + s·B·A."""
        return builder.add_product(weight, part.values, part.scale, turned)

    def rank(self, values: Sequence[Value]) -> int:
        """r."""
        return values[0].shape[self.rank_axes[0]]


LORA = register(Lora())


def _pair(tensors: Sequence[Array], scale: float) -> LowRank:
    a, b = tensors
    return LowRank(a, b, scale)


def _carrying(builder: SiteBuilder, number: float, part: SiteValues, scale: float) -> Value:
    """B that carries a number, at another scale."""
    factor = number if part.scale == scale else number * part.scale / scale
    return builder.scale(part.values[1], factor)


def combined(builder: SiteBuilder, parts: Iterable[tuple[float, float, SiteValues]]) -> SiteValues:
    """(Σ αᵢAᵢ, Σ βᵢBᵢ) of LoRAs of one rank and scale, from (αᵢ, βᵢ, xᵢ); of what has none
    Σ βᵢ·Δᵢ, which a negation turns and a number scales, as B."""
    parts = list(parts)
    record = parts[0][2].parametrisation
    if not record.ranked:
        return record.total(builder, [(beta, part) for _, beta, part in parts], 1.0)
    a = weighted(builder, [(alpha, part.values[0]) for alpha, _, part in parts])
    b = weighted(builder, [(beta, part.values[1]) for _, beta, part in parts])
    return parts[0][2].with_values(a, b)


def padded(builder: SiteBuilder, part: SiteValues, rank: int) -> SiteValues:
    """The same Δ with zero rows in A and zero columns in B up to a rank; what has none as it is."""
    if not part.parametrisation.ranked:
        return part
    a, b, *others = part.values
    of_a, of_b = part.parametrisation.rank_axes
    return part.with_values(builder.pad(a, of_a, rank), builder.pad(b, of_b, rank), *others)


def rescaled(builder: SiteBuilder, part: SiteValues, scale: float) -> SiteValues:
    """The same Δ under another scale: the ratio moves into B. What has no rank is as it is."""
    if not part.parametrisation.ranked:
        return part
    a, b = part.values[0], _carrying(builder, 1.0, part, scale)
    return SiteValues(part.parametrisation, (a, b), scale)


def truncated(builder: SiteBuilder, part: SiteValues, rank: int) -> tuple[SiteValues, Value]:
    """The best approximation of Δ of a rank, and what it costs, as lowrank.truncate says."""
    a, b, cost = builder.core_svd(part.values[0], part.values[1], part.scale, rank)
    return part.with_values(a, b), cost
