"""Normal forms. Every adapter expression is one of these nodes:

`leaf`  an adapter in a directory;
`sum`   Σ cᵢ·xᵢ over distinct xᵢ, none of which is a sum: the exact family (+ − · and selections);
`mix`   (Σ αᵢ·Aᵢ, Σ βᵢ·Bᵢ) over distinct xᵢ, none of which is a mix: the parameter-wise family of
        LoRA (⊕ ⊖ ⊗), a vector space over pairs (αᵢ, βᵢ);
and what no such combination expresses (`compress`, `pad`, `rescale`).

Terms are sorted by key and none is zero, so equal values are one node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from pemlang.graph.coef import ONE, Coef, added, fitted, scaled
from pemlang.graph.node import AdapterType, Graph, Node
from pemlang.modules.sites import Shapes

Pair = tuple[Coef, Coef]


def adapter_type(node: Node) -> AdapterType:
    """The type of a node that is known to be an adapter."""
    assert isinstance(node.type, AdapterType)
    return node.type


def own_sites(term: Node, shapes: Shapes) -> Shapes:
    """The sites of a term inside a combination with the sites `shapes`."""
    sites = adapter_type(term).shapes
    return sites if sites == shapes else sites.only(frozenset(shapes))


def terms(node: Node) -> dict[Node, Coef]:
    """x as Σ cᵢ·xᵢ. Law: x = 1·x."""
    return dict(zip(node.args, node.attrs[1], strict=True)) if node.op == "sum" else {node: ONE}


def make_sum(graph: Graph, type: AdapterType, found: Mapping[Node, Coef]) -> Node:
    """The canonical node of Σ cᵢ·xᵢ. Laws: 0·x = 0, 1·x = x, x + y = y + x."""
    kept = {leaf: coef for leaf, coef in found.items() if coef not in (0, ())}
    if len(kept) == 1:
        [(leaf, coef)] = kept.items()
        if coef == 1 and adapter_type(leaf).shapes == type.shapes:
            return leaf
    args = sorted(kept, key=lambda leaf: leaf.key)
    return graph.add("sum", args, (type.shapes, tuple(kept[a] for a in args)), type)


def linear(graph: Graph, type: AdapterType, parts: Iterable[tuple[Coef, Node]]) -> Node:
    """Σ cⱼ·xⱼ of any adapters, restricted or extended by zero to the sites of `type`.

    Laws: c·Σ aᵢxᵢ = Σ (c·aᵢ)xᵢ; a·x + b·x = (a + b)·x; restriction to sites is linear.
    """
    total: dict[Node, Coef] = {}
    for by, part in parts:
        sites = adapter_type(part).shapes
        for leaf, coef in terms(part).items():
            new = own_sites(leaf, type.shapes)
            here = fitted(scaled(graph, coef, by), own_sites(leaf, sites), new)
            total[leaf] = added(graph, total[leaf], here, new) if leaf in total else here
    return make_sum(graph, type, total)


def pairs(node: Node) -> dict[Node, Pair]:
    """x as (Σ αᵢAᵢ, Σ βᵢBᵢ). Laws: x = (A, B); a plain restriction of x has x's parameters."""
    if node.op == "mix":
        return dict(zip(node.args, node.attrs[1], strict=True))
    if node.op == "sum" and node.attrs[1] == (ONE,):
        return {node.args[0]: (ONE, ONE)}
    return {node: (ONE, ONE)}


def make_mix(graph: Graph, type: AdapterType, found: Mapping[Node, Pair]) -> Node:
    """The canonical node of (Σ αᵢAᵢ, Σ βᵢBᵢ). Laws: as for make_sum, on pairs."""
    kept = {leaf: pair for leaf, pair in found.items() if any(c not in (0, ()) for c in pair)}
    if not kept:
        # 0 ⊗ x is (0, 0) at the rank and scale of x: ⊕ still holds it to them.
        kept = {min(found, key=lambda leaf: leaf.key): (Fraction(0), Fraction(0))}
    args = sorted(kept, key=lambda leaf: leaf.key)
    if len(args) == 1 and kept[args[0]] == (ONE, ONE):
        return make_sum(graph, type, {args[0]: ONE})
    return graph.add("mix", args, (type.shapes, tuple(kept[a] for a in args)), type)


def factorwise(graph: Graph, type: AdapterType, parts: Iterable[tuple[Pair, Node]]) -> Node:
    """Σ (αⱼ, βⱼ)·xⱼ of any LoRAs on the sites of `type`, A and B each combined for itself.

    Laws: (α, β)·(α′, β′)·x = (αα′, ββ′)·x; pairs of one x add.
    """
    total: dict[Node, Pair] = {}
    for by, part in parts:
        sites = adapter_type(part).shapes
        for leaf, pair in pairs(part).items():
            old, new = own_sites(leaf, sites), own_sites(leaf, type.shapes)
            one, two = (
                fitted(scaled(graph, coef, factor), old, new)
                for coef, factor in zip(pair, by, strict=True)
            )
            if leaf in total:
                before = total[leaf]
                one, two = added(graph, before[0], one, new), added(graph, before[1], two, new)
            total[leaf] = (one, two)
    return make_mix(graph, type, total)


MINUS_ONE = Fraction(-1)
