"""Any expression of either family does what dense float64 arithmetic says it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from arrays import Dense, Sized, pairs_in
from drawing import IA3, LORA, adapters, pairs
from expressions import Tree, Writer
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pool import ALL, LAWS, Pool, Q, V
from reference import MEASURES, Reference
from support import delta, gains, tensors_of

Arrays = dict[str, NDArray[np.float64]]

# What rounding to the file's dtype may do in A and in B, as a share of the size of the terms.
SHARE = {"float32": 1e-5, "float64": 1e-11, "bfloat16": 3e-2, "float16": 4e-3}
FLOOR = {"float16": 1e-5}  # its numbers below 6e-5 have fewer digits


def agree(got: Arrays, wanted: Dense, path: Path, tree: Tree) -> None:
    """Hold arrays to what they should be; a site that is not there is zero.

    A number measured from float32 inputs is known to float32, whatever it is put to.
    """
    [dtype] = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors_of(path).values()}
    share = max(SHARE[dtype], SHARE["float32"] * measures(tree))
    assert set(got) <= set(wanted)
    for site, exact in wanted.items():
        error = np.abs(got.get(site, 0.0) - exact.value)
        assert (error <= share * exact.size + FLOOR.get(dtype, 1e-30)).all(), site


def measures(tree: Tree) -> bool:
    own = tree.op == "call" and tree.data[0] in MEASURES
    return own or any(measures(arg) for arg in tree.args)


@settings(LAWS, max_examples=250)
@given(adapters(LORA), st.booleans())
def test_a_lora_expression_is_its_dense_arithmetic(
    pool: Pool, dense: Reference, tree: Tree, ascii: bool
) -> None:
    path, _ = pool.built(Writer(ascii).recipe(tree) + 'save x to "out"')
    agree(delta(path), dense.delta(tree), path, tree)


@settings(LAWS, max_examples=120)
@given(adapters(IA3), st.booleans())
def test_an_ia3_expression_is_its_dense_arithmetic(
    pool: Pool, dense: Reference, tree: Tree, ascii: bool
) -> None:
    path, _ = pool.built(Writer(ascii).recipe(tree) + 'save x to "out"')
    exact = {s: Sized(g.value, g.size + 1) for s, g in dense.delta(tree).items()}
    agree({s: l - 1 for s, l in gains(path).items()}, exact, path, tree)


@settings(LAWS, max_examples=150)
@given(
    st.sampled_from([ALL, Q, V]).flatmap(
        lambda sites: st.sampled_from(["like", "pad", "rescale"]).flatmap(
            lambda shape: pairs(LORA, sites, 3, shape)
        )
    )
)
def test_a_parameter_wise_expression_is_its_arithmetic_on_both_factors(
    pool: Pool, dense: Reference, tree: Tree
) -> None:
    path, _ = pool.built(Writer().recipe(tree) + 'save x to "out"')
    got, wanted = pairs_in(path), dense.pair(tree)
    for factor in ("a", "b"):
        exact = {site: getattr(pair, factor) for site, pair in wanted.items()}
        found = {site: getattr(pair, factor).value for site, pair in got.items()}
        agree(found, exact, path, tree)


@settings(LAWS, max_examples=100)
@given(adapters(LORA))
def test_evaluate_gives_the_tensors_that_build_writes(pool: Pool, tree: Tree) -> None:
    text = Writer().recipe(tree)
    path, _ = pool.built(text + 'save x to "out"')
    written, given_back = tensors_of(path), pool.recipe(text).evaluate("x")
    assert written.keys() == given_back.keys()
    assert all((written[key] == given_back[key]).all() for key in written)
