"""Ranks follow the normal form: what a check says of them is what a build writes, and no more
than the distinct adapters need."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import config_of, delta, tensors_of
from support.laws.arrays import pairs_in
from support.laws.drawing import LINEAR, LORA, adapters, pairs
from support.laws.expressions import Tree, Writer, leaf
from support.laws.pool import ALL, LAWS, LIKE_RANK, LORAS, Pool, Q, declared
from support.laws.reference import Reference, is_adapter

Combination = dict[str, dict[str, Fraction]]
"""At each site, the adapters of a linear expression with their coefficients."""


def combined(dense: Reference, tree: Tree) -> Combination:
    """A linear expression multiplied out, with exact numbers."""
    if tree.op == "leaf":
        return {site: {tree.data: Fraction(1)} for site in LORAS[tree.data]}
    inner = [combined(dense, arg) for arg in tree.args if is_adapter(arg)]
    if tree.op == "select":
        kept = dense.kept(tree, inner[0])
        return {site: terms for site, terms in inner[0].items() if site in kept}
    if tree.op in ("let", "neg", "+", "-"):
        signs = {"neg": [-1], "-": [1, -1]}.get(tree.op, [1, 1])
        return added(*(times(x, sign) for x, sign in zip(inner, signs, strict=False)))
    if tree.op == "call":
        return added(*called(dense, tree, inner))
    [by] = [arg for arg in tree.args if not is_adapter(arg)]
    factors = {site: dense.number(by, site, inner[0]) for site in inner[0]}
    if tree.op == "/":
        factors = {site: 1 / factor for site, factor in factors.items()}
    return {s: {n: c * factors[s] for n, c in terms.items()} for s, terms in inner[0].items()}


def called(dense: Reference, tree: Tree, inner: list[Combination]) -> list[Combination]:
    name, options = tree.data
    if name == "join":
        return inner
    if name == "eased":
        return [combined(dense, Tree("*", (tree.args[1], tree.args[0])))]
    if name == "unlearn":
        return [times(inner[0], -Fraction(options.get("weight", 1)))]
    by = Fraction(options.get("by", {"blend": "0.25", "undo": 1}[name]))
    weights = (by, 1 - by) if name == "blend" else (1, -by)
    return [times(x, weight) for x, weight in zip(inner, weights, strict=True)]


def times(x: Combination, by: Fraction | int) -> Combination:
    return {site: {n: by * c for n, c in terms.items()} for site, terms in x.items()}


def added(*xs: Combination) -> Combination:
    total: Combination = {}
    for x in xs:
        for site, terms in x.items():
            at = total.setdefault(site, {})
            for name, number in terms.items():
                at[name] = at.get(name, Fraction(0)) + number
    return total


def needed(dense: Reference, tree: Tree) -> dict[str, int]:
    """The ranks of the adapters that are left at each site, added up."""
    return {
        site: sum(dense.pair_of(name)[site].a.value.shape[0] for name, c in terms.items() if c != 0)
        for site, terms in combined(dense, tree).items()
    }


def written(tensors: Mapping[str, np.ndarray]) -> dict[str, int]:
    end = ".lora_A.weight"
    return {
        key.removeprefix("base_model.model.").removesuffix(end): tensor.shape[0]
        for key, tensor in tensors.items()
        if key.endswith(end)
    }


@settings(LAWS, max_examples=50)
@given(adapters(LINEAR))
def test_a_sum_has_the_rank_of_its_distinct_terms(pool: Pool, dense: Reference, tree: Tree) -> None:
    text, wanted = Writer().recipe(tree), needed(dense, tree)
    assert pool.node(text).ranks == wanted
    path, _ = pool.built(text + 'save x to "out" with reader=peft')
    tensors = tensors_of(path)
    if any(wanted.values()):
        assert written(tensors) == {site: rank for site, rank in wanted.items() if rank}
    else:
        assert written(tensors) == dict.fromkeys(wanted, 1)


@settings(LAWS, max_examples=25)
@given(adapters(LINEAR, depth=2), st.integers(1, 9))
def test_an_annotation_holds_where_every_site_has_its_rank(
    pool: Pool, dense: Reference, tree: Tree, rank: int
) -> None:
    wanted = set(needed(dense, tree).values())
    for annotated in {rank, *wanted} - {0}:
        text = Writer().recipe(tree) + f"let z: lora(rank={annotated}) = x"
        errors = [d.code for d in pool.recipe(text).check() if d.severity == "error"]
        assert errors == ([] if wanted == {annotated} else ["PEM0316"])


@settings(LAWS, max_examples=50)
@given(adapters(LORA))
def test_no_rank_is_written_that_a_check_does_not_know(
    pool: Pool, dense: Reference, tree: Tree
) -> None:
    text = Writer().recipe(tree)
    path, built = pool.built(text + 'save x to "out" with reader=peft')
    promised, got, exact = pool.node(text).ranks, written(tensors_of(path)), dense.delta(tree)
    zero = [site for site, x in exact.items() if not x.value.any()]
    assert all(rank <= promised[site] or site in zero for site, rank in got.items())
    assert all(site in got for site in exact if site not in zero)
    assert built.rank == max(got.values())


@settings(LAWS, max_examples=25)
@given(st.sampled_from([ALL, Q]).flatmap(lambda sites: pairs(LORA, sites, 3)))
def test_parameter_wise_operators_keep_the_rank(pool: Pool, tree: Tree) -> None:
    text = Writer().recipe(tree)
    promised = pool.node(text).ranks
    assert set(promised.values()) == {LIKE_RANK}
    got = written(pool.evaluated(text))
    assert set(got.values()) <= {LIKE_RANK} or got == dict.fromkeys(promised, 1)


@settings(LAWS, max_examples=25)
@given(adapters(LORA, depth=2), st.integers(1, 4), st.booleans())
def test_compress_is_the_best_of_its_rank(
    pool: Pool, dense: Reference, tree: Tree, rank: int, option: bool
) -> None:
    text = Writer().recipe(tree)
    saved = (
        f'save x to "out" with rank={rank}' if option else f'save compress(x, rank={rank}) to "out"'
    )
    path, _ = pool.built(text + saved + f"{',' if option else ' with'} dtype=f64, reader=peft")
    got, kept = delta(path), written(tensors_of(path))
    before = pool.node(text).ranks
    for site, exact in dense.delta(tree).items():
        values = np.linalg.svd(exact.value, compute_uv=False)
        error = np.linalg.norm(got.get(site, 0.0) - exact.value)
        slack = 1e-5 * np.linalg.norm(exact.size)
        assert abs(error - np.linalg.norm(values[min(rank, before[site]) :])) <= slack
        assert kept.get(site, 0) <= max(1, min(rank, before[site]))


@settings(LAWS, max_examples=25)
@given(adapters(LORA, depth=2), st.sampled_from(["0.3", "0.5", "0.9", "0.999", "1"]))
def test_an_energy_is_kept_with_the_least_rank(
    pool: Pool, dense: Reference, tree: Tree, energy: str
) -> None:
    path, _ = pool.built(
        Writer().recipe(tree) + f'save x to "out" with energy={energy}, dtype=f64, reader=peft'
    )
    kept = written(tensors_of(path))
    for site, exact in dense.delta(tree).items():
        squares = np.linalg.svd(exact.value, compute_uv=False) ** 2
        if squares.sum() <= 1e-8 * np.linalg.norm(exact.size) ** 2:
            continue  # a cancellation: what is left is rounding
        shares = np.cumsum(squares) / squares.sum()
        rank = kept[site]
        assert shares[rank - 1] >= float(energy) - 1e-5
        assert rank == 1 or shares[rank - 2] < float(energy) + 1e-5


@pytest.mark.parametrize(
    ("text", "rank"),
    [
        ("a + a", 2),
        ("a - a + b", 2),
        ("a + b - (a + b) + r", 3),
        ("0 * a + b", 2),
        ("2 * a - 3 * b", 4),
        ("compress(a + b + r, rank=4)", 4),
        ("pad(a, rank=7) + b", 9),
        ("rescale(a, like=r)", 2),
        ("(a ⊕ b) + c", 4),
        ("0 ⊗ a", 2),
    ],
)
def test_the_rank_of(pool: Pool, text: str, rank: int) -> None:
    assert set(pool.node(declared("abcr") + f"let x = {text}").ranks.values()) == {rank}


@pytest.mark.parametrize(
    "x",
    [
        "compress(a + b, energy=0.3)",
        "2 * compress(a + b, energy=0.3)",
        "compress(a, energy=0.3) + b",
    ],
)
def test_a_pad_to_what_an_energy_keeps_at_most_is_a_pad(pool: Pool, x: str) -> None:
    path, _ = pool.built(declared("ab") + f'save pad({x}, rank=4) to "out"')
    assert set(written(tensors_of(path)).values()) == {4}


def test_patterns_say_the_ranks_and_alphas_of_a_join(pool: Pool, dense: Reference) -> None:
    x = 'join(p, a["*.q"])'
    path, _ = pool.built(declared("ap") + f'save {x} to "out"')
    config, pairs = config_of(path), pairs_in(path)
    assert set(config["rank_pattern"].values()) | {config["r"]} == {
        pair.a.value.shape[0] for pair in pairs.values()
    }
    exact = dense.delta(
        Tree("call", (leaf("p"), Tree("select", (leaf("a"),), ("globs", "*.q"))), ("join", {}))
    )
    assert all(
        np.allclose(x, exact[site].value, rtol=1e-5, atol=1e-5) for site, x in delta(path).items()
    )
