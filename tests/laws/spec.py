"""What holds of a graph after checking, whatever the recipe: the promises of pemlang/graph."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from pemlang.graph.coef import Coef
from pemlang.graph.node import MAX_DEPTH, AdapterType, Graph, ModelType, Node, NumberType
from pemlang.graph.normal import adapter_type, own_sites
from pemlang.ops.measures import MEASURES
from pemlang.ops.merge import KINDS
from pemlang.ops.record import ranks, scales

ONE = Fraction(1)
ADAPTER_OPS = ("leaf", "sum", "mix", "compress", "pad", "rescale", "merge", "task_vector")


def verify(graph: Graph) -> None:
    """Hold every node to the specification.

    - A key stands for one node, and is the digest of its parts: no two nodes are made alike.
    - The edges are the arguments and the nodes in attributes; there is no cycle.
    - A node's type is the one its op has; every adapter has the sites its attributes say.
    - `sum`: Σ cᵢ·xᵢ, args strictly in key order, none of them a sum, no coefficient zero, each
      coefficient canonical over the sites the term has in it; never just 1·x on the sites of x.
    - `mix`: the same of pairs (αᵢ, βᵢ); no pair is (0, 0) unless it stands alone, to keep the
      rank; no arg is a mix on the same sites; all args have one rank and one scale at a site.
    - `pad`, `rescale` and `compress` change something, and no pad is in a pad, no rescale in a
      rescale.
    - `merge`: a method's adapters with a weight each, in key order where it is symmetric.
    - `number`: an operation with something measured in it, that no law of + and · removes.
    """
    keys = [node.key for node in graph.nx]
    assert len(set(keys)) == len(keys), "two nodes of one key"
    for node in graph.nx:
        _alone(graph, node)
        _OF_OP[node.op](node)


def _alone(graph: Graph, node: Node) -> None:
    again = Graph().add(node.op, node.args, node.attrs, node.type, node.adapter)
    assert again.key == node.key, "a key that is not the digest of its parts"
    made_from = {*node.args, *_nodes(node.attrs)}
    assert set(graph.nx.predecessors(node)) == made_from, "edges that are not the arguments"
    assert all(source in graph.nx and source.depth < node.depth for source in made_from)
    assert node.depth <= MAX_DEPTH
    assert graph.nx.nodes[node] == {"op": node.op, "type": node.type}
    assert (node.adapter is not None) == (node.op == "leaf")
    assert isinstance(node.type, AdapterType) == (node.op in ADAPTER_OPS)


def _nodes(value: Any) -> list[Node]:
    if isinstance(value, tuple):
        return [node for item in value for node in _nodes(item)]
    return [value] if isinstance(value, Node) else []


def _coefficient(coef: Coef, sites: Mapping[str, object]) -> None:
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


def _terms(node: Node) -> None:
    """The arguments of a combination."""
    shapes, coefs = node.attrs
    assert shapes == adapter_type(node).shapes
    assert len(coefs) == len(node.args)
    order = [arg.key for arg in node.args]
    assert order == sorted(set(order)), "terms out of order"
    for arg in node.args:
        assert adapter_type(arg).method == adapter_type(node).method
        assert own_sites(arg, shapes), "a term without a site"


def _sum(node: Node) -> None:
    _terms(node)
    shapes, coefs = node.attrs
    for arg, coef in zip(node.args, coefs, strict=True):
        assert arg.op != "sum", "a sum in a sum"
        _coefficient(coef, own_sites(arg, shapes))
    single = len(coefs) == 1 and adapter_type(node.args[0]).shapes == shapes
    assert not (single and coefs[0] == ONE), "1·x, which is x"


def _mix(node: Node) -> None:
    _terms(node)
    shapes, coefs = node.attrs
    assert adapter_type(node).method == "lora"
    assert node.args, "a mix of nothing has no rank"
    for arg, pair in zip(node.args, coefs, strict=True):
        own = own_sites(arg, shapes)
        assert arg.op != "mix" or own != adapter_type(arg).shapes, "a mix in a mix"
        assert any(coef != 0 for coef in pair) or len(node.args) == 1, "a zero pair"
        for coef in pair:
            if coef != 0:
                _coefficient(coef, own)
    assert coefs != ((ONE, ONE),), "1 ⊗ x, which is x"
    for what in (ranks, scales):
        for site in shapes:
            found = {what(arg)[site] for arg in node.args if site in what(arg)}
            assert len(found) <= 1, "terms that ⊕ does not take"


def _leaf(node: Node) -> None:
    assert node.args == ()
    key, base = node.attrs
    assert isinstance(key, str)
    assert base == adapter_type(node).base


def _pad(node: Node) -> None:
    [arg] = node.args
    assert arg.op != "pad"
    assert all(rank <= node.attrs[0] for rank in ranks(arg).values())
    assert any(rank < node.attrs[0] for rank in ranks(arg).values())


def _rescale(node: Node) -> None:
    [arg] = node.args
    assert arg.op != "rescale"
    assert scales(node) != scales(arg)
    assert ranks(node) == ranks(arg)


def _compress(node: Node) -> None:
    [arg] = node.args
    limit, energy = node.attrs
    assert (limit is None) != (energy is None)
    assert limit is None or any(rank > limit for rank in ranks(arg).values())


def _merge(node: Node) -> None:
    name, over, limit, weights, settings = node.attrs
    assert len(weights) == len(node.args) > 0
    assert over in ("delta", "factors")
    assert limit is None or KINDS[name].rank is None
    assert [key for key, _ in settings] == sorted(key for key, _ in settings)
    if KINDS[name].symmetric:
        assert [arg.key for arg in node.args] == sorted(arg.key for arg in node.args)
    if over == "factors":
        assert adapter_type(node).method == "lora"
        assert all(ranks(arg) == ranks(node) for arg in node.args)


def _measure(node: Node) -> None:
    assert isinstance(node.type, NumberType)
    assert node.attrs[0] in MEASURES
    assert all(isinstance(arg.type, AdapterType) for arg in node.args)


def _reciprocal(node: Node) -> None:
    assert isinstance(node.type, NumberType)
    [arg] = node.args
    assert arg.op in ("measure", "polynomial", "reciprocal")


def _polynomial(node: Node) -> None:
    assert isinstance(node.type, NumberType)
    assert node.args, "an exact number is no node"
    assert all(arg.op in ("measure", "reciprocal") for arg in node.args)
    assert [arg.key for arg in node.args] == sorted({arg.key for arg in node.args})
    powers = [e for _, e in node.attrs]
    assert powers == sorted(set(powers)), "one term for each monomial, in order"
    assert all(c != 0 and len(e) == len(node.args) for c, e in node.attrs)
    assert all(any(e[i] for e in powers) for i in range(len(node.args))), "nothing unused"
    assert node.attrs != ((1, (1,)),), "1·x, which is x"


def _model(node: Node) -> None:
    assert isinstance(node.type, ModelType) or node.op == "task_vector"


_OF_OP = {
    "leaf": _leaf,
    "sum": _sum,
    "mix": _mix,
    "pad": _pad,
    "rescale": _rescale,
    "compress": _compress,
    "merge": _merge,
    "measure": _measure,
    "reciprocal": _reciprocal,
    "polynomial": _polynomial,
    "model": _model,
    "bake": _model,
    "task_vector": _model,
}
