"""Functions of lists: `sum` and `len`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from pemlang.graph.coef import ONE
from pemlang.graph.node import AdapterNode, Num
from pemlang.graph.normal import linear
from pemlang.ops.linear import alike
from pemlang.ops.record import (
    ITEM,
    Context,
    Operator,
    Parameter,
    Result,
    Section,
    Signature,
    register,
)
from pemlang.ops.schedule import Arithmetic, Schedule

_TERMS = ("[adapter]", "[number]", "[schedule]")


def _sum(ctx: Context, xs: Sequence[AdapterNode] | Sequence[Num | Schedule]) -> Result:
    adapters = [x for x in xs if isinstance(x, AdapterNode)]
    if adapters:
        return linear(ctx.graph, alike(ctx, adapters).type, [(ONE, x) for x in adapters])
    total: Num | Schedule = Fraction(0)
    for x in xs:
        assert not isinstance(x, AdapterNode)
        total = Arithmetic("+", total, x).simple(ctx.graph)
    return total


def _len(ctx: Context, xs: Sequence[object]) -> Num:
    return Fraction(len(xs))


register(
    Section(
        "Lists",
        "What a list holds together, and how much of it there is.",
        (
            Operator(
                name="sum",
                signatures=(Signature((Parameter("xs", _TERMS),), ITEM, _sum),),
                summary="The sum of adapters, as by `+`; of numbers; 0 of none.",
                formula="Σ xᵢ",
                laws=("sum([x]) = x", "sum([x, y]) = x + y"),
                reference=sum,
                acts_on="delta",
            ),
            Operator(
                name="len",
                signatures=(
                    Signature(
                        (Parameter("xs", (*_TERMS, "[string]", "[bool]", "[model]")),),
                        "number",
                        _len,
                    ),
                ),
                summary="How many items a list has.",
                formula="n of x₁, …, xₙ",
            ),
        ),
    )
)
