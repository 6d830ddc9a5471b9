"""Any expression of either family does what dense float64 arithmetic says it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import delta, gains, tensors_of
from support.laws.arrays import Dense, Pair, Sized, padded, pairs_in
from support.laws.drawing import IA3, LORA, adapters, pairs
from support.laws.expressions import Tree, Writer
from support.laws.pool import ALL, LAWS, Pool, Q, V, declared
from support.laws.reference import MEASURES, Reference

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


@settings(LAWS, max_examples=120)
@given(adapters(LORA), st.booleans())
def test_a_lora_expression_is_its_dense_arithmetic(
    pool: Pool, dense: Reference, tree: Tree, ascii: bool
) -> None:
    path, _ = pool.built(Writer(ascii).recipe(tree) + 'save x to "out"')
    agree(delta(path), dense.delta(tree), path, tree)


@settings(LAWS, max_examples=40)
@given(adapters(IA3), st.booleans())
def test_an_ia3_expression_is_its_dense_arithmetic(
    pool: Pool, dense: Reference, tree: Tree, ascii: bool
) -> None:
    path, _ = pool.built(Writer(ascii).recipe(tree) + 'save x to "out"')
    exact = {s: Sized(g.value, g.size + 1) for s, g in dense.delta(tree).items()}
    agree({s: gain - 1 for s, gain in gains(path).items()}, exact, path, tree)


@settings(LAWS, max_examples=60)
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
        factors = {site: getattr(pair, factor).value for site, pair in got.items()}
        agree(factors, exact, path, tree)


@settings(LAWS, max_examples=25)
@given(adapters(LORA))
def test_evaluate_gives_the_tensors_that_build_writes(pool: Pool, tree: Tree) -> None:
    text = Writer().recipe(tree)
    path, _ = pool.built(text + 'save x to "out"')
    written, given_back = tensors_of(path), pool.evaluated(text)
    assert written.keys() == given_back.keys()
    assert all((written[key] == given_back[key]).all() for key in written)


# --- corners that are drawn too seldom -----------------------------------------------------


def pairs_of(pool: Pool, text: str) -> dict[str, Pair]:
    path, _ = pool.built(f'{declared("abt")}save {text} to "out" with dtype=f64')
    return pairs_in(path)


def same(got: dict[str, Pair], a: Arrays, b: Arrays) -> bool:
    """Whether factors are these, at all sites that are there."""
    return all(
        np.allclose(pair.a.value, a[site], atol=1e-6)
        and np.allclose(pair.b.value, b[site], atol=1e-6)
        for site, pair in got.items()
    )


def test_what_an_energy_cut_is_padded_inside_a_parameter_wise_sum(pool: Pool) -> None:
    cut, b = pairs_of(pool, "compress(a, energy=0.3)"), pairs_of(pool, "b")
    assert {pair.a.value.shape[0] for pair in cut.values()} == {1}
    cut = {site: padded(pair, 2) for site, pair in cut.items()}
    got = pairs_of(pool, "compress(a, energy=0.3) ⊕ b")
    assert got.keys() == cut.keys()
    assert same(
        got,
        {site: cut[site].a.value + b[site].a.value for site in b},
        {site: cut[site].b.value + b[site].b.value for site in b},
    )


@pytest.mark.parametrize("zero", ["distance(a, a) * a", "distance(a, a) * a + 0 * b"])
def test_a_term_measured_to_be_zero_keeps_its_place(pool: Pool, zero: str) -> None:
    """λ·(A, B) = (A, λB), at λ = 0 too: ⊕ still adds A."""
    a, b = pairs_of(pool, "a"), pairs_of(pool, "b")
    got = pairs_of(pool, f"({zero}) ⊕ b")
    both = {site: a[site].a.value + b[site].a.value for site in b}
    assert got.keys() == b.keys()
    assert same(got, both, {site: b[site].b.value for site in b})


def test_sites_that_only_a_join_adds_stay_zero(pool: Pool) -> None:
    t = pairs_of(pool, "t")
    got = pairs_of(pool, "2 ⊗ join(t, 0 * a) ⊕ join(0 * a, t)")
    assert got.keys() == t.keys()
    assert same(got, *({s: 3 * getattr(p, n).value for s, p in t.items()} for n in "ab"))


@pytest.mark.parametrize("weight", ["0", "1"])
def test_the_paper_s_merge_at_its_ends(pool: Pool, weight: str) -> None:
    kept = pairs_of(pool, "a" if weight == "1" else "b")
    got = pairs_of(pool, f"{weight} ⊗ a ⊕ (1 - {weight}) ⊗ b")
    assert same(got, *({s: getattr(p, n).value for s, p in kept.items()} for n in "ab"))
