"""(IA)³: a vector l of gains, W′ = l ⊙ W. Its coordinate, in which adapters add, is g = l − 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pemlang.modules.record import SiteBuilder, SiteValues, register
from pemlang.modules.sites import SiteShape
from pemlang.modules.vectors import OneTensor

if TYPE_CHECKING:
    from pemlang.kernels.builder import Value
    from pemlang.kernels.step import Shape


class Ia3(OneTensor):
    """Liu et al. 2022, *(IA)³*: l over a module's outputs, or over its inputs."""

    name = "ia3"
    title = "(IA)³"
    acts = "multiplies what goes in or out of W by l"
    factors = ("l",)
    bases = (1.0,)
    norm_title = "‖l − 1‖, the gains' distance from doing nothing"

    def loaded(self, builder: SiteBuilder, stored: Sequence[Value], work: str) -> tuple[Value, ...]:
        """g = l − 1 in float64: the subtraction and the way back then round once."""
        return (builder.plus(builder.cast(stored[0], "F64"), -1.0),)

    def zeros(self, builder: SiteBuilder, site: SiteShape, rank: int, scale: float) -> SiteValues:
        """g = 0."""
        return SiteValues(self, (builder.const(0.0, "F64", site.a),))

    def by_row(self, site: SiteShape) -> tuple[bool, ...]:
        """l over the outputs."""
        return (True,) if site.layer == "gain_out" else ()

    def orientations(self, site: SiteShape, tensor: Shape) -> tuple[bool, ...]:
        """By which axis is as long as the gains. A bias has outputs alone."""
        gains = math.prod(site.a)
        if len(tensor) == 1:
            return (False,) if site.layer == "gain_out" and tensor == (gains,) else ()
        ways = (False, True) if len(tensor) == 2 else (False,)
        return tuple(turned for turned in ways if tensor[_axis(site, tensor, turned)] == gains)

    def baked(
        self, builder: SiteBuilder, weight: Value, part: SiteValues, site: SiteShape, turned: bool
    ) -> Value:
        """l ⊙ W: over the rows of W, or over its columns."""
        axis = _axis(site, weight.shape, turned)
        return builder.scale_along(weight, part.values[0], axis)


def _axis(site: SiteShape, tensor: Shape, turned: bool) -> int:
    """The axis of a tensor that gains go along."""
    return 0 if len(tensor) == 1 else int((site.layer == "gain_in") != turned)


IA3 = register(Ia3())
