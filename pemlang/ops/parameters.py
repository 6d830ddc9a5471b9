"""The parameter-wise family, `⊕ ⊖ ⊗`: the paper's operators on the parameters of a module.

Source: Zhang, Chen, Liu, He, *Composing Parameter-Efficient Modules with Arithmetic Operations*,
NeurIPS 2023. For (IA)³ and dense adapters the two families are the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import reduce
from typing import TYPE_CHECKING

from pemlang.diagnostics import Fault
from pemlang.graph import coef as coefs
from pemlang.graph.node import Graph, Node, Num
from pemlang.graph.normal import MINUS_ONE, Pair, adapter_type, factorwise, linear, pairs
from pemlang.ops.agree import exactly, need_method, same_parameters, same_space, with_base
from pemlang.ops.exact import resolve, signed_sum
from pemlang.ops.linear import ADAPTERS, alike, weights_for
from pemlang.ops.record import (
    Context,
    NodeKind,
    Operator,
    Param,
    Run,
    Signature,
    Terms,
    Watch,
    node_kind,
    ranks,
    scales,
)
from pemlang.ops.schedule import Schedule
from pemlang.ops.shaping import unmeasured

if TYPE_CHECKING:
    from pemlang.modules.factors import Factors

_PLUS: Pair = (coefs.ONE, coefs.ONE)
_MINUS: Pair = (coefs.ONE, MINUS_ONE)


def _is_lora(x: Node) -> bool:
    return adapter_type(x).method == "lora"


def _summands(x: Node) -> frozenset[Node]:
    """What a value puts into a ⊕; nothing where it is zero."""
    if x.op == "sum" and not x.args:
        return frozenset()
    return frozenset(y for y, pair in pairs(x).items() if any(c not in (0, ()) for c in pair))


def _unordered(x: Node) -> bool:
    """Whether the rows of A come from several adapters put side by side. A sum is the same in any
    order, so which of its rows would meet which of another's is not said by the recipe."""
    if x.op in ("pad", "rescale"):
        return _unordered(x.args[0])
    if x.op != "sum":
        return False
    sites = list(adapter_type(x).shapes)
    terms = Counter(
        site
        for arg, coef in zip(x.args, x.attrs[1], strict=True)
        for site in sites
        if site in adapter_type(arg).shapes and coefs.at(coef, site) != 0
    )
    return max(terms.values(), default=0) > 1 or any(_unordered(arg) for arg in x.args)


def _agree(ctx: Context, x: Node, y: Node) -> Node:
    if not (_is_lora(x) and _is_lora(y)):
        same_space(ctx, x, y)
        return with_base(x, y)
    same_parameters(ctx, x, y)
    one, two = _summands(x), _summands(y)
    if len(one | two) > 1 and any(_unordered(z) for z in one | two):
        raise Fault(
            "PEM0324",
            f"{ctx.what} combines row with row, and the rows of a sum of several adapters have no "
            "order",
            "combine the adapters themselves, or compress the sum first",
            (f"or combine what they do, exactly: {exactly(ctx)}",),
        )
    if one and two and len(one | two) > 1:
        texts = (ctx.text(0), ctx.text(1))
        ctx.watches.append(Watch(x, y, one | two, texts, exactly(ctx)))
    return with_base(x, y)


def _total(graph: Graph, terms: Sequence[tuple[int, Node]]) -> Node:
    if not _is_lora(terms[0][1]):
        return signed_sum(graph, terms)
    known = reduce(with_base, (x for _, x in terms))
    parts = [(_PLUS if sign > 0 else _MINUS, x) for sign, x in terms]
    return factorwise(graph, adapter_type(known), parts)


TERMS = Terms(_agree, _total)


def _negate(ctx: Context, x: Node) -> Node:
    if not _is_lora(x):
        return linear(ctx.graph, adapter_type(x), [(MINUS_ONE, x)])
    return factorwise(ctx.graph, adapter_type(x), [(_MINUS, x)])


def _scale(ctx: Context, by: Num | Schedule, x: Node) -> Node:
    number = resolve(ctx, by, x)
    if not _is_lora(x):
        return linear(ctx.graph, adapter_type(x), [(number, x)])
    return factorwise(ctx.graph, adapter_type(x), [((number, number), x)])


def _scale_right(ctx: Context, x: Node, by: Num | Schedule) -> Node:
    return _scale(ctx, by, x)


def _not_numbers(ctx: Context, x: Num | Schedule, y: Num | Schedule) -> Num | Schedule:
    raise Fault(
        "PEM0302",
        "⊕, ⊖ and ⊗ act on the parameters of adapters, not on two numbers",
        "write + - * between numbers",
    )


_ADAPTERS = (Param("x", ("adapter",)), Param("y", ("adapter",)))
_NUMBERS = tuple(Param(name, ("number", "schedule")) for name in "xy")
_FACTOR = Param("by", ("number", "schedule"))
_REFUSED = Signature(_NUMBERS, "number", _not_numbers)

ADD = Operator(
    name="parameter_add",
    symbols=("⊕",),
    signatures=(Signature(_ADAPTERS, "adapter", TERMS.pair(1)), _REFUSED),
    summary="The paper's addition: adds A to A and B to B. Needs equal rank and scale.",
    formula="(A₁, B₁) ⊕ (A₂, B₂) = (A₁ + A₂, B₁ + B₂);  l₁ ⊕ l₂ = l₁ + l₂ − 1",
    laws=("x ⊕ y = y ⊕ x", "(x ⊕ y) ⊕ z = x ⊕ (y ⊕ z)"),
    source="Zhang et al. 2023, the addition operator",
    reference=lambda x, y: (x[0] + y[0], x[1] + y[1]),
    acts_on="factors",
    terms=TERMS,
)

SUBTRACT = Operator(
    name="parameter_subtract",
    symbols=("⊖",),
    signatures=(Signature(_ADAPTERS, "adapter", TERMS.pair(-1)), _REFUSED),
    summary="Adds the paper's negation of the second adapter.",
    formula="x ⊖ y = x ⊕ (⊖y) = (A₁ + A₂, B₁ − B₂)",
    laws=("x ⊖ y = x ⊕ (⊖y)",),
    source="Zhang et al. 2023, addition of the negation",
    reference=lambda x, y: (x[0] + y[0], x[1] - y[1]),
    acts_on="factors",
    terms=TERMS,
    sign=-1,
)

NEGATE = Operator(
    name="parameter_negate",
    symbols=("⊖",),
    signatures=(Signature((Param("x", ("adapter",)),), "adapter", _negate),),
    summary="The paper's negation: B changes sign, A does not. For (IA)³ this is 2 − l.",
    formula="⊖(A, B) = (A, −B);  ⊖l = 2 − l",
    laws=("⊖(⊖x) = x", "⊖(x ⊕ y) = (⊖x) ⊕ (⊖y)"),
    source="Zhang et al. 2023, the negation operator",
    reference=lambda x: (x[0], -x[1]),
    acts_on="factors",
)

SCALE = Operator(
    name="parameter_scale",
    symbols=("⊗",),
    signatures=(
        Signature((_FACTOR, Param("x", ("adapter",))), "adapter", _scale),
        Signature((Param("x", ("adapter",)), _FACTOR), "adapter", _scale_right),
        _REFUSED,
    ),
    summary="Scales A and B alike, so that Δ of a LoRA is scaled by the square.",
    formula="λ ⊗ (A, B) = (λA, λB);  λ ⊗ l = 1 + λ(l − 1)",
    laws=("λ ⊗ (μ ⊗ x) = (λμ) ⊗ x", "λ ⊗ (x ⊕ y) = λ ⊗ x ⊕ λ ⊗ y", "1 ⊗ x = x"),
    source="Zhang et al. 2023, the weight λ of a composition",
    reference=lambda c, x: (c * x[0], c * x[1]),
    acts_on="factors",
)


def _peft_linear(ctx: Context, xs: Sequence[Node], weights: Sequence[Num]) -> Node:
    found = weights_for(ctx, xs, weights)
    for index, x in enumerate(xs):
        need_method(x, "lora", "peft_linear", ctx.item(index))
    known = alike(ctx, xs, _agree)
    parts = []
    for weight, x in zip(found, xs, strict=True):
        number = float(unmeasured(weight, "a weight of peft_linear"))
        root = Fraction(math.sqrt(abs(number)))
        parts.append(((root if number > 0 else -root, root), x))
    return factorwise(ctx.graph, adapter_type(known), parts)


PEFT_LINEAR = Operator(
    name="peft_linear",
    signatures=(Signature((ADAPTERS, Param("weights", ("[number]",))), "adapter", _peft_linear),),
    summary="PEFT's `linear`, for those who must reproduce one: A and B each summed for itself, "
    "with the cross terms that this brings. Needs equal rank and scale.",
    formula="A = Σ sign(wᵢ)·√|wᵢ|·Aᵢ,  B = Σ √|wᵢ|·Bᵢ",
    laws=("peft_linear([x, y], weights=[1, 1]) = x ⊕ y",),
    source='PEFT `add_weighted_adapter(combination_type="linear")`',
    reference=lambda xs, ws: (
        sum(math.copysign(abs(w) ** 0.5, w) * x[0] for w, x in zip(ws, xs, strict=True)),
        sum(abs(w) ** 0.5 * x[1] for w, x in zip(ws, xs, strict=True)),
    ),
    acts_on="factors",
)


def _mix_ranks(node: Node) -> Mapping[str, int]:
    """The terms' common rank; a site that join added to all of them has none."""
    found = {site: rank for arg in node.args for site, rank in ranks(arg).items()}
    return {site: found.get(site, 0) for site in adapter_type(node).shapes}


def _mix_scales(node: Node) -> Mapping[str, float]:
    found = {site: scale for arg in node.args for site, scale in scales(arg).items()}
    return {site: found.get(site, 1.0) for site in adapter_type(node).shapes}


def _lower_mix(
    run: Run, node: Node, site: str, args: Mapping[Node, Factors | None]
) -> Factors | None:
    from pemlang.modules.factors import Factors, padded, weighted

    parts = []
    for arg, (alpha, beta) in zip(node.args, node.attrs[1], strict=True):
        factors = args[arg]
        if factors is not None:
            numbers = (run.number(coefs.at(alpha, site)), run.number(coefs.at(beta, site)))
            # An energy may have cut it below the rank that its type says.
            parts.append((*numbers, padded(run.builder, factors, ranks(arg)[site])))
    if not any(alpha or beta for alpha, beta, _ in parts):
        return None
    a = weighted(run.builder, [(alpha, factors.a) for alpha, _, factors in parts])
    b = weighted(run.builder, [(beta, factors.out) for _, beta, factors in parts])
    return Factors(a, b, parts[0][2].scale)


def _steady_mix(node: Node) -> bool:
    return not any(isinstance(coef, tuple) for pair in node.attrs[1] for coef in pair)


MIX = node_kind(NodeKind("mix", _mix_ranks, _mix_scales, _lower_mix, _steady_mix))

OPERATORS = (ADD, SUBTRACT, NEGATE, SCALE, PEFT_LINEAR)
