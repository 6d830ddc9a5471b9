"""Measures: numbers computed from factors in float64, never from a dense Δ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pemlang.diagnostics import Fault
from pemlang.graph import coef as coefs
from pemlang.graph.node import Node, Num, NumberType
from pemlang.graph.normal import MINUS_ONE, linear
from pemlang.ops.agree import need_method, same_space
from pemlang.ops.record import Context, Operator, Param, Signature
from pemlang.ops.shaping import whole_rank

if TYPE_CHECKING:
    from pemlang.kernels.lowrank import Arrays

Site = Sequence["Arrays | None"]


@dataclass(frozen=True)
class Measure:
    """How a measure is computed.

    Attributes:
        at_site: numbers at one site, from the factors of the arguments there; None is zero.
        join: how the numbers of two sites combine.
        finish: the measure from the combined numbers.
        rows_alone: it looks at the A factors of LoRAs and at nothing else.
    """

    at_site: Callable[[Site, Sequence[Any]], tuple[float, ...]]
    finish: Callable[[tuple[float, ...]], float]
    join: Callable[[float, float], float] = lambda x, y: x + y
    rows_alone: bool = False


# NumPy is imported where it computes, since a check imports this file and measures nothing.


def _squares(site: Site, _: Sequence[Any]) -> tuple[float, ...]:
    from pemlang.kernels.lowrank import norm

    return tuple(0.0 if part is None else norm(part) ** 2 for part in site)


def _products(site: Site, attrs: Sequence[Any]) -> tuple[float, ...]:
    from pemlang.kernels.lowrank import inner

    one, other = site
    product = 0.0 if one is None or other is None else inner(one, other)
    return (product, *_squares(site, attrs))


def _cosine(totals: tuple[float, ...]) -> float:
    product, one, other = totals
    if one == 0 or other == 0:
        raise Fault(
            "PEM0504",
            "the cosine of a zero adapter is not defined",
            "one of the two does nothing: check what it is made from",
        )
    return max(-1.0, min(1.0, product / (math.sqrt(one) * math.sqrt(other))))


def _energy_at(site: Site, attrs: Sequence[Any]) -> tuple[float, float]:
    from pemlang.kernels.lowrank import singular_values

    if site[0] is None:
        return 0.0, 0.0
    squares = singular_values(site[0]) ** 2
    return float(squares[: attrs[0]].sum()), float(squares.sum())


def _overlap_at(site: Site, _: Sequence[Any]) -> tuple[float, float]:
    from pemlang.kernels.lowrank import overlap

    one, other = site
    return (0.0, 0.0) if one is None or other is None else (overlap(one, other), 1.0)


def _rank_at(site: Site, _: Sequence[Any]) -> tuple[float]:
    from pemlang.kernels.lowrank import numerical_rank

    return (0.0 if site[0] is None else float(numerical_rank(site[0])),)


MEASURES: dict[str, Measure] = {
    "norm": Measure(_squares, lambda t: math.sqrt(t[0])),
    "cosine": Measure(_products, _cosine),
    "energy": Measure(_energy_at, lambda t: t[0] / t[1] if t[1] else 1.0),
    "init_overlap": Measure(_overlap_at, lambda t: t[0] / t[1] if t[1] else 0.0, rows_alone=True),
    "rank": Measure(_rank_at, lambda t: t[0], max),
}


def measure(ctx: Context, name: str, args: Sequence[Node], attrs: tuple[Any, ...] = ()) -> Node:
    """The node of a measure of some adapters."""
    return ctx.graph.add("measure", tuple(args), (name, *attrs), NumberType())


def _norm(ctx: Context, x: Node) -> Node:
    return measure(ctx, "norm", [x])


def _in_order(x: Node, y: Node) -> list[Node]:
    """Two arguments that may change places, in canonical order."""
    return sorted((x, y), key=lambda node: node.key)


def _cosine_of(ctx: Context, x: Node, y: Node) -> Node:
    same_space(ctx, x, y)
    return measure(ctx, "cosine", _in_order(x, y))


def _distance(ctx: Context, x: Node, y: Node) -> Node:
    type_ = same_space(ctx, x, y)
    one, two = _in_order(x, y)
    return measure(ctx, "norm", [linear(ctx.graph, type_, [(coefs.ONE, one), (MINUS_ONE, two)])])


def _energy_of(ctx: Context, x: Node, rank: Num) -> Node:
    need_method(x, "lora", "energy", ctx.text(0))
    return measure(ctx, "energy", [x], (whole_rank(rank, "rank"),))


def init_overlap(ctx: Context, x: Node, y: Node) -> Node:
    """The node of init_overlap(x, y); raises PEM0311 unless both are LoRA, and as `+`."""
    need_method(x, "lora", "init_overlap", ctx.text(0))
    need_method(y, "lora", "init_overlap", ctx.text(1))
    same_space(ctx, x, y)
    return measure(ctx, "init_overlap", _in_order(x, y))


def _rank(ctx: Context, x: Node) -> Node:
    need_method(x, "lora", "rank", ctx.text(0))
    return measure(ctx, "rank", [x])


_X = (Param("x", ("adapter",)),)
_XY = (Param("x", ("adapter",)), Param("y", ("adapter",)))

OPERATORS = (
    Operator(
        name="norm",
        signatures=(Signature(_X, "number", _norm),),
        summary="How much an adapter changes: the Frobenius norm of Δ over all sites.",
        formula="√ Σ ‖Δ[site]‖²;  for (IA)³ ‖l − 1‖",
    ),
    Operator(
        name="cosine",
        signatures=(Signature(_XY, "number", _cosine_of),),
        summary="How alike two adapters' changes are in direction, from −1 to 1.",
        formula="⟨Δx, Δy⟩ / (‖Δx‖·‖Δy‖)",
    ),
    Operator(
        name="distance",
        signatures=(Signature(_XY, "number", _distance),),
        summary="The norm of the difference of two adapters.",
        formula="‖Δx − Δy‖",
    ),
    Operator(
        name="energy",
        signatures=(Signature((*_X, Param("rank", ("number",))), "number", _energy_of),),
        summary="The share of the squared norm that the best LoRA of a rank keeps.",
        formula="Σ_site Σ_{i ≤ rank} σᵢ² / Σ_site Σᵢ σᵢ²",
    ),
    Operator(
        name="init_overlap",
        signatures=(Signature(_XY, "number", init_overlap),),
        summary="How alike two LoRAs' A row spaces are, the mean over sites: 1 for one "
        "initialisation kept, about r/in for two drawn apart.",
        formula="‖QxᵀQy‖² / min(rx, ry)",
        source="the limit that Zhang et al. 2023 name, made visible",
    ),
    Operator(
        name="rank",
        signatures=(Signature(_X, "number", _rank),),
        summary="The largest numerical rank of Δ at a site: singular values above rounding.",
        formula="max_site #{σᵢ > σ₁·max(out, in)·ε}",
    ),
)
