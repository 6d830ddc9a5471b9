"""Every law that an operator's record states, and every reference it gives, on drawn operands.

A law is held twice: both sides are one node where the normal form promises it, and equal numbers
in any case. The table is complete: a law added to a record fails here until it has a row.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from arrays import pairs_in
from drawing import IA3, LORA, World, adapters, measured, numbers, pairs
from expressions import UNARY, Tree, Writer, leaf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject, SearchStrategy
from numpy.typing import NDArray
from pool import ALL, LAWS, LIKE, Pool
from reference import Reference
from support import delta, gains

from pemlang.ops import OPERATORS
from pemlang.ops.merge import KINDS
from pemlang.ops.record import Operator, Param

LIKE_ALL = [name for name in LIKE if LIKE[name] == ALL and name != "h"]
MEASURES = ["norm", "cosine", "distance", "energy", "init_overlap", "rank"]


@dataclass(frozen=True)
class Law:
    """Both sides over x, y, z (operands) and m, n (numbers).

    `operands` are any adapters on the same modules ("any"), ones that ⊕ takes ("like"), or
    whole leaves of rank 2 ("leaf"). `one` says that both sides are one node.
    """

    left: str
    right: str
    operands: str = "any"
    one: bool = True

    @property
    def text(self) -> str:
        return self.left + self.right


def numbers_alone(left: str, right: str, operands: str = "any") -> Law:
    """A law of numbers: its sides are computed in different ways."""
    return Law(left, right, operands, one=False)


SAME_BAND = numbers_alone(
    "breadcrumbs([x, y], density=0.4, gamma=0)", "magnitude_prune([x, y], density=0.4)"
)
LAWS_OF = {
    "add": {
        "x + y = y + x": Law("x + y", "y + x"),
        "(x + y) + z = x + (y + z)": Law("(x + y) + z", "x + (y + z)"),
        "a·x + b·x = (a + b)·x": Law("m * x + n * x", "(m + n) * x"),
        "x + 0 = x": Law("x + 0 * y", "x"),
    },
    "subtract": {
        "x − y = x + (−1)·y": Law("x - y", "x + (-1) * y"),
        "x − x = 0": Law("x - x", "0 * x"),
    },
    "negate": {
        "−x = (−1)·x": Law("-x", "(-1) * x"),
        "−(−x) = x": Law("-(-x)", "x"),
    },
    "scale": {
        "a·(b·x) = (a·b)·x": Law("m * (n * x)", "(m * n) * x"),
        "a·(x + y) = a·x + a·y": Law("m * (x + y)", "m * x + m * y"),
        "1·x = x": Law("1 * x", "x"),
        "0·x = 0": Law("0 * x", "y - y"),
    },
    "divide": {"x / c = (1/c)·x": Law("x / n", "(1 / n) * x")},
    "join": {"join(x, y) = x + y where the sites agree": Law("join(x, y)", "x + y")},
    "mean": {
        "mean([x]) = x": Law("mean([x])", "x"),
        "mean([x, x]) = x": Law("mean([x, x])", "x"),
        "mean([x, y]) = (x + y) / 2": Law("mean([x, y])", "(x + y) / 2"),
    },
    "linear": {
        "linear([x, y], weights=[m, n]) = (m·x + n·y) / (m + n)": Law(
            "linear([x, y], weights=[m * m, n * n])", "(m * m * x + n * n * y) / (m * m + n * n)"
        ),
        "linear([x, y], weights=[m, n], normalize=false) = m·x + n·y": Law(
            "linear([x, y], weights=[m, n], normalize=false)", "m * x + n * y"
        ),
    },
    "task_arithmetic": {
        "task_arithmetic([x, y]) = x + y": Law("task_arithmetic([x, y])", "x + y"),
        "task_arithmetic([x, y], weights=[m, n], scale=2) = 2·m·x + 2·n·y": Law(
            "task_arithmetic([x, y], weights=[m, n], scale=2)", "2 * m * x + 2 * n * y"
        ),
    },
    "lerp": {
        "lerp(x, y, t=0) = x": Law("lerp(x, y, t=0)", "x"),
        "lerp(x, y, t=1) = y": Law("lerp(x, y, t=1)", "y"),
        "lerp(x, y, n) = lerp(y, x, 1 − n)": Law("lerp(x, y, n)", "lerp(y, x, 1 - n)"),
    },
    "parameter_add": {
        "x ⊕ y = y ⊕ x": Law("x ⊕ y", "y ⊕ x", "like"),
        "(x ⊕ y) ⊕ z = x ⊕ (y ⊕ z)": Law("(x ⊕ y) ⊕ z", "x ⊕ (y ⊕ z)", "like"),
    },
    "parameter_subtract": {"x ⊖ y = x ⊕ (⊖y)": Law("x ⊖ y", "x ⊕ (⊖y)", "like")},
    "parameter_negate": {
        "⊖(⊖x) = x": Law("⊖(⊖x)", "x", "like"),
        "⊖(x ⊕ y) = (⊖x) ⊕ (⊖y)": Law("⊖(x ⊕ y)", "(⊖x) ⊕ (⊖y)", "like"),
    },
    "parameter_scale": {
        "λ ⊗ (μ ⊗ x) = (λμ) ⊗ x": Law("m ⊗ (n ⊗ x)", "(m * n) ⊗ x", "like"),
        "λ ⊗ (x ⊕ y) = λ ⊗ x ⊕ λ ⊗ y": Law("m ⊗ (x ⊕ y)", "m ⊗ x ⊕ m ⊗ y", "like"),
        "1 ⊗ x = x": Law("1 ⊗ x", "x", "like"),
    },
    "peft_linear": {
        "peft_linear([x, y], weights=[1, 1]) = x ⊕ y": Law(
            "peft_linear([x, y], weights=[1, 1])", "x ⊕ y", "like"
        ),
    },
    "magnitude_prune": {
        "magnitude_prune([x, y], density=1) = x + y": numbers_alone(
            "magnitude_prune([x, y], density=1)", "x + y"
        ),
        "magnitude_prune([x, y], density=d) = magnitude_prune([y, x], density=d)": Law(
            "magnitude_prune([x, y], density=0.3)", "magnitude_prune([y, x], density=0.3)"
        ),
    },
    "dare": {
        "dare([x, y], density=1) = x + y": numbers_alone("dare([x, y], density=1)", "x + y"),
        "dare([x, y], density=d, seed=s) = dare([y, x], density=d, seed=s)": Law(
            "dare([x, y], density=0.3, seed=7)", "dare([y, x], density=0.3, seed=7)"
        ),
    },
    "della": {
        "della([x, y], density=1) = x + y": numbers_alone("della([x, y], density=1)", "x + y"),
    },
    "breadcrumbs": {
        "breadcrumbs([x, y], density=1) = x + y": numbers_alone(
            "breadcrumbs([x, y], density=1)", "x + y"
        ),
        "breadcrumbs([x, y], density=d, gamma=0) = magnitude_prune([x, y], density=d)": SAME_BAND,
    },
    "ties": {
        "ties([x], density=1) = x": numbers_alone("ties([x], density=1)", "x"),
        "ties([x, x], density=1) = x": numbers_alone("ties([x, x], density=1)", "x"),
        "ties([x, y], density=d) = ties([y, x], density=d)": Law(
            "ties([x, y], density=0.4)", "ties([y, x], density=0.4)"
        ),
        "ties([2·x, 2·y], density=d) = 2·ties([x, y], density=d)": numbers_alone(
            "ties([2 * x, 2 * y], density=0.4)", "2 * ties([x, y], density=0.4)"
        ),
    },
    "dare_ties": {
        "dare_ties([x, y], density=1) = ties([x, y], density=1)": numbers_alone(
            "dare_ties([x, y], density=1)", "ties([x, y], density=1)"
        ),
    },
    "della_ties": {
        "della_ties([x, y], density=1) = ties([x, y], density=1)": numbers_alone(
            "della_ties([x, y], density=1)", "ties([x, y], density=1)"
        ),
    },
    "breadcrumbs_ties": {
        "breadcrumbs_ties([x, y], density=1) = ties([x, y], density=1)": numbers_alone(
            "breadcrumbs_ties([x, y], density=1)", "ties([x, y], density=1)"
        ),
        "breadcrumbs_ties([x, y], density=d, gamma=0) = ties([x, y], density=d)": numbers_alone(
            "breadcrumbs_ties([x, y], density=0.4, gamma=0)", "ties([x, y], density=0.4)"
        ),
    },
    "sce": {
        "sce([x]) = x": numbers_alone("sce([x])", "x"),
        "sce([x, y], density=d) = sce([y, x], density=d)": Law(
            "sce([x, y], density=0.4)", "sce([y, x], density=0.4)"
        ),
    },
    "nearswap": {
        "nearswap(x, y, t=0) = x": numbers_alone("nearswap(x, y, t=0)", "x"),
        "nearswap(x, x, t=1) = x": numbers_alone("nearswap(x, x, t=1)", "x"),
    },
    "slerp": {
        "slerp(x, y, t=0) = x": numbers_alone("slerp(x, y, t=0)", "x"),
        "slerp(x, y, t=1) = y": numbers_alone("slerp(x, y, t=1)", "y"),
        "slerp(x, x, t=n) = x": numbers_alone("slerp(x, x, t=n)", "x"),
    },
    "nuslerp": {
        "nuslerp(x, y, weights=[1, 0]) = x": numbers_alone("nuslerp(x, y, weights=[1, 0])", "x"),
        "nuslerp(x, y, weights=[0, 1]) = y": numbers_alone("nuslerp(x, y, weights=[0, 1])", "y"),
    },
    "multislerp": {
        "multislerp([x]) = x": numbers_alone("multislerp([x])", "x"),
        "multislerp([x, y]) = multislerp([y, x])": Law("multislerp([x, y])", "multislerp([y, x])"),
    },
    "karcher": {
        "karcher([x]) = x": numbers_alone("karcher([x])", "x"),
        "karcher([x, x]) = x": numbers_alone("karcher([x, x])", "x"),
        "karcher([x, y]) = karcher([y, x])": Law("karcher([x, y])", "karcher([y, x])"),
    },
    "model_stock": {
        "model_stock([x]) = x": numbers_alone("model_stock([x])", "x"),
        "model_stock([x, x]) = x": numbers_alone("model_stock([x, x])", "x", "leaf"),
    },
    "knots": {
        "knots([x]) = x": numbers_alone("knots([x])", "x"),
        "knots([x, x]) = x": numbers_alone("knots([x, x])", "x"),
    },
    "core_merge": {
        "core_merge([x]) = x": numbers_alone("core_merge([x])", "x"),
        "core_merge([x, x]) = x": numbers_alone("core_merge([x, x])", "x"),
    },
    "tsv": {
        "tsv([x]) = x": numbers_alone("tsv([x])", "x"),
        "tsv([x, y]) = tsv([y, x])": Law("tsv([x, y])", "tsv([y, x])"),
    },
    "iso_c": {
        "iso_c([x, y]) = iso_c([y, x])": Law("iso_c([x, y])", "iso_c([y, x])"),
        "iso_c([x, x]) = 2·iso_c([x])": numbers_alone("iso_c([x, x])", "2 * iso_c([x])", "leaf"),
    },
    "iso_cts": {
        "iso_cts([x, y], common=1) = iso_c([x, y])": numbers_alone(
            "iso_cts([x, y], common=1)", "iso_c([x, y])", "leaf"
        ),
    },
    "extract_subtract": {
        "extract_subtract(x, y, by=0) = x": numbers_alone("extract_subtract(x, y, by=0)", "x"),
        "extract_subtract(x, x, by=n) = x": numbers_alone("extract_subtract(x, x, by=n)", "x"),
    },
    "lora_lego": {
        "lora_lego([x], units=2) = x of rank 2": numbers_alone(
            "lora_lego([x], units=2)", "x", "leaf"
        ),
    },
    "compress": {
        "compress(x, rank=k) = x where rank(x) ≤ k": Law("compress(x, rank=3)", "x", "like"),
    },
    "pad": {
        "pad(x, rank=rank of x) = x": Law("pad(x, rank=2)", "x", "leaf"),
        "pad(pad(x, k), m) = pad(x, m)": Law(
            "pad(pad(x, rank=3), rank=5)", "pad(x, rank=5)", "leaf"
        ),
    },
    "rescale": {"rescale(x, like=x) = x": Law("rescale(x, like=x)", "x")},
}

# Laws that no record states and the normal form promises all the same.
FURTHER = {
    "twice": Law("x + x", "2 * x"),
    "taken away again": Law("x + y - y", "x"),
    "brackets": Law("x - (y - z)", "x - y + z"),
    "division twice": Law("x / 4 / n", "x / (4 * n)"),
    "selection is linear": Law("(m * x - y)[layers 0..1]", "m * x[layers 0..1] - y[layers 0..1]"),
    "selection twice": Law("x[layers 0..1][layers 1..2]", "x[layers 1]"),
    "selection of all": Law("x[layers 0..9]", "x"),
    "join of parts": Law("join(x[layers 0], y[layers 1], x[layers 1..2])", "join(x, y[layers 1])"),
    "join with nothing": Law("join(x, 0 * y[layers 1])", "x"),
    "schedule of one number": Law("steps([n, n]) * x", "n * x"),
    "schedule by parts": Law("steps([m, n]) * x", "join(m * x[layers 0..1], n * x[layers 2])"),
    "twice, by parameters": Law("x ⊕ x", "2 ⊗ x", "like"),
    "nothing, by parameters": Law("x ⊕ 0 ⊗ y", "x", "like"),
    "rescaled back": Law("rescale(rescale(x, like=y), like=x)", "x"),
}
LORA_ALONE = "peft|pad|rescale|compress|layers [12]|knots|core_m|tsv|iso_c|extract|lego"
ROWS = [
    pytest.param(law, world, id=f"{name}: {said}{' (IA3)' * (world is IA3)}")
    for name, rows in [*LAWS_OF.items(), ("further", FURTHER)]
    for said, law in rows.items()
    for world in (LORA, IA3)
    if world is LORA or not re.search(LORA_ALONE, law.text)
]


def test_every_law_of_every_record_has_a_row() -> None:
    # Those of methods that go by statistics are held in tests/oracles/test_statistics.py.
    stated = {
        (op.name, law)
        for op in OPERATORS
        for law in op.laws
        if not any(KINDS[op.name].statistics if op.name in KINDS else ())
    }
    assert stated == {(name, law) for name, rows in LAWS_OF.items() for law in rows}


def operands(law: Law, world: World) -> SearchStrategy[tuple[Tree, ...]]:
    """x, y and z on all modules of a world."""
    sites = world.sets[0]
    if law.operands == "leaf":
        one = st.sampled_from(LIKE_ALL).map(leaf)
    elif law.operands == "like" and world.lora:
        one = pairs(world, sites, 2)
    else:
        one = adapters(world, sites, 2)
    return st.tuples(one, one, one)


def both_sides(law: Law, trees: tuple[Tree, ...], m: Tree, n: Tree) -> str:
    write = Writer()
    named = f"let m = {write.text(m)}\nlet n = {write.text(n)}\n"
    return write.recipe(*trees) + named + f"let left = {law.left}\nlet right = {law.right}\n"


@pytest.mark.parametrize(("law", "world"), [row for row in ROWS if row.values[0].one])
@settings(LAWS, max_examples=6)
@given(st.data(), numbers(zero=False))
def test_both_sides_of_a_law_are_one_node(
    pool: Pool, law: Law, world: World, data: DataObject, n: Tree
) -> None:
    trees = data.draw(operands(law, world))
    m = data.draw(st.one_of(numbers(), measured(world)))
    values = pool.checked(both_sides(law, trees, m, n)).scope.values
    assert values["left"] is values["right"]


@pytest.mark.parametrize(("law", "world"), ROWS)
@settings(LAWS, max_examples=2)
@given(st.data(), numbers(depth=0), numbers(zero=False, depth=0))
def test_both_sides_of_a_law_are_equal_numbers(
    pool: Pool, dense: Reference, law: Law, world: World, data: DataObject, m: Tree, n: Tree
) -> None:
    trees = data.draw(operands(law, world))
    text = both_sides(law, trees, m, n)
    left, right = (
        changes(pool.built(f'{text}save {side} to "{side}" with dtype=f32')[0])
        for side in ("left", "right")
    )
    sizes = [x.size for tree in trees for x in dense.delta(tree).values()]
    weights = math.prod(1 + float(Fraction(x.data.replace("_", ""))) ** 2 for x in (m, n))
    bound = 1e-6 * weights * (1 + sum(float(np.linalg.norm(size)) for size in sizes))
    for site in left.keys() | right.keys():
        assert np.linalg.norm(left.get(site, 0.0) - right.get(site, 0.0)) <= bound


def changes(path: Path) -> dict[str, NDArray[np.float64]]:
    """Δ of a LoRA directory, g of an (IA)³ one."""
    found = gains(path)
    return {site: gain - 1 for site, gain in found.items()} if found else delta(path)


# --- references ----------------------------------------------------------------------------

# Operators on adapters without a reference, and where they are held to what they do instead.
ELSEWHERE = {
    "compress": "test_rank_arithmetic",
    **dict.fromkeys(MEASURES, "test_dense_measures"),
    **dict.fromkeys(KINDS, "test_merge_methods"),
}
ON_ADAPTERS = {"adapter", "[adapter]"}
REFERRED = [op for op in OPERATORS if op.reference is not None and op.name not in KINDS]


def test_every_operator_on_adapters_is_held_to_a_reference() -> None:
    on_adapters = {
        op.name for op in OPERATORS for s in op.signatures if ON_ADAPTERS & kinds_of(s.params)
    }
    referred = {op.name for op in REFERRED}
    assert on_adapters == referred | ELSEWHERE.keys()
    assert not referred & ELSEWHERE.keys()
    for module in ELSEWHERE.values():
        assert (Path(__file__).parent / f"{module}.py").exists()


def kinds_of(params: Sequence[Param]) -> set[str]:
    return {kind for param in params for kind in param.kinds}


@pytest.mark.parametrize("op", REFERRED, ids=lambda op: op.name)
@settings(LAWS, max_examples=8)
@given(st.data())
def test_an_operator_is_its_reference(
    pool: Pool, dense: Reference, op: Operator, data: DataObject
) -> None:
    params = next(s.params for s in op.signatures if ON_ADAPTERS & kinds_of(s.params))
    names = sorted(LIKE_ALL if op.acts_on == "factors" else {"a", "b", "d", "p", "r"})
    given_: list[Tree | list[Tree]] = []
    many = data.draw(st.integers(1, 3))
    for param in params:
        if param.kinds == ("bool",):
            continue
        drawn = [
            leaf(data.draw(st.sampled_from(names))) if ON_ADAPTERS & {*param.kinds}
            else Tree("number", data="7") if param.name == "rank"
            else data.draw(positive if param.name == "weights" else numbers(zero=False))
            for _ in range(many if param.variadic or param.kinds[0][0] == "[" else 1)
        ]  # fmt: skip
        given_ += [drawn] if param.kinds[0][0] == "[" else drawn
    write = Writer()
    texts = [
        f"[{', '.join(map(write.text, one))}]" if isinstance(one, list) else write.text(one, UNARY)
        for one in given_
    ]
    path, _ = pool.built(write.recipe() + f'save {spelt(op, texts)} to "out" with dtype=f64')
    wanted = referred(
        op,
        [
            [values(dense, op, tree) for tree in one]
            if isinstance(one, list)
            else values(dense, op, one)
            for one in given_
        ],
    )
    for site, arrays in got(op, path).items():
        for one, two in zip(arrays, wanted[site], strict=True):
            assert np.allclose(one, two, rtol=1e-5, atol=1e-5 * np.abs(two).max())
    assert wanted.keys() == got(op, path).keys()


positive = st.sampled_from(["1", "0.5", "2", "0.25"]).map(lambda text: Tree("number", data=text))


def spelt(op: Operator, texts: Sequence[str]) -> str:
    """The operator as a recipe writes it."""
    if not op.symbols:
        return f"{op.name}({', '.join(texts)})"
    return f" {op.symbols[0]} ".join(texts) if len(texts) > 1 else f"{op.symbols[0]}{texts[0]}"


Values = dict[str, tuple[NDArray[np.float64], ...]]


def values(dense: Reference, op: Operator, tree: Tree) -> Values:
    """An operand at each site as the reference takes it: a number, Δ, or A and B."""
    if tree.op != "leaf":
        return {
            s: (np.asarray(x.value),) for s, x in dense.factors(tree, dict.fromkeys(ALL)).items()
        }
    if op.acts_on == "delta":
        return {s: (x.value,) for s, x in dense.dense_of(tree.data).items()}
    return {s: (p.a.value, p.b.value) for s, p in dense.pair_of(tree.data).items()}


def referred(op: Operator, operands: Sequence[Values | list[Values]]) -> Values:
    def at(site: str, given_: Values | list[Values]) -> object:
        if isinstance(given_, list):
            return [at(site, one) for one in given_]
        return given_[site] if len(given_[site]) > 1 else given_[site][0]

    assert op.reference is not None
    params = inspect.signature(op.reference).parameters.values()
    if not any(param.kind is param.VAR_POSITIONAL for param in params):
        operands = operands[: len(params)]
    found = {}
    for site in ALL:
        said = op.reference(*(at(site, x) for x in operands))
        found[site] = said if op.acts_on == "factors" else (said,)
    return found


def got(op: Operator, path: Path) -> Values:
    if op.acts_on == "delta":
        return {site: (x,) for site, x in delta(path).items()}
    return {site: (p.a.value, p.b.value) for site, p in pairs_in(path).items()}
