"""The specification of the graph holds of every drawn recipe, and fails on what breaks it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from drawing import IA3, LORA, adapters
from expressions import Tree, Writer
from hypothesis import given, settings
from hypothesis import strategies as st
from pool import LAWS, Pool, declared
from spec import verify

from pemlang.graph.node import AdapterType, Graph, Node
from pemlang.graph.normal import adapter_type


@settings(LAWS, max_examples=40)
@given(st.lists(adapters(LORA), min_size=1, max_size=3))
def test_a_checked_recipe_is_in_normal_form(pool: Pool, trees: list[Tree]) -> None:
    checked = pool.checked(Writer().recipe(*trees))
    found = [checked.scope.values[name] for name in "xyz"[: len(trees)]]
    assert all(isinstance(node.type, AdapterType) for node in found)
    verify(checked.graph)


@settings(LAWS, max_examples=25)
@given(adapters(IA3))
def test_an_ia3_expression_is_a_leaf_or_a_sum(pool: Pool, tree: Tree) -> None:
    assert pool.node(Writer().recipe(tree)).op in ("leaf", "sum")


@settings(LAWS, max_examples=25)
@given(adapters(LORA, depth=2), adapters(LORA, depth=2))
def test_no_key_depends_on_what_was_elaborated_before(pool: Pool, one: Tree, two: Tree) -> None:
    first = pool.checked(Writer().recipe(one, two)).scope.values
    second = pool.checked(Writer().recipe(two, one)).scope.values
    assert (first["x"].key, first["y"].key) == (second["y"].key, second["x"].key)


# --- graphs that break it ------------------------------------------------------------------

TEXT = declared("abrt") + (
    "let sum = a + 2 * b\n"
    "let mix = a ⊕ 2 ⊗ b\n"
    "let measure = norm(a)\n"
    "let more = norm(a) + 1\n"
    "let padded = pad(a, rank=5)\n"
    "let rescaled = rescale(a, like=r)\n"
)
Values = dict[str, Any]
ONE, TWO, ZERO = Fraction(1), Fraction(2), Fraction(0)


def combined(graph: Graph, op: str, terms: dict[Node, Any], like: Node | None = None) -> None:
    """A combination in key order that no rule made, on the sites of a node."""
    args = sorted(terms, key=lambda node: node.key)
    type_ = adapter_type(like or args[0])
    graph.add(op, args, (type_.shapes, tuple(terms[arg] for arg in args)), type_)


def backwards(graph: Graph, v: Values) -> None:
    args = sorted((v["a"], v["b"]), key=lambda node: node.key, reverse=True)
    type_ = adapter_type(v["a"])
    graph.add("sum", args, (type_.shapes, (ONE, ONE)), type_)


def beside(graph: Graph, v: Values) -> None:
    a = v["a"]
    graph.nx.add_node(Node("leaf", (), a.attrs, a.type, a.adapter), op="leaf", type=a.type)


def polynomial(graph: Graph, v: Values, *terms: tuple[Fraction, tuple[int, ...]]) -> None:
    graph.add("polynomial", (v["measure"],), terms, v["measure"].type)


def spelt(v: Values, number: Fraction) -> tuple[tuple[str, Fraction], ...]:
    return tuple((site, number) for site in adapter_type(v["a"]).shapes)


BROKEN: dict[str, Callable[[Graph, Values], Any]] = {
    "a sum in a sum": lambda g, v: combined(g, "sum", {v["sum"]: TWO}),
    "1·x": lambda g, v: combined(g, "sum", {v["a"]: ONE}),
    "a zero coefficient": lambda g, v: combined(g, "sum", {v["a"]: ZERO}),
    "no coefficient": lambda g, v: combined(g, "sum", {v["a"]: ()}),
    "one number, spelt": lambda g, v: combined(g, "sum", {v["a"]: spelt(v, TWO)}),
    "a zero at a site": lambda g, v: combined(g, "sum", {v["a"]: spelt(v, ZERO)[:1]}),
    "sites out of order": lambda g, v: combined(g, "sum", {v["a"]: spelt(v, ONE)[1::-1]}),
    "a site it has not": lambda g, v: combined(g, "sum", {v["t"]: (("x", ONE),)}),
    "terms out of order": backwards,
    "a term of no site": lambda g, v: g.add(
        "sum", (v["t"],), (v["none"].shapes, (ONE,)), v["none"]
    ),
    "a mix in a mix": lambda g, v: combined(g, "mix", {v["mix"]: (TWO, TWO)}),
    "1 ⊗ x": lambda g, v: combined(g, "mix", {v["a"]: (ONE, ONE)}),
    "a zero pair": lambda g, v: combined(g, "mix", {v["a"]: (ONE, ONE), v["b"]: (ZERO, ZERO)}),
    "two ranks": lambda g, v: combined(g, "mix", {v["a"]: (ONE, ONE), v["padded"]: (ONE, ONE)}),
    "two scales": lambda g, v: combined(g, "mix", {v["a"]: (ONE, ONE), v["rescaled"]: (ONE, ONE)}),
    "a pad in a pad": lambda g, v: g.add("pad", (v["padded"],), (9,), v["padded"].type),
    "a pad of nothing": lambda g, v: g.add("pad", (v["a"],), (2,), v["a"].type),
    "a rescale to itself": lambda g, v: g.add(
        "rescale", (v["a"],), (tuple(sorted(v["a"].adapter.scales.items())),), v["a"].type
    ),
    "a cut of nothing": lambda g, v: g.add("compress", (v["a"],), (2, None), v["a"].type),
    "1·m": lambda g, v: polynomial(g, v, (ONE, (1,))),
    "0·m": lambda g, v: polynomial(g, v, (ZERO, (1,))),
    "terms of one power": lambda g, v: polynomial(g, v, (ONE, (2,)), (TWO, (2,))),
    "powers out of order": lambda g, v: polynomial(g, v, (ONE, (2,)), (TWO, (1,))),
    "a measure unused": lambda g, v: polynomial(g, v, (TWO, (0,))),
    "a polynomial in one": lambda g, v: g.add(
        "polynomial", (v["more"],), ((TWO, (1,)),), v["measure"].type
    ),
    "an edge too many": lambda g, v: g.nx.add_edge(v["b"], v["padded"]),
    "two nodes of one key": beside,
}


@pytest.mark.parametrize("wrong", BROKEN)
def test_the_specification_fails_on(pool: Pool, wrong: str) -> None:
    checked = pool.checked(TEXT)
    values = dict(checked.scope.values)
    shapes = adapter_type(values["a"]).shapes.only(frozenset({"m.layers.2.v"}))
    values["none"] = AdapterType("lora", None, shapes)
    BROKEN[wrong](checked.graph, values)
    with pytest.raises(AssertionError):
        verify(checked.graph)
