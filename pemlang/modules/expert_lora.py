"""LoRA of experts: one parameter of a mixture of experts holds a matrix of each, and has a LoRA of
each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pemlang.kernels.lowrank import LowRank
from pemlang.kernels.site import SitePart
from pemlang.lazy import numpy as np
from pemlang.modules.lora import LORA, Lora
from pemlang.modules.record import SiteBuilder, SiteValues, register
from pemlang.modules.sites import EXPERTS, SiteShape

if TYPE_CHECKING:
    from pemlang.kernels.builder import Value
    from pemlang.kernels.step import Dense, Shape
    from pemlang.tensorfiles.dtypes import Array


class ExpertLora(Lora):
    """A (experts, r, in) and B (out, r, experts): Δ of expert e is s·B[:, :, e]·A[e].

    Source: PEFT `tuners/lora/layer.py`, `ParamWrapper.get_delta_weight`.
    """

    name = "expert_lora"
    title = "LoRA of experts"
    acts = "adds s·B·A of each expert to its part of W"
    family = "lora"
    factored = False
    matrices = False
    norm_title = "‖Δ‖ (Frobenius) of all experts, Δ = s·B·A"
    rank_axes = (1, 1)

    def shapes(self, site: SiteShape, rank: int) -> tuple[Shape, ...]:
        """A and B."""
        (experts, inputs), (outputs, _) = site.a, site.b
        return (experts, rank, inputs), (outputs, rank, experts)

    def zeros(self, builder: SiteBuilder, site: SiteShape, rank: int, scale: float) -> SiteValues:
        """Zeros of a rank."""
        values = (builder.const(0.0, "F32", shape) for shape in self.shapes(site, rank))
        return SiteValues(self, tuple(values), scale)

    def delta(self, tensors: Sequence[Dense], scale: float) -> Dense:
        """(experts, out, in)."""
        a, b = (x.astype("f8") for x in tensors)
        delta: Dense = scale * np.einsum("ore,eri->eoi", b, a)
        return delta

    def low_rank(self, tensors: Sequence[Array], scale: float) -> LowRank | None:
        """No one pair of factors says what all experts do."""
        return None

    def by_row(self, site: SiteShape) -> tuple[bool, ...]:
        """B."""
        return (False, True)

    def statistics(self, site: SiteShape, rank: int) -> Mapping[str, Mapping[str, Shape]]:
        """None are collected."""
        return {}

    def pieces(self, part: SitePart) -> Sequence[SitePart]:
        """The LoRA of each expert; its A alone where that is all there is."""
        a, *others = part.tensors
        by_expert = (np.ascontiguousarray(b.transpose(2, 0, 1)) for b in others)
        return [SitePart(LORA, tensors, part.scale) for tensors in zip(a, *by_expert, strict=True)]

    def norm(self, tensors: Sequence[Array], scale: float) -> float:
        """From the core of each expert."""
        return math.hypot(*(piece.norm() for piece in SitePart(self, (*tensors,), scale).pieces))

    def inner(
        self, left: Sequence[Array], right: Sequence[Array], scales: tuple[float, float]
    ) -> float:
        """The sum over the experts."""
        xs, ys = (
            SitePart(self, (*tensors,), scale).pieces
            for tensors, scale in zip((left, right), scales, strict=True)
        )
        return math.fsum(x.inner(y) for x, y in zip(xs, ys, strict=True))

    def orientations(self, site: SiteShape, tensor: Shape) -> tuple[bool, ...]:
        """(experts, out, in), or (experts, in, out); of one expert (out, in)."""
        (experts, inputs), (outputs, _) = site.a, site.b
        if experts == 1 and len(tensor) == 2:
            return (False,) if tensor == (outputs, inputs) else ()
        ways = ((False, (experts, outputs, inputs)), (True, (experts, inputs, outputs)))
        return tuple(turned for turned, shape in ways if tensor == shape)

    def baked(
        self, builder: SiteBuilder, weight: Value, part: SiteValues, site: SiteShape, turned: bool
    ) -> Value:
        """W + s·B·A, expert by expert."""
        return builder.add_products(weight, part.values, part.scale, turned)


EXPERT_LORA = register(ExpertLora())


def expert_shape(a: Shape, b: Shape, rank: int) -> SiteShape | None:
    """The shape of a site by those of its A (experts·r, in) and B (out, r·experts) in a file; None
    where they do not fit a rank."""
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or a[0] % rank:
        return None
    experts = a[0] // rank
    return SiteShape(EXPERT_LORA.name, EXPERTS, (experts, a[1]), (b[0], experts))
