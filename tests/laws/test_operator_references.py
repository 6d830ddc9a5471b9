"""Every operator on adapters does what its record's reference does, on drawn operands."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from numpy.typing import NDArray
from support import delta
from support.laws.arrays import pairs_in
from support.laws.drawing import numbers
from support.laws.expressions import UNARY, Tree, Writer, leaf
from support.laws.pool import ALL, LAWS, LIKE_ALL, Pool
from support.laws.reference import Reference

from pemlang.ops import METHODS, Operator, Parameter, every_operator

MEASURES = ["norm", "cosine", "distance", "energy", "init_overlap", "interference", "rank"]
# Operators on adapters without a reference, and where they are held to what they do instead.
ELSEWHERE = {
    "compress": "test_rank_arithmetic",
    "len": "test_lists",
    **dict.fromkeys(MEASURES, "test_dense_measures"),
    **dict.fromkeys(METHODS, "test_merge_methods"),
}
ON_ADAPTERS = {"adapter", "[adapter]"}
REFERRED = [op for op in every_operator() if op.reference is not None and op.name not in METHODS]


def test_every_operator_on_adapters_is_held_to_a_reference() -> None:
    on_adapters = {
        op.name
        for op in every_operator()
        for s in op.signatures
        if ON_ADAPTERS & kinds_of(s.params)
    }
    referred = {op.name for op in REFERRED}
    assert on_adapters == referred | ELSEWHERE.keys()
    assert not referred & ELSEWHERE.keys()
    for module in ELSEWHERE.values():
        assert (Path(__file__).parent / f"{module}.py").exists()


def kinds_of(params: Sequence[Parameter]) -> set[str]:
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
        f"[{', '.join(map(write.text, arg))}]" if isinstance(arg, list) else write.text(arg, UNARY)
        for arg in given_
    ]
    path, _ = pool.built(
        write.recipe() + f'save {spelt(op, texts)} to "out" with rank=full, dtype=f64'
    )
    wanted = referred(
        op,
        [
            [values(dense, op, tree) for tree in arg]
            if isinstance(arg, list)
            else values(dense, op, arg)
            for arg in given_
        ],
    )
    for site, arrays in got(op, path).items():
        for array, exact in zip(arrays, wanted[site], strict=True):
            assert np.allclose(array, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())
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
            return [at(site, item) for item in given_]
        return given_[site] if len(given_[site]) > 1 else given_[site][0]

    assert op.reference is not None
    params = inspect.signature(op.reference).parameters.values()
    if not any(param.kind is param.VAR_POSITIONAL for param in params):
        operands = operands[: len(params)]
    wanted = {}
    for site in ALL:
        array = op.reference(*(at(site, x) for x in operands))
        wanted[site] = array if op.acts_on == "factors" else (array,)
    return wanted


def got(op: Operator, path: Path) -> Values:
    if op.acts_on == "delta":
        return {site: (x,) for site, x in delta(path).items()}
    return {site: (p.a.value, p.b.value) for site, p in pairs_in(path).items()}
