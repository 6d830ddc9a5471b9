"""The exact family, `+ - * /`, `join` and selections: what modules do, added as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import reduce

from pemlang.graph import coef as coefs
from pemlang.graph.dag import Graph
from pemlang.graph.node import AdapterNode, Coef, ModelNode, Num
from pemlang.graph.normal import MINUS_ONE, linear
from pemlang.graph.numbers import combine
from pemlang.ops.agree import same_base, same_space, union, with_base
from pemlang.ops.bakes import bake
from pemlang.ops.fused import hold_one_name
from pemlang.ops.models import points_do_not_add, points_do_not_scale, task_vector
from pemlang.ops.record import Context, Operator, Parameter, Section, Signature, Terms, register
from pemlang.ops.schedule import Arithmetic, Schedule
from pemlang.ops.vocabulary import join_models


def _p(name: str, *kinds: str) -> Parameter:
    return Parameter(name, kinds)


# --- numbers and schedules -----------------------------------------------------------------


def _numbers(symbol: str) -> tuple[Signature, ...]:
    def number(ctx: Context, x: Num, y: Num) -> Num:
        return combine(ctx.graph, symbol, x, y)

    def schedule(ctx: Context, x: Num | Schedule, y: Num | Schedule) -> Schedule:
        return Arithmetic(symbol, x, y)

    return (
        Signature((_p("x", "number"), _p("y", "number")), "number", number),
        Signature((_p("x", "schedule"), _p("y", "number", "schedule")), "schedule", schedule),
        Signature((_p("x", "number"), _p("y", "schedule")), "schedule", schedule),
    )


# --- adapters ------------------------------------------------------------------------------


def _agree(ctx: Context, x: AdapterNode, y: AdapterNode) -> AdapterNode:
    same_space(ctx, x, y)
    return with_base(x, y)


def signed_sum(graph: Graph, terms: Sequence[tuple[int, AdapterNode]]) -> AdapterNode:
    """±x₁ ± x₂ ± … of adapters of one space."""
    with_a_base = reduce(with_base, (x for _, x in terms))
    return linear(graph, with_a_base.type, [(Fraction(sign), x) for sign, x in terms])


TERMS = Terms(_agree, signed_sum)


def _negate(ctx: Context, x: AdapterNode) -> AdapterNode:
    return linear(ctx.graph, x.type, [(MINUS_ONE, x)])


def resolve(ctx: Context, by: Num | Schedule, x: AdapterNode) -> Coef:
    """A number, or a schedule's numbers over the sites of x."""
    if isinstance(by, Schedule):
        shapes = x.shapes
        return coefs.collapse(by.over(ctx.graph, tuple(shapes)), shapes)
    return by


def _scale(ctx: Context, by: Num | Schedule, x: AdapterNode) -> AdapterNode:
    return linear(ctx.graph, x.type, [(resolve(ctx, by, x), x)])


def _scale_right(ctx: Context, x: AdapterNode, by: Num | Schedule) -> AdapterNode:
    return _scale(ctx, by, x)


def _divide(ctx: Context, x: AdapterNode, by: Num | Schedule) -> AdapterNode:
    return _scale(ctx, Arithmetic("/", Fraction(1), by).simple(ctx.graph), x)


def _join(ctx: Context, *xs: AdapterNode) -> AdapterNode:
    total = xs[0]
    for index, x in enumerate(xs[1:], 1):
        pair = ctx.pair((ctx.text(0), ctx.text(index)), "join")
        type_ = replace(same_base(pair, total, x), shapes=union(pair, total, x))
        hold_one_name(ctx.graph, total, x, (pair.text(0), pair.text(1)))
        total = linear(ctx.graph, type_, [(coefs.ONE, total), (coefs.ONE, x)])
    return total


def restrict(ctx: Context, x: AdapterNode, sites: frozenset[str]) -> AdapterNode:
    """x at some of its sites. Law: restriction is linear."""
    type_ = replace(x.type, shapes=x.shapes.only(sites))
    return linear(ctx.graph, type_, [(coefs.ONE, x)])


def _bake_negative(ctx: Context, model: ModelNode, x: AdapterNode) -> ModelNode:
    return bake(ctx, model, _negate(ctx, x))


_MODELS = (_p("x", "model"), _p("y", "model"))
_ADAPTERS = (_p("x", "adapter"), _p("y", "adapter"))

ADD = Operator(
    name="add",
    symbols=("+",),
    signatures=(
        *_numbers("+"),
        Signature(_ADAPTERS, "adapter", TERMS.pair(1)),
        Signature((_p("x", "model"), _p("y", "adapter")), "model", bake, on_model=True),
        Signature(_MODELS, "model", points_do_not_add),
    ),
    summary="Adds what two adapters do. The ranks of distinct LoRAs add; nothing is approximated.",
    formula="Δ = Δx + Δy",
    laws=("x + y = y + x", "(x + y) + z = x + (y + z)", "a·x + b·x = (a + b)·x", "x + 0 = x"),
    reference=lambda x, y: x + y,
    acts_on="delta",
    terms=TERMS,
)

SUBTRACT = Operator(
    name="subtract",
    symbols=("-",),
    signatures=(
        *_numbers("-"),
        Signature(_ADAPTERS, "adapter", TERMS.pair(-1)),
        Signature(_MODELS, "adapter", task_vector),
        Signature((_p("x", "model"), _p("y", "adapter")), "model", _bake_negative),
    ),
    summary="Takes what one adapter does from another; of two models, their task vector.",
    formula="Δ = Δx − Δy",
    laws=("x − y = x + (−1)·y", "x − x = 0"),
    reference=lambda x, y: x - y,
    acts_on="delta",
    terms=TERMS,
    sign=-1,
)

NEGATE = Operator(
    name="negate",
    symbols=("-",),
    signatures=(
        Signature(
            (_p("x", "number"),), "number", lambda ctx, x: combine(ctx.graph, "*", MINUS_ONE, x)
        ),
        Signature((_p("x", "schedule"),), "schedule", lambda ctx, x: Arithmetic("*", MINUS_ONE, x)),
        Signature((_p("x", "adapter"),), "adapter", _negate),
    ),
    summary="The adapter that does the opposite. For (IA)³ this is 2 − l.",
    formula="Δ = −Δx",
    laws=("−x = (−1)·x", "−(−x) = x"),
    reference=lambda x: -x,
    acts_on="delta",
)

_FACTOR = _p("by", "number", "schedule")

SCALE = Operator(
    name="scale",
    symbols=("*",),
    signatures=(
        *_numbers("*"),
        Signature((_FACTOR, _p("x", "adapter")), "adapter", _scale),
        Signature((_p("x", "adapter"), _FACTOR), "adapter", _scale_right),
        Signature((_p("x", "number", "schedule"), _p("y", "model")), "model", points_do_not_scale),
        Signature((_p("x", "model"), _p("y", "number", "schedule")), "model", points_do_not_scale),
    ),
    summary="Makes an adapter act more or less, by one number or by a schedule over its sites.",
    formula="Δ = c·Δx",
    laws=("a·(b·x) = (a·b)·x", "a·(x + y) = a·x + a·y", "1·x = x", "0·x = 0"),
    reference=lambda c, x: c * x,
    acts_on="delta",
)

DIVIDE = Operator(
    name="divide",
    symbols=("/",),
    signatures=(*_numbers("/"), Signature((_p("x", "adapter"), _FACTOR), "adapter", _divide)),
    summary="Scales an adapter by one over a number.",
    formula="Δ = Δx / c",
    laws=("x / c = (1/c)·x",),
    reference=lambda x, c: x / c,
    acts_on="delta",
)

JOIN = Operator(
    name="join",
    signatures=(Signature((Parameter("x", ("adapter",), variadic=True),), "adapter", _join),),
    of_models=Signature((Parameter("x", ("model",), variadic=True),), "model", join_models),
    summary="Adds adapters that change different modules: a site one does not have counts as zero. "
    "Of models: the first with the tokens of all; the row of a token that it lacks is the mean of "
    "the rows that the others have for it.",
    formula="Δ[site] = Σ Δx[site]",
    laws=("join(x, y) = x + y where the sites agree",),
    reference=lambda *xs: sum(xs),
    acts_on="delta",
)


register(
    Section(
        "On what modules do",
        "These act on Δ, the change of the weights, and are exact: a sum of LoRAs stacks their "
        "factors, and its rank is the sum of the ranks.",
        (ADD, SUBTRACT, NEGATE, SCALE, DIVIDE, JOIN),
    )
)
