"""Weighted sums under the names other tools give them: `mean`, `linear`, `task_arithmetic`,
`lerp`. All of them join the normal form: they are + and * written shorter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Protocol, TypeVar

from pemlang.diagnostics import Fault
from pemlang.graph.node import AdapterNode, Num
from pemlang.graph.normal import linear as combination
from pemlang.ops.exact import TERMS, resolve
from pemlang.ops.points import of_models
from pemlang.ops.record import Context, Operator, Parameter, Section, Signature, register
from pemlang.ops.schedule import Arithmetic, Schedule

ADAPTERS = Parameter("xs", ("[adapter]",))


class Truth(Protocol):
    """A condition of the language."""

    @property
    def truth(self) -> bool | None:
        """Whether it holds, where that is known before weights are read."""


def alike(
    ctx: Context,
    xs: Sequence[AdapterNode],
    agree: Callable[[Context, AdapterNode, AdapterNode], AdapterNode] = TERMS.agree,
) -> AdapterNode:
    """Hold adapters to each other, two by two; one of them, of the base that any of them names.

    Raises:
        Fault: PEM0325 there is none; what `agree` raises where two differ.
    """
    if not xs:
        message = f"`{ctx.what}` is given no adapters"
        raise Fault("PEM0325", message, "give it some, as in [a, b]")
    agreed, at = xs[0], 0
    what = f"{ctx.what}([…]{', …' * (len(ctx.texts) > 1)})"
    for index, x in enumerate(xs[1:], 1):
        pair = ctx.pair((ctx.item(at), ctx.item(index)), what)
        held = agree(pair, agreed, x)
        ctx.watches += pair.watches
        agreed, at = (agreed, at) if held is agreed else (held, index)
    return agreed


Given = TypeVar("Given", Num, Num | Schedule)


def weights_for(
    ctx: Context, xs: Sequence[AdapterNode], weights: Sequence[Given] | None
) -> list[Given]:
    """A weight for each adapter, 1 where none are given; raises PEM0325 where their numbers
    differ."""
    if weights is None:
        return [Fraction(1)] * len(xs)
    if len(weights) != len(xs):
        raise Fault(
            "PEM0325",
            f"`{ctx.what}` is given {len(xs)} adapter{'s' * (len(xs) != 1)} and {len(weights)} "
            f"weight{'s' * (len(weights) != 1)}",
            f"give one weight for each adapter, {len(xs)} in all",
        )
    return list(weights)


def _weighted(
    ctx: Context, xs: Sequence[AdapterNode], weights: Sequence[Num | Schedule]
) -> AdapterNode:
    agreed = alike(ctx, xs)
    terms = [(resolve(ctx, weight, x), x) for weight, x in zip(weights, xs, strict=True)]
    return combination(ctx.graph, agreed.type, terms)


def _normalised(ctx: Context, weights: Sequence[Num | Schedule]) -> list[Num | Schedule]:
    total: Num | Schedule = Fraction(0)
    for weight in weights:
        total = Arithmetic("+", total, weight).simple(ctx.graph)
    if total == 0 and weights:
        raise Fault(
            "PEM0330",
            f"the weights of `{ctx.what}` sum to zero, and it divides by their sum",
            ctx.having("normalize", "false"),
            ("normalize=false gives the weighted sum itself",),
        )
    return [Arithmetic("/", weight, total).simple(ctx.graph) for weight in weights]


def _mean(ctx: Context, xs: Sequence[AdapterNode]) -> AdapterNode:
    return _weighted(ctx, xs, [Fraction(1, len(xs) or 1)] * len(xs))


def _linear(
    ctx: Context,
    xs: Sequence[AdapterNode],
    weights: Sequence[Num | Schedule],
    normalize: Truth | None,
) -> AdapterNode:
    given = weights_for(ctx, xs, weights)
    truth = True if normalize is None else normalize.truth
    if truth is None:
        raise Fault(
            "PEM0314",
            "normalize is measured from weights, but it decides what is computed",
            "write true or false",
        )
    return _weighted(ctx, xs, _normalised(ctx, given) if truth else given)


def _task_arithmetic(
    ctx: Context,
    xs: Sequence[AdapterNode],
    weights: Sequence[Num | Schedule] | None,
    scale: Num | Schedule,
) -> AdapterNode:
    given = weights_for(ctx, xs, weights)
    scaled = [Arithmetic("*", scale, weight).simple(ctx.graph) for weight in given]
    return _weighted(ctx, xs, scaled)


def _lerp(ctx: Context, x: AdapterNode, y: AdapterNode, t: Num | Schedule) -> AdapterNode:
    agreed = TERMS.agree(ctx, x, y)
    rest = Arithmetic("-", Fraction(1), t).simple(ctx.graph)
    terms = [(resolve(ctx, rest, x), x), (resolve(ctx, t, y), y)]
    return combination(ctx.graph, agreed.type, terms)


_OF_ADAPTERS = Signature((ADAPTERS,), "adapter", _mean)

MEAN = Operator(
    name="mean",
    signatures=(_OF_ADAPTERS,),
    of_models=of_models(_OF_ADAPTERS),
    summary="The mean of what adapters do.",
    formula="Δ = Σ Δᵢ / n",
    laws=("mean([x]) = x", "mean([x, x]) = x", "mean([x, y]) = (x + y) / 2"),
    reference=lambda xs: sum(xs) / len(xs),
    acts_on="delta",
)

_WEIGHTED = Signature(
    (
        ADAPTERS,
        Parameter("weights", ("[number]", "[schedule]")),
        Parameter("normalize", ("bool",), None),
    ),
    "adapter",
    _linear,
)

LINEAR = Operator(
    name="linear",
    signatures=(_WEIGHTED,),
    of_models=of_models(_WEIGHTED),
    summary="A weighted mean of what adapters do; with normalize=false a weighted sum.",
    formula="Δ = Σ wᵢ·Δᵢ / Σ wᵢ",
    laws=(
        "linear([x, y], weights=[m, n]) = (m·x + n·y) / (m + n)",
        "linear([x, y], weights=[m, n], normalize=false) = m·x + n·y",
    ),
    source="mergekit `linear`; PEFT `cat` computes the sum",
    reference=lambda xs, ws: sum(w * x for w, x in zip(ws, xs, strict=True)) / sum(ws),
    acts_on="delta",
)

TASK_ARITHMETIC = Operator(
    name="task_arithmetic",
    signatures=(
        Signature(
            (
                ADAPTERS,
                Parameter("weights", ("[number]", "[schedule]"), None),
                Parameter("scale", ("number", "schedule"), Fraction(1)),
            ),
            "adapter",
            _task_arithmetic,
        ),
    ),
    summary="A weighted sum of what adapters do, as of task vectors.",
    formula="Δ = λ·Σ wᵢ·Δᵢ",
    laws=(
        "task_arithmetic([x, y]) = x + y",
        "task_arithmetic([x, y], weights=[m, n], scale=2) = 2·m·x + 2·n·y",
    ),
    source="Ilharco et al. 2023, *Editing Models with Task Arithmetic*; mergekit `task_arithmetic`",
    reference=lambda xs, ws, c: c * sum(w * x for w, x in zip(ws, xs, strict=True)),
    acts_on="delta",
)

_BETWEEN = Signature(
    (
        Parameter("x", ("adapter",)),
        Parameter("y", ("adapter",)),
        Parameter("t", ("number", "schedule")),
    ),
    "adapter",
    _lerp,
)

LERP = Operator(
    name="lerp",
    signatures=(_BETWEEN,),
    of_models=of_models(_BETWEEN),
    summary="From one adapter to another, evenly: the first at 0, the second at 1.",
    formula="Δ = (1 − t)·Δx + t·Δy",
    laws=("lerp(x, y, t=0) = x", "lerp(x, y, t=1) = y", "lerp(x, y, n) = lerp(y, x, 1 − n)"),
    reference=lambda x, y, t: (1 - t) * x + t * y,
    acts_on="delta",
)

register(
    Section(
        "Weighted sums",
        "`+` and `*` under the names that other tools give them. They take a list of adapters.",
        (MEAN, LINEAR, TASK_ARITHMETIC, LERP),
    )
)
