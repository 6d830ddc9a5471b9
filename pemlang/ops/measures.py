"""Measures: numbers computed from factors in float64, never from a dense Δ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault
from pemlang.graph import coef as coefs
from pemlang.graph.dag import Graph
from pemlang.graph.node import AdapterNode, Node, Num, NumberNode, Part
from pemlang.graph.normal import MINUS_ONE, Sum, linear
from pemlang.kernels import lowrank
from pemlang.kernels.measuring import SiteMeasure
from pemlang.lazy import numpy as np
from pemlang.ops.agree import need_factors, need_matrices, need_pair, same_space
from pemlang.ops.ranks import whole_rank
from pemlang.ops.record import Context, Operator, Parameter, Section, Signature, register

if TYPE_CHECKING:
    from pemlang.graph.formula import Formula
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.kernels.lowrank import LowRank
    from pemlang.kernels.site import SitePart
    from pemlang.kernels.step import Dense

Parts = Sequence["SitePart | None"]
Deltas = Sequence["Dense | None"]
Totals = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class MeasureRecord:
    """How a measure is computed.

    Attributes:
        name: of the measure.
        at_site: what is measured at each site, made from what a recipe says beside the adapters.
        count: how many numbers that gives.
        finish: the measure from the combined numbers.
        join: how the numbers of two sites combine.
        symmetric: whether its adapters may change places.
        even: whether it is the same of −x as of x.
        of_factors: whether it is about A and B, and so about the sites that have these.
    """

    name: str
    at_site: Callable[..., SiteMeasure]
    count: int
    finish: Callable[[Totals], float]
    join: Callable[[float, float], float] = lambda x, y: x + y
    symmetric: bool = False
    even: bool = False
    of_factors: bool = False

    def canonical(self, graph: Graph, xs: Sequence[AdapterNode]) -> tuple[AdapterNode, ...]:
        """Its adapters as equal measures have them: in key order where they may change places;
        and, where it is the same of −x as of x, the one of the two whose first coefficient is
        positive."""
        if self.even:
            xs = [_positive(graph, x) for x in xs]
        return tuple(sorted(xs, key=lambda x: x.key) if self.symmetric else xs)


def _positive(graph: Graph, x: AdapterNode) -> AdapterNode:
    if not isinstance(x, Sum) or not x.coefficients:
        return x
    first = x.coefficients[0]
    number = first[0][1] if isinstance(first, tuple) else first
    if isinstance(number, Fraction) and number < 0:
        return linear(graph, x.type, [(MINUS_ONE, x)])
    return x


@dataclass(frozen=True, eq=False, repr=False)
class Measured(NumberNode):
    """A number read off adapters.

    Attributes:
        measure: how.
        adapters: of which; in key order where they may change places.
        settings: what a recipe says beside them.
    """

    kind = "measure"

    measure: MeasureRecord
    adapters: tuple[AdapterNode, ...]
    settings: tuple[int, ...] = ()

    @property
    def args(self) -> tuple[AdapterNode, ...]:
        return self.adapters

    def parts(self) -> tuple[Part, ...]:
        return (self.measure.name, *self.settings)

    def rebuilt(self, new: Rebuilding) -> Node:
        adapters = [new.adapter(x) for x in self.adapters]
        in_order = self.measure.canonical(new.graph, adapters)
        return new.graph.add(Measured(self.measure, in_order, self.settings))

    def value(self, value_of: Callable[[Num], Fraction]) -> None:
        return None

    @property
    def at_site(self) -> SiteMeasure:
        """What is measured at each site."""
        return self.measure.at_site(*self.settings)

    @property
    def sites(self) -> list[str]:
        """The sites of any of its adapters, in order."""
        of_factors = self.measure.of_factors
        shapes = [x.type.ranked_shapes if of_factors else x.shapes for x in self.adapters]
        return sorted(set[str]().union(*shapes))

    def total(self, rows: Sequence[Totals]) -> float:
        """The measure from the numbers of its sites, in order; raises Undefined, Fault, and
        OverflowError where one of them is none: what is divided by infinity is no zero."""
        if not rows:
            return self.measure.finish((0.0,) * self.measure.count)
        total = rows[0]
        for row in rows[1:]:
            total = tuple(self.measure.join(x, y) for x, y in zip(total, row, strict=True))
        if not all(map(math.isfinite, total)):
            raise OverflowError
        return self.measure.finish(total)

    def formula(self, write: Formula) -> str:
        args = [write.value(x) for x in self.adapters]
        if self.measure.symmetric:
            args.sort()  # by name
        return write.call(self.measure.name, [*args, *map(str, self.settings)], [])

    @property
    def name(self) -> str:
        return self.measure.name

    def invariant(self) -> None:
        assert self.measure is MEASURES.get(self.measure.name)
        assert all(isinstance(x, AdapterNode) for x in self.adapters)
        order = [x.key for x in self.adapters]
        assert not self.measure.symmetric or order == sorted(order), "adapters out of order"


# --- at a site -------------------------------------------------------------------------------


class Norms(SiteMeasure):
    """‖Δ‖² of each."""

    def numbers(self, parts: Parts) -> Totals:
        return tuple(0.0 if part is None else part.norm() ** 2 for part in parts)

    def meaning(self, deltas: Deltas) -> Totals:
        return tuple(0.0 if x is None else float(np.sum(x**2)) for x in deltas)


class Products(SiteMeasure):
    """⟨Δ₁, Δ₂⟩, ‖Δ₁‖², ‖Δ₂‖²."""

    def numbers(self, parts: Parts) -> Totals:
        left, right = parts
        product = 0.0 if left is None or right is None else left.inner(right)
        return (product, *Norms().numbers(parts))

    def meaning(self, deltas: Deltas) -> Totals:
        left, right = deltas
        product = 0.0 if left is None or right is None else float(np.sum(left * right))
        return (product, *Norms().meaning(deltas))


class Kept(SiteMeasure):
    """What the best LoRA of a rank keeps of Σσ², and all of it."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def numbers(self, parts: Parts) -> Totals:
        [part] = parts
        return (0.0, 0.0) if part is None else self._of(lowrank.singular_values(_low_rank(part)))

    def meaning(self, deltas: Deltas) -> Totals:
        [x] = deltas
        return (0.0, 0.0) if x is None else self._of(np.linalg.svd(x, compute_uv=False))

    def _of(self, values: Dense) -> Totals:
        squares = values**2
        return float(squares[: self.rank].sum()), float(squares.sum())


class Overlap(SiteMeasure):
    """How alike two A row spaces are, of experts on average; and 1 for a site where both are."""

    rows_alone = True

    def numbers(self, parts: Parts) -> Totals:
        left, right = parts
        if left is None or right is None:
            return 0.0, 0.0
        pairs = zip(left.pieces, right.pieces, strict=True)
        overlaps = [lowrank.overlap(x.tensors[0], y.tensors[0]) for x, y in pairs]
        return math.fsum(overlaps) / len(overlaps), 1.0

    def meaning(self, deltas: Deltas) -> Totals:
        left, right = deltas
        if left is None or right is None:
            return 0.0, 0.0
        overlaps = [_shared(*map(_row_space, pair)) for pair in zip(left, right, strict=True)]
        return math.fsum(overlaps) / len(overlaps), 1.0


class Interference(SiteMeasure):
    """‖(Δ₁ − Δ₂)·Δ₂ᵀ‖²/‖Δ₂‖², and the same of no Δ₁."""

    def numbers(self, parts: Parts) -> Totals:
        x, y = (None if part is None else part.low_rank for part in parts)
        if y is None or (x is None and parts[0] is not None):
            return self.meaning([None if part is None else part.delta() for part in parts])
        if x is None:
            core = lowrank.core(y)
            return self._of(-core, core)
        core, _, change = lowrank.difference(y, x)
        return self._of(change, core)

    def meaning(self, deltas: Deltas) -> Totals:
        left, right = deltas
        if right is None:
            return 0.0, 0.0
        right = right.reshape(len(right), -1)
        return self._of(-right if left is None else left.reshape(right.shape) - right, right)

    def _of(self, change: Dense, y: Dense) -> Totals:
        square = float(np.sum(y**2))
        if not square:
            return 0.0, 0.0
        if len(y) > y.shape[1]:
            gram = y.T @ y
            return float(np.sum(change @ gram * change)) / square, float(np.sum(gram**2)) / square
        outer = y @ y.T
        return float(np.sum((change @ y.T) ** 2)) / square, float(np.sum(outer**2)) / square


def _shared(left: Dense, right: Dense) -> float:
    """How much of one row space is in another, of orthonormal rows."""
    least = min(len(left), len(right))
    return float(np.sum((left @ right.T) ** 2)) / least if least else 0.0


def _row_space(a: Dense) -> Dense:
    """Orthonormal rows that span those of A."""
    _, values, vt = np.linalg.svd(a.reshape(len(a), -1), full_matrices=False)
    basis: Dense = vt[values > 1e-10 * values.max(initial=0.0)]
    return basis


class Rank(SiteMeasure):
    """The numerical rank."""

    def numbers(self, parts: Parts) -> Totals:
        [part] = parts
        return (0.0 if part is None else float(lowrank.numerical_rank(_low_rank(part))),)

    def meaning(self, deltas: Deltas) -> Totals:
        [x] = deltas
        return (0.0 if x is None else float(np.linalg.matrix_rank(x, rtol=1e-6)),)


def _low_rank(part: SitePart) -> LowRank:
    factors = part.low_rank
    assert factors is not None  # held by the type rule
    return factors


# --- over all sites --------------------------------------------------------------------------


def _cosine(totals: Totals) -> float:
    product, left, right = totals
    if left == 0 or right == 0:
        raise _of_nothing("cosine of")
    return max(-1.0, min(1.0, product / (math.sqrt(left) * math.sqrt(right))))


def _interference(totals: Totals) -> float:
    lost, whole = totals
    if whole == 0:
        raise _of_nothing("interference with")
    return lost / whole


def _of_nothing(what: str) -> Fault:
    return Fault(
        "PEM0504",
        f"the {what} a zero adapter is not defined",
        "one of the two does nothing: check what it is made from",
    )


MEASURES: dict[str, MeasureRecord] = {
    record.name: record
    for record in (
        MeasureRecord("norm", Norms, 1, lambda t: math.sqrt(t[0]), even=True),
        MeasureRecord("cosine", Products, 3, _cosine, symmetric=True),
        MeasureRecord("energy", Kept, 2, lambda t: t[0] / t[1] if t[1] else 1.0, of_factors=True),
        MeasureRecord(
            "init_overlap",
            Overlap,
            2,
            lambda t: t[0] / t[1] if t[1] else 0.0,
            symmetric=True,
            of_factors=True,
        ),
        MeasureRecord("interference", Interference, 2, _interference),
        MeasureRecord("rank", Rank, 1, lambda t: t[0], max, of_factors=True),
    )
}


def measure(ctx: Context, name: str, *xs: AdapterNode, settings: tuple[int, ...] = ()) -> Measured:
    """The node of a measure of some adapters."""
    record = MEASURES[name]
    return ctx.graph.add(Measured(record, record.canonical(ctx.graph, xs), settings))


def _norm(ctx: Context, x: AdapterNode) -> Num:
    return measure(ctx, "norm", x)


def _cosine_of(ctx: Context, x: AdapterNode, y: AdapterNode) -> Num:
    same_space(ctx, x, y)
    return measure(ctx, "cosine", x, y)


def _distance(ctx: Context, x: AdapterNode, y: AdapterNode) -> Num:
    type_ = same_space(ctx, x, y)
    return measure(ctx, "norm", linear(ctx.graph, type_, [(coefs.ONE, x), (MINUS_ONE, y)]))


def _energy_of(ctx: Context, x: AdapterNode, rank: Num) -> Num:
    need_factors(x, "energy", ctx.text(0), everywhere=False)
    return measure(ctx, "energy", x, settings=(whole_rank(rank, "rank"),))


def init_overlap(ctx: Context, x: AdapterNode, y: AdapterNode) -> Num:
    """The node of init_overlap(x, y); raises PEM0311 unless both are LoRA, and as `+`."""
    for index, adapter in enumerate((x, y)):
        need_pair(adapter, "init_overlap", ctx.text(index))
    same_space(ctx, x, y)
    return measure(ctx, "init_overlap", x, y)


def _interference_of(ctx: Context, x: AdapterNode, y: AdapterNode) -> Num:
    for index, adapter in enumerate((x, y)):
        need_matrices(adapter, "interference", ctx.text(index))
    same_space(ctx, x, y)
    return measure(ctx, "interference", x, y)


def _rank(ctx: Context, x: AdapterNode) -> Num:
    need_factors(x, "rank", ctx.text(0), everywhere=False)
    return measure(ctx, "rank", x)


_X = (Parameter("x", ("adapter",)),)
_XY = (Parameter("x", ("adapter",)), Parameter("y", ("adapter",)))

register(
    Section(
        "Measures",
        "Numbers computed from the factors when weights are read, for `assert` and for weights.",
        (
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
                signatures=(
                    Signature((*_X, Parameter("rank", ("number",))), "number", _energy_of),
                ),
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
                name="interference",
                signatures=(Signature(_XY, "number", _interference_of),),
                summary="How much x lacks of y on the inputs that y acts on: 0 where it does all "
                "that y does there, 1 where it does nothing. No data is read: the rows of Δy "
                "stand for the inputs.",
                formula="Σ_site ‖(Δx − Δy)·Δyᵀ‖²/‖Δy‖² / Σ_site ‖Δy·Δyᵀ‖²/‖Δy‖²",
                source="the loss of WUDI-Merging (Cheng et al. 2025, arXiv 2503.08099), as a share",
            ),
            Operator(
                name="rank",
                signatures=(Signature(_X, "number", _rank),),
                summary="The largest numerical rank of Δ at a site: singular values above "
                "rounding.",
                formula="max_site #{σᵢ > σ₁·max(out, in)·ε}",
            ),
        ),
    )
)
