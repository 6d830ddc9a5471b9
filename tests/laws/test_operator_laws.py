"""Every law that an operator's record states, on drawn operands.

A law is held twice: both sides are one node where the normal form promises it, and equal numbers
in any case. The table is complete: a law added to a record fails here until it has a row.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, SearchStrategy
from numpy.typing import NDArray
from support import delta, gains
from support.laws.drawing import IA3, LORA, World, adapters, measured, numbers, pairs
from support.laws.expressions import Tree, Writer, leaf
from support.laws.law_table import FURTHER, LAWS_OF, LORA_ALONE, Law
from support.laws.pool import LAWS, LIKE_ALL, Pool
from support.laws.reference import Reference

from pemlang.ops import METHODS, every_operator

ROWS = [
    pytest.param(law, world, id=f"{name}: {statement}{' (IA3)' * (world is IA3)}")
    for name, rows in [*LAWS_OF.items(), ("further", FURTHER)]
    for statement, law in rows.items()
    for world in (LORA, IA3)
    if world is LORA or not re.search(LORA_ALONE, law.text)
]


def test_every_law_of_every_record_has_a_row() -> None:
    # Those of methods that go by statistics are held in tests/oracles/test_statistics.py.
    stated = {
        (op.name, law)
        for op in every_operator()
        for law in op.laws
        if op.name not in METHODS or METHODS[op.name].statistics is None
    }
    assert stated == {(name, law) for name, rows in LAWS_OF.items() for law in rows}


def operands(law: Law, world: World) -> SearchStrategy[tuple[Tree, ...]]:
    """x, y and z on all modules of a world."""
    sites = world.sets[0]
    if law.operands == "leaf":
        operand = st.sampled_from(LIKE_ALL).map(leaf)
    elif law.operands == "like" and world.lora:
        operand = pairs(world, sites, 2)
    else:
        operand = adapters(world, sites, 2)
    return st.tuples(operand, operand, operand)


def both_sides(law: Law, trees: tuple[Tree, ...], m: Tree, n: Tree) -> str:
    write = Writer()
    named = f"let m = {write.text(m)}\nlet n = {write.text(n)}\n"
    return write.recipe(*trees) + named + f"let left = {law.left}\nlet right = {law.right}\n"


@pytest.mark.parametrize(("law", "world"), [row for row in ROWS if row.values[0].one_node])
@settings(LAWS, max_examples=6)
@given(st.data(), numbers(zero=False))
def test_both_sides_of_a_law_are_one_node(
    pool: Pool, law: Law, world: World, data: DataObject, n: Tree
) -> None:
    trees = data.draw(operands(law, world))
    m = data.draw(st.one_of(numbers(), measured(world)))
    names = pool.checked(both_sides(law, trees, m, n)).names
    assert names["left"] is names["right"]


@pytest.mark.parametrize(("law", "world"), ROWS)
@settings(LAWS, max_examples=2)
@given(st.data(), numbers(depth=0), numbers(zero=False, depth=0))
def test_both_sides_of_a_law_are_equal_numbers(
    pool: Pool, dense: Reference, law: Law, world: World, data: DataObject, m: Tree, n: Tree
) -> None:
    trees = data.draw(operands(law, world))
    text = both_sides(law, trees, m, n)
    left, right = (
        changes(pool.built(f'{text}save {side} to "{side}" with rank=full, dtype=f32')[0])
        for side in ("left", "right")
    )
    sizes = [x.size for tree in trees for x in dense.delta(tree).values()]
    weights = math.prod(1 + float(Fraction(x.data.replace("_", ""))) ** 2 for x in (m, n))
    bound = 1e-6 * weights * (1 + sum(float(np.linalg.norm(size)) for size in sizes))
    for site in left.keys() | right.keys():
        assert np.linalg.norm(left.get(site, 0.0) - right.get(site, 0.0)) <= bound


def changes(path: Path) -> dict[str, NDArray[np.float64]]:
    """Δ of a LoRA directory, g of an (IA)³ one."""
    vectors = gains(path)
    return {site: gain - 1 for site, gain in vectors.items()} if vectors else delta(path)
