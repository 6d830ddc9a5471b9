"""DoRA: A, B and a magnitude m for each output, W′ = m ∘ (W + s·B·A) / ‖W + s·B·A‖ by output. What
it changes depends on W: it has no Δ of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pemlang.kernels import lowrank
from pemlang.kernels.lowrank import LowRank
from pemlang.lazy import numpy as np
from pemlang.modules.lora import LORA
from pemlang.modules.record import Parametrisation, SiteBuilder, SiteValues, register
from pemlang.modules.sites import SiteShape

if TYPE_CHECKING:
    from pemlang.kernels.builder import Value
    from pemlang.kernels.step import Dense, Shape
    from pemlang.tensorfiles.dtypes import Array


class Dora(Parametrisation):
    """Liu et al. 2024, *DoRA*, equation 5. The norm is that of what goes into an output, a row of W
    as a linear layer has it, and of an embedding a column (PEFT, `tuners/lora/dora.py`)."""

    name = "dora"
    title = "DoRA"
    acts = "adds s·B·A to W, and brings each output to the length m"
    factors = ("a", "b", "m")
    ranked = True
    needs_base = True
    norm_title = "‖(s·B·A, m)‖, what it holds, where a change needs the base"
    bases = (0.0, 0.0, 0.0)

    def shapes(self, site: SiteShape, rank: int) -> tuple[Shape, ...]:
        """A, B and m: (out,), of a convolution (1, out, 1, …)."""
        return (*LORA.shapes(site, rank), magnitude_shape(site))

    def loaded(self, builder: SiteBuilder, stored: Sequence[Value], work: str) -> tuple[Value, ...]:
        """A, B and m as they are."""
        return LORA.loaded(builder, stored, work)

    def total(
        self, builder: SiteBuilder, parts: Sequence[tuple[float, SiteValues]], scale: float
    ) -> SiteValues:
        """The one that there is, at another scale."""
        [(number, part)] = parts
        assert number == 1, "a DoRA has no multiples"
        a, b, m = part.values
        factors = LORA.total(builder, [(1.0, SiteValues(LORA, (a, b), part.scale))], scale).values
        return SiteValues(self, (*factors, m), scale)

    def zeros(self, builder: SiteBuilder, site: SiteShape, rank: int, scale: float) -> SiteValues:
        """Never asked for: the m that does nothing is that of the base."""
        raise AssertionError("no DoRA does nothing")

    def delta(self, tensors: Sequence[Dense], scale: float) -> Dense:
        """s·B·A of matrices, and m as one more column: what is compared where no base is there."""
        part = self.low_rank([x.astype("f8") for x in tensors], scale)
        delta: Dense = part.b @ part.a
        return delta

    def low_rank(self, tensors: Sequence[Array], scale: float) -> LowRank:
        """The factors of `delta`: [s·B, m], and A beside a 1."""
        a, b, m = tensors
        a = np.pad(a.reshape(len(a), -1), ((0, 1), (0, 1)))
        a[-1, -1] = 1
        return LowRank(a, np.hstack([scale * b.reshape(len(b), -1), m.reshape(-1, 1)]), 1.0)

    def by_row(self, site: SiteShape) -> tuple[bool, ...]:
        """B and m; the m of a convolution has its outputs along another axis."""
        return (*LORA.by_row(site), True) if site.layer == "linear" else ()

    def norm(self, tensors: Sequence[Array], scale: float) -> float:
        """Of `delta`, from the core."""
        return lowrank.norm(self.low_rank(tensors, scale))

    def inner(
        self, left: Sequence[Array], right: Sequence[Array], scales: tuple[float, float]
    ) -> float:
        """From the cores over common bases."""
        return lowrank.inner(self.low_rank(left, scales[0]), self.low_rank(right, scales[1]))

    def orientations(self, site: SiteShape, tensor: Shape) -> tuple[bool, ...]:
        """As those of a LoRA."""
        return LORA.orientations(site, tensor)

    def baked(
        self, builder: SiteBuilder, weight: Value, part: SiteValues, site: SiteShape, turned: bool
    ) -> Value:
        """m ∘ (W + s·B·A) / ‖W + s·B·A‖."""
        a, b, m = part.values
        return builder.add_product_at_lengths(weight, (a, b), part.scale, turned, m)

    def rank(self, values: Sequence[Value]) -> int:
        """r."""
        return LORA.rank(values)


def magnitude_shape(site: SiteShape) -> tuple[int, ...]:
    """The shape of m, as PEFT stores it."""
    return site.b if len(site.b) == 1 else (1, *site.b)


register(Dora())
