"""Normal forms. Every adapter expression is one of these nodes:

`leaf`  an adapter in files;
`sum`   Σ cᵢ·xᵢ over distinct xᵢ, none of which is a sum: the exact family (+ − · and selections);
`mix`   (Σ αᵢ·Aᵢ, Σ βᵢ·Bᵢ) over distinct xᵢ, none of which is a mix: the parameter-wise family of
        LoRA (⊕ ⊖ ⊗), a vector space over pairs (αᵢ, βᵢ);
and what no such combination expresses (`compress`, `pad`, `rescale`, `merge`).

Terms are sorted by key and none is zero, so equal values are one node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

from pemlang.dataclass import dataclass
from pemlang.graph.coef import ONE, added, at, fitted, scaled
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import Leaf
from pemlang.graph.node import AdapterNode, Coef, Node, Num, Part, TensorsNode
from pemlang.graph.types import AdapterType
from pemlang.modules import Shapes
from pemlang.modules.lora import combined, padded

if TYPE_CHECKING:
    from pemlang.graph.difference import Difference
    from pemlang.graph.formula import Formula
    from pemlang.graph.lowering import LoweringContext
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.modules import SiteValues

Pair = tuple[Coef, Coef]
Shared = TypeVar("Shared", int, float)

MINUS_ONE = Fraction(-1)


def own_sites(term: AdapterNode, shapes: Shapes) -> Shapes:
    """The sites of a term inside a combination with the sites `shapes`."""
    return term.shapes if term.shapes == shapes else term.shapes.only(frozenset(shapes))


def is_zero(coef: Coef) -> bool:
    """Whether a coefficient is zero everywhere."""
    return coef in (0, ())


# --- sums ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Sum(AdapterNode):
    """Σ cᵢ·xᵢ over distinct xᵢ in key order, none of them a sum.

    Attributes:
        terms: the xᵢ.
        coefficients: the cᵢ.
    """

    kind = "sum"
    compound = True

    terms: tuple[AdapterNode, ...]
    coefficients: tuple[Coef, ...]

    @property
    def args(self) -> tuple[AdapterNode, ...]:
        return self.terms

    def parts(self) -> tuple[Part, ...]:
        return (self.shapes, self.coefficients)

    def rebuilt(self, new: Rebuilding) -> Node:
        terms = {new.adapter(x): new.coef(c) for x, c in self.as_sum().items()}
        return make_sum(new.graph, self.type, terms)

    def as_sum(self) -> dict[AdapterNode, Coef]:
        return dict(zip(self.terms, self.coefficients, strict=True))

    def as_mix(self) -> dict[AdapterNode, Pair]:
        """Law: a plain restriction of x has the parameters of x."""
        return {self.terms[0] if self.coefficients == (ONE,) else self: (ONE, ONE)}

    def _terms_at(self, site: str) -> list[tuple[Num, AdapterNode]]:
        numbers = [(at(coef, site), x) for x, coef in self.as_sum().items()]
        return [(number, x) for number, x in numbers if number != 0 and site in x.shapes]

    def _ranks(self) -> Mapping[str, int]:
        total = dict.fromkeys(self.shapes, 0)
        for x, coef in self.as_sum().items():
            present = dict(coef) if isinstance(coef, tuple) else total
            for site, rank in x.ranks.items():
                if site in present and site in total:
                    total[site] += rank
        return total

    def _scales(self) -> Mapping[str, float]:
        """The scale of the terms where they share one, else 1."""
        scales: dict[str, float] = {}
        for site in self.shapes:
            if self.type.record(site).ranked:
                values = {x.scales[site] for _, x in self._terms_at(site)}
                scales[site] = values.pop() if len(values) == 1 else 1.0
        return scales

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        parts = []
        for number, x in self._terms_at(ctx.site):
            values, value = args[x], ctx.number(number)
            if values is not None:  # a measured 0 stays: its rank was promised
                parts.append((value, values))
        if not parts:
            return None
        record = self.type.record(ctx.site)
        return record.total(ctx.builder, parts, self.scales.get(ctx.site, 1.0))

    @property
    def steady(self) -> bool:
        return not any(isinstance(coef, tuple) for coef in self.coefficients)

    @property
    def rows_in_order(self) -> bool:
        together = Counter(site for site in self.shapes for _ in self._terms_at(site))
        return max(together.values(), default=0) < 2 and all(x.rows_in_order for x in self.terms)

    def formula(self, write: Formula) -> str:
        terms = [(c, write.term(c, x, self)) for x, c in self.as_sum().items()]
        return write.joined(terms, "+")

    def differ(self, old: Node, new: Node, write: Difference) -> list[str] | None:
        for node in (old, new):
            if not isinstance(node, AdapterNode) or node.uncut is not node:
                return None
        assert isinstance(old, AdapterNode) and isinstance(new, AdapterNode)
        return write.terms(old.as_sum(), new.as_sum())

    @property
    def title(self) -> str:
        return "sum" if self.terms else "zero"

    def weight(self, write: Formula, index: int) -> str:
        return write.short(write.coefficient(self.coefficients[index])) + " ·"

    def invariant(self) -> None:
        _hold_terms(self, self.coefficients)
        for x, coef in self.as_sum().items():
            assert not isinstance(x, Sum), "a sum in a sum"
            _hold_coefficient(coef, own_sites(x, self.shapes))
        single = len(self.terms) == 1 and self.terms[0].shapes == self.shapes
        assert not (single and self.coefficients[0] == ONE), "1·x, which is x"


def make_sum(graph: Graph, type_: AdapterType, terms: Mapping[AdapterNode, Coef]) -> AdapterNode:
    """The canonical node of Σ cᵢ·xᵢ. Laws: 0·x = 0, 1·x = x, x + y = y + x."""
    kept = {x: coef for x, coef in terms.items() if not is_zero(coef)}
    if len(kept) == 1:
        [(x, coef)] = kept.items()
        if coef == 1 and x.shapes == type_.shapes:
            return x
    args = sorted(kept, key=lambda x: x.key)
    return graph.add(Sum(type_, tuple(args), tuple(kept[x] for x in args)))


def linear(
    graph: Graph, type_: AdapterType, parts: Iterable[tuple[Coef, AdapterNode]]
) -> AdapterNode:
    """Σ cⱼ·xⱼ of any adapters, restricted or extended by zero to the sites of `type_`.

    Laws: c·Σ aᵢxᵢ = Σ (c·aᵢ)xᵢ; a·x + b·x = (a + b)·x; restriction to sites is linear.
    """
    total: dict[AdapterNode, Coef] = {}
    for by, part in parts:
        for x, coef in part.as_sum().items():
            new = own_sites(x, type_.shapes)
            here = fitted(scaled(graph, coef, by), own_sites(x, part.shapes), new)
            total[x] = added(graph, total[x], here, new) if x in total else here
    return make_sum(graph, type_, total)


# --- mixes -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Mix(AdapterNode):
    """(Σ αᵢAᵢ, Σ βᵢBᵢ) over distinct xᵢ in key order, none of them a mix.

    Attributes:
        terms: the xᵢ.
        pairs: the (αᵢ, βᵢ).
    """

    kind = "mix"
    compound = True

    terms: tuple[AdapterNode, ...]
    pairs: tuple[Pair, ...]

    @property
    def args(self) -> tuple[AdapterNode, ...]:
        return self.terms

    def parts(self) -> tuple[Part, ...]:
        return (self.shapes, self.pairs)

    def rebuilt(self, new: Rebuilding) -> Node:
        pairs = {
            new.adapter(x): (new.coef(of_a), new.coef(of_b))
            for x, (of_a, of_b) in self.as_mix().items()
        }
        if all(is_zero(coef) for pair in pairs.values() for coef in pair):
            # Any of them keeps the rank and the scale; the first by content is always the same.
            first = min(pairs, key=lambda x: x.key)
            pairs = {first: pairs[first]}
        return make_mix(new.graph, self.type, pairs)

    def as_mix(self) -> dict[AdapterNode, Pair]:
        return dict(zip(self.terms, self.pairs, strict=True))

    def _ranks(self) -> Mapping[str, int]:
        """The terms' common rank; a site that join added to all of them has none."""
        return self._shared([x.ranks for x in self.terms], 0)

    def _scales(self) -> Mapping[str, float]:
        return self._shared([x.scales for x in self.terms], 1.0)

    def _shared(self, by_site: Iterable[Mapping[str, Shared]], absent: Shared) -> dict[str, Shared]:
        """What terms that agree say of each site."""
        shared = dict.fromkeys(self.shapes, absent)
        for values in by_site:
            shared.update(values)
        if len(shared) == len(self.shapes):
            return shared
        return {site: shared[site] for site in self.shapes}

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        parts = []
        for x, (alpha, beta) in self.as_mix().items():
            values = args[x]
            if values is not None:
                numbers = (ctx.number(at(alpha, ctx.site)), ctx.number(at(beta, ctx.site)))
                # An energy may have cut it below the rank that its type says.
                parts.append((*numbers, padded(ctx.builder, values, x.ranks.get(ctx.site, 0))))
        if not any(alpha or beta for alpha, beta, _ in parts):
            return None
        return combined(ctx.builder, parts)

    @property
    def steady(self) -> bool:
        return not any(isinstance(coef, tuple) for pair in self.pairs for coef in pair)

    @property
    def by_factors(self) -> bool:
        return True

    def formula(self, write: Formula) -> str:
        terms = [(pair[0], write.pair(pair, x, self)) for x, pair in self.as_mix().items()]
        return write.joined(terms, "⊕")

    def differ(self, old: Node, new: Node, write: Difference) -> list[str] | None:
        if isinstance(old, Mix | Leaf) and isinstance(new, Mix | Leaf):
            return write.pairs(old.as_mix(), new.as_mix())
        return None

    @property
    def title(self) -> str:
        return "⊕"

    def weight(self, write: Formula, index: int) -> str:
        alpha, beta = self.pairs[index]
        of_a, of_b = (write.short(write.coefficient(coef)) for coef in (alpha, beta))
        return f"{of_a} ⊗" if alpha == beta else f"{of_a} A, {of_b} B ·"

    def invariant(self) -> None:
        _hold_terms(self, self.pairs)
        assert self.type.ranked
        assert self.terms, "a mix of nothing has no rank"
        zero = all(is_zero(coef) for pair in self.pairs for coef in pair)
        for x, pair in self.as_mix().items():
            own = own_sites(x, self.shapes)
            assert not isinstance(x, Mix) or own != x.shapes, "a mix in a mix"
            assert zero or not all(map(is_zero, pair)), "a zero pair"
            for coef in pair:
                if coef != 0:
                    _hold_coefficient(coef, own)
        assert self.pairs != ((ONE, ONE),), "1 ⊗ x, which is x"
        for site in self.shapes:
            ranks = {x.ranks[site] for x in self.terms if site in x.ranks}
            scales = {x.scales[site] for x in self.terms if site in x.scales}
            assert len(ranks) <= 1 and len(scales) <= 1, "terms that ⊕ does not take"


def make_mix(graph: Graph, type_: AdapterType, pairs: Mapping[AdapterNode, Pair]) -> AdapterNode:
    """The canonical node of (Σ αᵢAᵢ, Σ βᵢBᵢ). Laws: as for make_sum, on pairs."""
    kept = {x: pair for x, pair in pairs.items() if not all(map(is_zero, pair))}
    if not kept:
        # 0 ⊗ x is (0, 0) at the rank and scale of x: ⊕ still holds it to them.
        kept = dict.fromkeys(pairs, (Fraction(0), Fraction(0)))
    args = sorted(kept, key=lambda x: x.key)
    if len(args) == 1 and kept[args[0]] == (ONE, ONE):
        return make_sum(graph, type_, {args[0]: ONE})
    return graph.add(Mix(type_, tuple(args), tuple(kept[x] for x in args)))


def factorwise(
    graph: Graph, type_: AdapterType, parts: Iterable[tuple[Pair, AdapterNode]]
) -> AdapterNode:
    """Σ (αⱼ, βⱼ)·xⱼ of any LoRAs on the sites of `type_`, A and B each combined for itself.

    Laws: (α, β)·(α′, β′)·x = (αα′, ββ′)·x; pairs of one x add.
    """
    total: dict[AdapterNode, Pair] = {}
    for by, part in parts:
        for x, pair in part.as_mix().items():
            old, new = own_sites(x, part.shapes), own_sites(x, type_.shapes)
            of_a, of_b = (
                fitted(scaled(graph, coef, factor), old, new)
                for coef, factor in zip(pair, by, strict=True)
            )
            if x in total:
                before = total[x]
                of_a, of_b = added(graph, before[0], of_a, new), added(graph, before[1], of_b, new)
            total[x] = (of_a, of_b)
    return make_mix(graph, type_, total)


# --- what holds of both ----------------------------------------------------------------------


def _hold_terms(node: Sum | Mix, weights: Sequence[Coef | Pair]) -> None:
    assert len(weights) == len(node.terms)
    assert all(isinstance(x, AdapterNode) for x in node.terms)
    order = [x.key for x in node.terms]
    assert order == sorted(set(order)), "terms out of order"
    for x in node.terms:
        assert set(x.type.kinds) <= set(node.type.kinds)
        assert own_sites(x, node.shapes), "a term without a site"


def _hold_coefficient(coef: Coef, sites: Mapping[str, object]) -> None:
    """One number that is not zero, or numbers by site in name order, none zero, for sites the
    term has; not one number spelt out."""
    if not isinstance(coef, tuple):
        assert coef != 0, "a zero coefficient"
        return
    names = [site for site, _ in coef]
    assert names and names == sorted(set(names)), "sites out of order"
    assert set(names) <= set(sites), "a coefficient where the term is not"
    assert all(number != 0 for _, number in coef), "a zero at a site"
    assert len(names) < len(sites) or len({number for _, number in coef}) > 1, "one number, spelt"
