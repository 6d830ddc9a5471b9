"""The exact family, `+ - * /`, `join` and selections: what modules do, added as vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from typing import TYPE_CHECKING, Any

from pemlang.diagnostics import Fault, listed, visible
from pemlang.graph import coef as coefs
from pemlang.graph.node import AdapterType, Graph, ModelType, Node, Num
from pemlang.graph.normal import MINUS_ONE, adapter_type, linear
from pemlang.graph.numbers import combine
from pemlang.ops.agree import same_base, same_space, union, with_base
from pemlang.ops.record import (
    Context,
    NodeKind,
    Operator,
    Param,
    Run,
    Signature,
    Terms,
    kind_of,
    node_kind,
    ranks,
    scales,
)
from pemlang.ops.schedule import Arithmetic, Schedule

if TYPE_CHECKING:
    from pemlang.modules.factors import Factors


def _p(name: str, *kinds: str) -> Param:
    return Param(name, kinds)


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


def _agree(ctx: Context, x: Node, y: Node) -> Node:
    same_space(ctx, x, y)
    return with_base(x, y)


def signed_sum(graph: Graph, terms: Sequence[tuple[int, Node]]) -> Node:
    """±x₁ ± x₂ ± … of adapters of one space."""
    known = reduce(with_base, (x for _, x in terms))
    return linear(graph, adapter_type(known), [(Fraction(sign), x) for sign, x in terms])


TERMS = Terms(_agree, signed_sum)


def _negate(ctx: Context, x: Node) -> Node:
    return linear(ctx.graph, adapter_type(x), [(MINUS_ONE, x)])


def resolve(ctx: Context, by: Num | Schedule, x: Node) -> coefs.Coef:
    """A number, or a schedule's numbers over the sites of x."""
    if isinstance(by, Schedule):
        shapes = adapter_type(x).shapes
        return coefs.collapse(by.over(ctx.graph, tuple(shapes)), shapes)
    return by


def _scale(ctx: Context, by: Num | Schedule, x: Node) -> Node:
    return linear(ctx.graph, adapter_type(x), [(resolve(ctx, by, x), x)])


def _scale_right(ctx: Context, x: Node, by: Num | Schedule) -> Node:
    return _scale(ctx, by, x)


def _divide(ctx: Context, x: Node, by: Num | Schedule) -> Node:
    return _scale(ctx, Arithmetic("/", Fraction(1), by).simple(ctx.graph), x)


def _join(ctx: Context, *xs: Node) -> Node:
    total = xs[0]
    for index, x in enumerate(xs[1:], 1):
        pair = Context(ctx.graph, (ctx.text(0), ctx.text(index)), "join")
        found = replace(same_base(pair, total, x), shapes=union(pair, total, x))
        total = linear(ctx.graph, found, [(coefs.ONE, total), (coefs.ONE, x)])
    return total


def restrict(ctx: Context, x: Node, sites: frozenset[str]) -> Node:
    """x at some of its sites. Law: restriction is linear."""
    type_ = adapter_type(x)
    found = replace(type_, shapes=type_.shapes.only(sites))
    return linear(ctx.graph, found, [(coefs.ONE, x)])


# --- models are points, adapters are vectors ----------------------------------------------


def _model_type(node: Node) -> ModelType:
    assert isinstance(node.type, ModelType)
    return node.type


def _bake(ctx: Context, model: Node, x: Node) -> Node:
    point, vector = _model_type(model), adapter_type(x)
    if point.base is not None and vector.base is not None and point.base != vector.base:
        raise Fault(
            "PEM0305",
            f"`{ctx.text(0)}` is of the base {visible(point.base)!r}, `{ctx.text(1)}` belongs to "
            f"{visible(vector.base)!r}",
            "add an adapter of this model",
        )
    return ctx.graph.add("bake", (model, x), (), point)


def _bake_negative(ctx: Context, model: Node, x: Node) -> Node:
    return _bake(ctx, model, _negate(ctx, x))


def _task_vector(ctx: Context, x: Node, y: Node) -> Node:
    one, two = _model_type(x), _model_type(y)
    if one.shapes != two.shapes:
        differ = [s for s in {**one.shapes, **two.shapes} if one.shapes.get(s) != two.shapes.get(s)]
        raise Fault(
            "PEM0307",
            f"`{ctx.text(0)}` and `{ctx.text(1)}` are not the same architecture: "
            f"{listed(differ, 1)} differ",
            "subtract a model and the base it was tuned from",
        )
    return ctx.graph.add("task_vector", (x, y), (), AdapterType("dense", one.base, one.shapes))


def _points_do_not_add(ctx: Context, x: Node, y: Node) -> Node:
    raise Fault(
        "PEM0303",
        "models are points: they do not add",
        f"{ctx.left} + 0.5 * ({ctx.text(1)} - {ctx.text(0)})",
        ("a difference of models is an adapter, and adapters add to models: this is halfway",),
    )


def _points_do_not_scale(ctx: Context, x: Any, y: Any) -> Node:
    model = ctx.text(0 if kind_of(x) == "model" else 1)
    raise Fault(
        "PEM0303",
        "models are points: they do not scale",
        f"b + 0.5 * ({model} - b), where b is the base it was tuned from",
        ("a difference of models is an adapter, and adapters scale",),
    )


_MODELS = (_p("x", "model"), _p("y", "model"))
_ADAPTERS = (_p("x", "adapter"), _p("y", "adapter"))

ADD = Operator(
    name="add",
    symbols=("+",),
    signatures=(
        *_numbers("+"),
        Signature(_ADAPTERS, "adapter", TERMS.pair(1)),
        Signature((_p("x", "model"), _p("y", "adapter")), "model", _bake),
        Signature(_MODELS, "model", _points_do_not_add),
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
        Signature(_MODELS, "adapter", _task_vector),
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
        Signature((_p("x", "number", "schedule"), _p("y", "model")), "model", _points_do_not_scale),
        Signature((_p("x", "model"), _p("y", "number", "schedule")), "model", _points_do_not_scale),
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
    signatures=(Signature((Param("x", ("adapter",), variadic=True),), "adapter", _join),),
    summary="Adds adapters that change different modules: a site one does not have counts as zero.",
    formula="Δ[site] = Σ Δx[site]",
    laws=("join(x, y) = x + y where the sites agree",),
    reference=lambda *xs: sum(xs),
    acts_on="delta",
)


# --- the node: Σ cᵢ·xᵢ ---------------------------------------------------------------------


def _terms_at(node: Node, site: str) -> list[tuple[Num, Node]]:
    found = [
        (coefs.at(coef, site), arg) for arg, coef in zip(node.args, node.attrs[1], strict=True)
    ]
    return [(c, arg) for c, arg in found if c != 0 and site in adapter_type(arg).shapes]


def _sum_ranks(node: Node) -> Mapping[str, int]:
    total = dict.fromkeys(adapter_type(node).shapes, 0)
    for arg, coef in zip(node.args, node.attrs[1], strict=True):
        present = dict(coef) if isinstance(coef, tuple) else total
        for site, rank in ranks(arg).items():
            if site in present and site in total:
                total[site] += rank
    return total


def _sum_scales(node: Node) -> Mapping[str, float]:
    """The scale of the terms where they share one, else 1."""
    found: dict[str, float] = {}
    for site in adapter_type(node).shapes:
        values = {scales(arg)[site] for _, arg in _terms_at(node, site)}
        found[site] = values.pop() if len(values) == 1 else 1.0
    return found


def _lower_sum(
    run: Run, node: Node, site: str, args: Mapping[Node, Factors | None]
) -> Factors | None:
    from pemlang.modules.factors import Factors, concatenated, weighted

    parts = []
    for number, arg in _terms_at(node, site):
        factors, value = args[arg], run.number(number)
        if factors is not None:  # a measured 0 stays: its rank was promised
            parts.append((value, factors))
    if not parts:
        return None
    if adapter_type(node).method == "ia3":
        terms = [(value, factors.a) for value, factors in parts]
        return Factors(weighted(run.builder, terms), None)
    return concatenated(run.builder, parts, scales(node)[site])


def _steady_sum(node: Node) -> bool:
    return not any(isinstance(coef, tuple) for coef in node.attrs[1])


SUM = node_kind(NodeKind("sum", _sum_ranks, _sum_scales, _lower_sum, _steady_sum))

OPERATORS = (ADD, SUBTRACT, NEGATE, SCALE, DIVIDE, JOIN)
