"""A parametrisation: a vector that is added to what a module gives. Δ is the vector."""

from __future__ import annotations

from pemlang.modules import OneTensor, register


class Bias(OneTensor):
    """b, of (out,)."""

    name = "bias"
    title = "bias"
    factors = ("bias",)


register(Bias())
