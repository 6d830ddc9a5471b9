"""The parameter-wise family, `⊕ ⊖ ⊗`: the paper's operators on the parameters of a module.

Source: Zhang, Chen, Liu, He, *Composing Parameter-Efficient Modules with Arithmetic Operations*,
NeurIPS 2023. For (IA)³ and dense adapters the two families are the same, and so they are at the
sites of an adapter that have no A and B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import reduce

from pemlang.diagnostics import Fault
from pemlang.graph import coef as coefs
from pemlang.graph.dag import Graph
from pemlang.graph.node import AdapterNode, Num
from pemlang.graph.normal import MINUS_ONE, Pair, factorwise, is_zero, linear
from pemlang.ops.agree import need_factors, same_parameters, same_space, with_base
from pemlang.ops.exact import resolve, signed_sum
from pemlang.ops.linear import ADAPTERS, alike, weights_for
from pemlang.ops.mend import exactly, full_rank
from pemlang.ops.ranks import unmeasured
from pemlang.ops.record import (
    Context,
    Operator,
    Parameter,
    Section,
    Signature,
    Terms,
    Watch,
    register,
)
from pemlang.ops.schedule import Schedule

_PLUS: Pair = (coefs.ONE, coefs.ONE)
_MINUS: Pair = (coefs.ONE, MINUS_ONE)


def _summands(x: AdapterNode) -> frozenset[AdapterNode]:
    """What a value puts into a ⊕; nothing where it is zero."""
    if not x.as_sum():
        return frozenset()
    return frozenset(y for y, pair in x.as_mix().items() if not all(map(is_zero, pair)))


def _agree(ctx: Context, x: AdapterNode, y: AdapterNode) -> AdapterNode:
    same_space(ctx, x, y, factors=True)
    if not x.type.ranked:
        return with_base(x, y)
    left, right = _summands(x), _summands(y)
    if len(left | right) > 1 and not all(z.rows_in_order for z in left | right):
        raise Fault(
            "PEM0324",
            f"{ctx.what} combines row with row, and the rows of a sum of several adapters have no "
            "order",
            "combine the adapters themselves, or compress the sum first",
            (f"or combine what they do: {exact}",) if (exact := exactly(ctx)) else (),
        )
    same_parameters(ctx, x, y)
    if left and right and len(left | right) > 1:
        texts = (ctx.text(0), ctx.text(1))
        ctx.watches.append(Watch(x, y, left | right, texts, _at_a_rank(ctx, x)))
    return with_base(x, y)


def _at_a_rank(ctx: Context, x: AdapterNode) -> str | None:
    """What combines what the operands do, cut to the rank that ⊕ has where it can be cut."""
    exact = exactly(ctx)
    if exact is None or ctx.use is None or not (ctx.use.symbols and x.type.has_factors):
        return exact
    return f"compress({exact}, rank={full_rank([x])})"


def _total(graph: Graph, terms: Sequence[tuple[int, AdapterNode]]) -> AdapterNode:
    if not terms[0][1].type.ranked:
        return signed_sum(graph, terms)
    with_a_base = reduce(with_base, (x for _, x in terms))
    parts = [(_PLUS if sign > 0 else _MINUS, x) for sign, x in terms]
    return factorwise(graph, with_a_base.type, parts)


TERMS = Terms(_agree, _total)


def _negate(ctx: Context, x: AdapterNode) -> AdapterNode:
    if not x.type.ranked:
        return linear(ctx.graph, x.type, [(MINUS_ONE, x)])
    return factorwise(ctx.graph, x.type, [(_MINUS, x)])


def _scale(ctx: Context, by: Num | Schedule, x: AdapterNode) -> AdapterNode:
    number = resolve(ctx, by, x)
    if not x.type.ranked:
        return linear(ctx.graph, x.type, [(number, x)])
    return factorwise(ctx.graph, x.type, [((number, number), x)])


def _scale_right(ctx: Context, x: AdapterNode, by: Num | Schedule) -> AdapterNode:
    return _scale(ctx, by, x)


def _not_numbers(ctx: Context, x: Num | Schedule, y: Num | Schedule) -> Num | Schedule:
    raise Fault(
        "PEM0302",
        "⊕, ⊖ and ⊗ act on the parameters of adapters, not on two numbers",
        "between numbers, write + - *",
    )


_ADAPTERS = (Parameter("x", ("adapter",)), Parameter("y", ("adapter",)))
_NUMBERS = tuple(Parameter(name, ("number", "schedule")) for name in "xy")
_FACTOR = Parameter("by", ("number", "schedule"))
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
    signatures=(Signature((Parameter("x", ("adapter",)),), "adapter", _negate),),
    summary="The paper's negation: B changes sign, A does not; a LoRA with the sign in A is "
    "`-1 ⊗ ⊖x`. For (IA)³ this is 2 − l.",
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
        Signature((_FACTOR, Parameter("x", ("adapter",))), "adapter", _scale),
        Signature((Parameter("x", ("adapter",)), _FACTOR), "adapter", _scale_right),
        _REFUSED,
    ),
    summary="Scales A and B alike, so that Δ of a LoRA is scaled by the square.",
    formula="λ ⊗ (A, B) = (λA, λB);  λ ⊗ l = 1 + λ(l − 1)",
    laws=("λ ⊗ (μ ⊗ x) = (λμ) ⊗ x", "λ ⊗ (x ⊕ y) = λ ⊗ x ⊕ λ ⊗ y", "1 ⊗ x = x"),
    source="Zhang et al. 2023, the weight λ of a composition",
    reference=lambda c, x: (c * x[0], c * x[1]),
    acts_on="factors",
)


def _peft_linear(ctx: Context, xs: Sequence[AdapterNode], weights: Sequence[Num]) -> AdapterNode:
    given = weights_for(ctx, xs, weights)
    if ctx.use is not None and ctx.use.function is not None:
        ctx.over_delta = ((ctx.use.function, "linear"), ctx.use.with_argument("normalize=false"))
    for index, x in enumerate(xs):
        need_factors(x, "peft_linear", ctx.item(index))
    agreed = alike(ctx, xs, _agree)
    parts = []
    for weight, x in zip(given, xs, strict=True):
        number = float(unmeasured(weight, "a weight of peft_linear"))
        root = Fraction(math.sqrt(abs(number)))
        parts.append(((root if number > 0 else -root, root), x))
    return factorwise(ctx.graph, agreed.type, parts)


PEFT_LINEAR = Operator(
    name="peft_linear",
    signatures=(
        Signature((ADAPTERS, Parameter("weights", ("[number]",))), "adapter", _peft_linear),
    ),
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


register(
    Section(
        "On their parameters",
        "The operators of the paper (arXiv 2306.14870), on A and B each for itself. In ASCII "
        "`⊕ ⊖ ⊗` are written `.+ .- .*`. For (IA)³ they are the same as the ones above.",
        (ADD, SUBTRACT, NEGATE, SCALE, PEFT_LINEAR),
    )
)
