"""The graph is in its normal form after any drawn recipe, and its invariant fails on what breaks
it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.laws.drawing import IA3, LORA, adapters
from support.laws.expressions import Tree, Writer
from support.laws.pool import LAWS, Pool, declared

from pemlang.graph import AdapterNode, AdapterType, Graph, Leaf, Mix, Polynomial, Sum
from pemlang.ops import Compress, Pad, Rescale


@settings(LAWS, max_examples=40)
@given(st.lists(adapters(LORA), min_size=1, max_size=3))
def test_a_checked_recipe_is_in_normal_form(pool: Pool, trees: list[Tree]) -> None:
    checked = pool.checked(Writer().recipe(*trees))
    nodes = [checked.names[name] for name in "xyz"[: len(trees)]]
    assert all(isinstance(node.type, AdapterType) for node in nodes)
    checked.graph.invariant()


@settings(LAWS, max_examples=25)
@given(adapters(IA3))
def test_an_ia3_expression_is_a_leaf_or_a_sum(pool: Pool, tree: Tree) -> None:
    assert isinstance(pool.node(Writer().recipe(tree)), Leaf | Sum)


@settings(LAWS, max_examples=25)
@given(adapters(LORA, depth=2), adapters(LORA, depth=2))
def test_no_key_depends_on_what_was_elaborated_before(pool: Pool, x: Tree, y: Tree) -> None:
    first = pool.checked(Writer().recipe(x, y)).names
    second = pool.checked(Writer().recipe(y, x)).names
    assert (first["x"].key, first["y"].key) == (second["y"].key, second["x"].key)


# --- graphs that break it ------------------------------------------------------------------

TEXT = declared("abrt") + (
    "let total = a + 2 * b\n"
    "let mix = a ⊕ 2 ⊗ b\n"
    "let measure = norm(a)\n"
    "let more = norm(a) + 1\n"
    "let padded = pad(a, rank=5)\n"
    "let rescaled = rescale(a, like=r)\n"
)
Values = dict[str, Any]
ONE, TWO, ZERO = Fraction(1), Fraction(2), Fraction(0)


def add_sum(graph: Graph, *terms: tuple[AdapterNode, Any]) -> None:
    """A sum that no rule made, its terms in this order, on the sites of the first."""
    nodes, coefficients = zip(*terms, strict=True)
    graph.add(Sum(nodes[0].type, nodes, coefficients))


def add_mix(graph: Graph, terms: dict[AdapterNode, Any]) -> None:
    """A mix in key order that no rule made."""
    nodes = tuple(sorted(terms, key=lambda node: node.key))
    graph.add(Mix(nodes[0].type, nodes, tuple(terms[node] for node in nodes)))


def add_polynomial(graph: Graph, v: Values, *terms: tuple[Fraction, tuple[int, ...]]) -> None:
    graph.add(Polynomial((v["measure"],), terms))


def backwards(graph: Graph, v: Values) -> None:
    last, first = sorted((v["a"], v["b"]), key=lambda node: node.key)
    add_sum(graph, (first, ONE), (last, ONE))


def redrawn(graph: Graph, v: Values) -> None:
    graph.nx.nodes[v["a"]]["kind"] = "sum"


def cached(graph: Graph, v: Values) -> None:
    """What a node is made from, remembered wrongly."""
    vars(v["padded"])["sources"] = (v["a"], v["b"])


def beside(graph: Graph, v: Values) -> None:
    """A node made again, interned in another place."""
    graph._interned["another key"] = replace(v["a"])


def outside(graph: Graph, v: Values) -> None:
    """A node made again, and never interned, in one that is."""
    add_sum(graph, (replace(v["a"]), TWO))


def foreign(graph: Graph, v: Values) -> None:
    """A key that is not the digest of its parts."""
    object.__setattr__(v["total"], "coefficients", (TWO, TWO))


def spelt(v: Values, number: Fraction) -> tuple[tuple[str, Fraction], ...]:
    return tuple((site, number) for site in v["a"].shapes)


BROKEN: dict[str, Callable[[Graph, Values], Any]] = {
    "a sum in a sum": lambda g, v: add_sum(g, (v["total"], TWO)),
    "1·x": lambda g, v: add_sum(g, (v["a"], ONE)),
    "a zero coefficient": lambda g, v: add_sum(g, (v["a"], ZERO)),
    "no coefficient": lambda g, v: add_sum(g, (v["a"], ())),
    "a coefficient too few": lambda g, v: g.add(Sum(v["a"].type, (v["a"],), ())),
    "one number, spelt": lambda g, v: add_sum(g, (v["a"], spelt(v, TWO))),
    "a zero at a site": lambda g, v: add_sum(g, (v["a"], spelt(v, ZERO)[:1])),
    "sites out of order": lambda g, v: add_sum(g, (v["a"], spelt(v, ONE)[1::-1])),
    "a site it has not": lambda g, v: add_sum(g, (v["t"], (("x", ONE),))),
    "terms out of order": backwards,
    "a term of no site": lambda g, v: g.add(Sum(v["none"], (v["t"],), (ONE,))),
    "a mix in a mix": lambda g, v: add_mix(g, {v["mix"]: (TWO, TWO)}),
    "1 ⊗ x": lambda g, v: add_mix(g, {v["a"]: (ONE, ONE)}),
    "a zero pair": lambda g, v: add_mix(g, {v["a"]: (ONE, ONE), v["b"]: (ZERO, ZERO)}),
    "two ranks": lambda g, v: add_mix(g, {v["a"]: (ONE, ONE), v["padded"]: (ONE, ONE)}),
    "two scales": lambda g, v: add_mix(g, {v["a"]: (ONE, ONE), v["rescaled"]: (ONE, ONE)}),
    "a pad in a pad": lambda g, v: g.add(Pad(v["padded"].type, v["padded"], 9)),
    "a pad of nothing": lambda g, v: g.add(Pad(v["a"].type, v["a"], 2)),
    "a rescale to itself": lambda g, v: g.add(
        Rescale(v["a"].type, v["a"], tuple(sorted(v["a"].adapter.scales.items())))
    ),
    "a cut of nothing": lambda g, v: g.add(Compress(v["a"].type, v["a"], 2, None)),
    "1·m": lambda g, v: add_polynomial(g, v, (ONE, (1,))),
    "0·m": lambda g, v: add_polynomial(g, v, (ZERO, (1,))),
    "terms of one power": lambda g, v: add_polynomial(g, v, (ONE, (2,)), (TWO, (2,))),
    "powers out of order": lambda g, v: add_polynomial(g, v, (ONE, (2,)), (TWO, (1,))),
    "a measure unused": lambda g, v: add_polynomial(g, v, (TWO, (0,))),
    "a polynomial in one": lambda g, v: g.add(Polynomial((v["more"],), ((TWO, (1,)),))),
    "an edge too many": lambda g, v: g.nx.add_edge(v["b"], v["padded"]),
    "a source too many": cached,
    "a node drawn as another": redrawn,
    "two nodes of one key": beside,
    "a term that is not in the graph": outside,
    "a key of other parts": foreign,
}


@pytest.mark.parametrize("wrong", BROKEN)
def test_the_invariant_fails_on(pool: Pool, wrong: str) -> None:
    checked = pool.checked(TEXT)
    values = dict(checked.names)
    shapes = values["a"].shapes.only(frozenset({"m.layers.2.v"}))
    values["none"] = AdapterType(None, shapes)
    BROKEN[wrong](checked.graph, values)
    with pytest.raises(AssertionError):
        checked.graph.invariant()
