"""Measures against dense float64 arithmetic: on drawn expressions, and on adapters that are zero,
of one site, of a rank above min(out, in), or badly conditioned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import delta, lora, save, tensors_of
from support.laws.arrays import Sized, row_overlap
from support.laws.drawing import IA3, LORA, World, adapters, leaves
from support.laws.expressions import Tree, Writer, call, leaf
from support.laws.pool import ALL, GAIN, LAWS, Pool, Q, V, declared
from support.laws.reference import Reference

PLAIN = World(LORA.leaves, LORA.sets, LORA.selectors, measured=False)
ONE_SITE = {"m.layers.0.q": (6, 8)}
PREFIX = "base_model.model.m.layers.0.q.lora_"


def close(got: float, wanted: Sized) -> bool:
    """Within what float32 inputs allow: a share of the size of the terms."""
    return abs(got - wanted.value) <= 1e-5 * wanted.size + 1e-12


@settings(LAWS, max_examples=40)
@given(st.sampled_from([ALL, Q, V]).flatmap(lambda s: st.tuples(*[adapters(PLAIN, s, 2)] * 2)))
def test_norm_and_distance_of_expressions(
    pool: Pool, dense: Reference, trees: tuple[Tree, Tree]
) -> None:
    got = pool.numbers(Writer().recipe(*trees), "norm(x)", "distance(x, y)", "distance(y, x)")
    wanted = [dense.measure(call("norm", trees[0])), dense.measure(call("distance", *trees))]
    assert close(got[0], wanted[0])
    assert close(got[1], wanted[1])
    assert got[1] == pytest.approx(got[2], rel=1e-12)


@settings(LAWS, max_examples=25)
@given(st.tuples(*[adapters(World(**{**vars(IA3), "measured": False}), GAIN, 2)] * 2))
def test_norm_and_distance_of_gains(pool: Pool, dense: Reference, trees: tuple[Tree, Tree]) -> None:
    got = pool.numbers(Writer().recipe(*trees), "norm(x)", "distance(x, y)")
    assert close(got[0], dense.measure(call("norm", trees[0])))
    assert close(got[1], dense.measure(call("distance", *trees)))


@settings(LAWS, max_examples=50)
@given(
    st.sampled_from([LORA, IA3]).flatmap(
        lambda world: st.sampled_from(world.sets).flatmap(
            lambda sites: st.tuples(*[leaves(world, sites)] * 2)
        )
    ),
    st.sampled_from(["1", "-1", "0.25", "-3"]),
)
def test_cosine(pool: Pool, dense: Reference, trees: tuple[Tree, Tree], by: str) -> None:
    cosines = ["cosine(x, y)", "cosine(y, x)", f"cosine({by} * x, y)"]
    cosines += ["cosine(x, x)", "cosine(x, -x)"]
    got = pool.numbers(Writer().recipe(*trees), *cosines)
    wanted = dense.measure(call("cosine", *trees))
    sign = np.sign(float(by))
    assert close(got[0], wanted)
    assert got[:3] == pytest.approx([got[0], got[0], sign * got[0]], abs=1e-6)
    assert got[3:] == pytest.approx([1, -1], abs=1e-9)


@settings(LAWS, max_examples=40)
@given(
    st.sampled_from(LORA.sets).flatmap(lambda s: st.lists(leaves(LORA, s), min_size=1, max_size=3))
)
def test_energy_rank_and_overlap(pool: Pool, dense: Reference, trees: list[Tree]) -> None:
    """Of sums of adapters: their singular values are well apart."""
    total = trees[0]
    for tree in trees[1:]:
        total = Tree("+", (total, tree))
    numbers = [f"energy(x, rank={k})" for k in range(1, 5)]
    numbers += ["rank(x)", "rank(pad(x, rank=20))", "init_overlap(x, y)", "init_overlap(y, x)"]
    numbers += ["init_overlap(x, x)", "init_overlap(x, 2 * x)"]
    got = pool.numbers(Writer().recipe(total, trees[0]), *numbers)
    for k in range(1, 5):
        assert close(got[k - 1], dense.measure(call("energy", total, rank=k)))
    values = [np.linalg.svd(x.value, compute_uv=False) for x in dense.delta(total).values()]
    assert got[4:6] == [max(int((s > 1e-6 * s[0]).sum()) for s in values)] * 2
    terms = dense.pair(trees[0])
    stacks = {s: np.concatenate([dense.pair(t)[s].a.value for t in trees]) for s in terms}
    overlap = np.mean([row_overlap(stacks[s], terms[s].a.value) for s in terms])
    assert got[6:] == pytest.approx([overlap, overlap, 1, 1], abs=1e-6)


def interference(xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> float:
    """‖(Δx − Δy)·Δyᵀ‖²/‖Δy‖² over all sites, as a share of what Δx = 0 gives."""
    lost = [np.sum(((x - y) @ y.T) ** 2) / np.sum(y**2) for x, y in zip(xs, ys, strict=True)]
    return float(sum(lost) / sum(np.sum((y @ y.T) ** 2) / np.sum(y**2) for y in ys))


@settings(LAWS, max_examples=40)
@given(st.sampled_from(LORA.sets).flatmap(lambda s: st.tuples(*[leaves(LORA, s)] * 2)))
def test_interference(pool: Pool, dense: Reference, trees: tuple[Tree, Tree]) -> None:
    numbers = ["interference(x, y)", "interference(x + y, y)", "interference(x, x)"]
    numbers += ["interference(0 * x, y)", "interference(-y, y)", "interference(2 * x, 2 * y)"]
    got = pool.numbers(Writer().recipe(*trees), *numbers)
    x, y = ([site.value for site in dense.delta(tree).values()] for tree in trees)
    both = [one + other for one, other in zip(x, y, strict=True)]
    wanted = [interference(x, y), interference(both, y), 0, 1, 4]
    assert got == pytest.approx([*wanted, wanted[0]], rel=1e-5, abs=1e-9)


# --- adapters made to be hard --------------------------------------------------------------


def factors(folder: Path, name: str, b: np.ndarray, a: np.ndarray, **config: object) -> None:
    """A LoRA of one site with these factors, in float64."""
    tensors = {f"{PREFIX}A.weight": torch.as_tensor(a), f"{PREFIX}B.weight": torch.as_tensor(b)}
    fields = {"peft_type": "LORA", "r": len(a), "lora_alpha": len(a), "target_modules": ["q"]}
    fields["base_model_name_or_path"] = "some/base"
    save(folder / name, tensors, fields | config)


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Adapters of one site (6, 8) and one zero adapter on more."""
    folder, rng = tmp_path_factory.mktemp("hard"), np.random.default_rng(5)
    b, a = rng.normal(size=(6, 1)), rng.normal(size=(1, 8))
    other = rng.normal(size=(1, 8))
    for power in (3, 6):
        # Δ = ε·small·a, as the difference of two terms that are 1/ε larger.
        small = rng.normal(size=(6, 1))
        two = np.concatenate([b + 10.0**-power * small, -b], axis=1)
        factors(folder, f"cancels{power}", two, np.concatenate([a, a]))
        grades = np.logspace(0, -power, 4)
        factors(folder, f"graded{power}", rng.normal(size=(6, 4)) * grades, rng.normal(size=(4, 8)))
    factors(folder, "zero", np.zeros((6, 2)), rng.normal(size=(2, 8)))
    factors(folder, "wide", rng.normal(size=(6, 11)), rng.normal(size=(11, 8)))
    factors(folder, "repeated", rng.normal(size=(6, 3)), np.concatenate([a, a, other]))
    factors(folder, "plain", rng.normal(size=(6, 2)), np.concatenate([a, rng.normal(size=(1, 8))]))
    factors(folder, "nothing", rng.normal(size=(6, 2)), np.zeros((2, 8)))
    return Pool(folder)


HARD = ["cancels3", "cancels6", "graded3", "graded6", "wide", "repeated", "plain"]


def dense_of(pool: Pool, name: str) -> np.ndarray:
    [site] = delta(pool.folder / name).values()
    return site


def row_space(pool: Pool, name: str) -> np.ndarray:
    return tensors_of(pool.folder / name)[f"{PREFIX}A.weight"].numpy()


@pytest.mark.parametrize("x", HARD)
@pytest.mark.parametrize("y", HARD)
def test_measures_of_hard_adapters(hard: Pool, x: str, y: str) -> None:
    dx, dy = dense_of(hard, x), dense_of(hard, y)
    numbers = [f"norm({x})", f"cosine({x}, {y})", f"init_overlap({x}, {y})"]
    numbers += [f"energy({x}, rank={k})" for k in (1, 2, 20)]
    numbers += [f"interference({x}, {y})"]
    got = hard.numbers(declared([x, y]), *numbers)
    values = np.linalg.svd(dx, compute_uv=False) ** 2
    wanted = [
        np.linalg.norm(dx),
        np.sum(dx * dy) / np.linalg.norm(dx) / np.linalg.norm(dy),
        row_overlap(row_space(hard, x), row_space(hard, y)),
        *(values[:k].sum() / values.sum() for k in (1, 2, 20)),
        interference([dx], [dy]),
    ]
    assert got == pytest.approx(wanted, rel=1e-8, abs=1e-8)
    [apart] = hard.numbers(declared([x, y]), f"distance({x}, {y})")
    assert apart == pytest.approx(np.linalg.norm(dx - dy), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "rank"),
    [("graded6", 4), ("wide", 6), ("repeated", 2), ("zero", 0), ("plain", 2)],
)
def test_rank_is_that_of_the_change(hard: Pool, name: str, rank: int) -> None:
    assert hard.numbers(declared([name]), f"rank({name})") == [rank]


ZERO = ["zero", "nothing", "0 * plain", "plain - plain", "distance(plain, plain) * plain"]


@pytest.mark.parametrize("zero", ZERO)
def test_measures_of_a_zero_adapter(hard: Pool, zero: str) -> None:
    text = declared(["zero", "nothing", "plain"]) + f"let z = {zero}"
    numbers = ["norm(z)", "distance(z, z)", "rank(z)", "energy(z, rank=1)", "distance(plain, z)"]
    norm = np.linalg.norm(dense_of(hard, "plain"))
    assert hard.numbers(text, *numbers) == pytest.approx([0, 0, 0, 1, norm])
    for pair in ("plain, z", "z, plain", "z, z"):
        assert hard.error(f'{text}\nsave cosine({pair}) * plain to "out"') == "PEM0504"
    assert hard.numbers(text, "interference(z, plain)") == pytest.approx([1])
    for pair in ("plain, z", "z, z"):
        assert hard.error(f'{text}\nsave interference({pair}) * plain to "out"') == "PEM0504"


def test_overlap_is_of_row_spaces_alone(hard: Pool) -> None:
    """Zero B does not matter to it, zero A leaves nothing to be alike, a zero term is no term."""
    text = declared(["zero", "nothing", "plain"])
    overlaps = ["init_overlap(zero, zero)", "init_overlap(nothing, plain)"]
    overlaps += ["init_overlap(0 * plain, plain)", "init_overlap(plain, pad(plain, rank=5))"]
    assert hard.numbers(text, *overlaps) == pytest.approx([1, 0, 0, 1])


def test_a_measure_is_over_all_sites(pool: Pool, dense: Reference, tmp_path: Path) -> None:
    lora(tmp_path / "one", 0, ONE_SITE, 2, 4)
    [site] = delta(tmp_path / "one").values()
    [norm] = Pool(tmp_path).numbers(declared(["one"]), "norm(one)")
    assert norm == pytest.approx(np.linalg.norm(site), rel=1e-6)
    parts = [f'norm(a["{site}"])' for site in sorted(ALL)]
    whole, *norms = pool.numbers(declared("a"), "norm(a)", *parts)
    assert whole == pytest.approx(np.linalg.norm(norms), rel=1e-12)
    wanted = [np.linalg.norm(dense.delta(leaf("a"))[site].value) for site in sorted(ALL)]
    assert norms == pytest.approx(wanted, rel=1e-6)
