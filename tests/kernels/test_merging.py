"""What merges over Δ stand on: draws that no tile changes, tiles that change no bit, and a
randomised decomposition that is as good as it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support import build, delta, lora, recipe

import pemlang
from pemlang.execute import NATIVE
from pemlang.kernels import TOLERANCE, Builder, OverDeltas, drawn, truncated_svd

Dense = NDArray[np.floating]


def test_draws_are_the_same_from_any_place_on() -> None:
    whole = drawn((5, 1), 0, 1000)
    assert (drawn((5, 1), 640, 360) == whole[640:]).all()
    assert (drawn((5, 1), 8, 3) == whole[8:11]).all()
    assert (drawn((5, 0), 0, 1000) != whole).any()
    # Known numbers: a recipe's draws may not change with a release of NumPy.
    assert whole[:3].tolist() == KNOWN


KNOWN = [3922093189, 3082435850, 596248487]


def test_draws_are_even_and_apart() -> None:
    first, second = (drawn((seed, 0), 0, 1 << 16) / 2**32 for seed in (1, 2))
    assert abs(first.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


def test_tiles_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = {"layers.0.q": (96, 200)}
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed, sites)
    text = "".join(f'adapter {n} = "{n}"\n' for n in "ab")
    for i, call in enumerate(["ties([a, b], density=0.3", "dare_ties([a, b], density=0.3, seed=1"]):
        text += f'save {call}) to "o{i}" with rank=full, dtype=f32\n'
    path = recipe(tmp_path, text)
    whole = [delta(built.path)["layers.0.q"] for built in pemlang.load(path).build().outputs]
    monkeypatch.setattr("pemlang.kernels.steps.deltas.TILE", 3200)
    again = pemlang.load(path).build(tmp_path / "tiled").outputs
    parts = [delta(built.path)["layers.0.q"] for built in again]
    for at_once, tiled in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(at_once, tiled)


def spectrum(shape: tuple[int, int], values: Dense) -> Dense:
    rng = np.random.default_rng(3)
    u, v = (np.linalg.qr(rng.standard_normal((n, len(values))))[0] for n in shape)
    return np.asarray((u * values) @ v.T)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("kind", ["falling", "noise", "low rank over noise", "exact", "zero"])
def test_a_randomised_decomposition_is_as_good_as_it_says(kind: str, dtype: str) -> None:
    shape, k = (700, 900), 24
    noise = np.random.default_rng(1).standard_normal(shape)
    x = {
        "falling": spectrum(shape, 0.9 ** np.arange(300)),
        "noise": noise,
        "low rank over noise": spectrum(shape, np.full(24, 400.0)) + noise,
        "exact": spectrum(shape, 1.0 + np.arange(10)),
        "zero": np.zeros(shape),
    }[kind].astype(dtype)
    u, values, vt = truncated_svd(x, k, float(np.sum(x.astype("f8") ** 2)))
    best = np.linalg.svd(x.astype("f8"), compute_uv=False)
    least = np.linalg.norm(best[k:])
    lost = np.linalg.norm(x - (u * values) @ vt)
    assert lost <= least * (1 + TOLERANCE) + 1e-5 * max(1, best[0])
    assert np.allclose(u.T @ u, np.eye(u.shape[1]), atol=1e-4) or kind == "zero"


@pytest.mark.parametrize("kind", ["near", "zero", "apart", "hidden", "of rank 1"])
def test_whatever_it_is_told_is_near_it_is_as_good(kind: str) -> None:
    """A start that is wrong costs rounds, and never singular values."""
    rng = np.random.default_rng(4)

    def pair(rank: int, rows: slice, columns: slice, size: float) -> tuple[Dense, Dense]:
        a, b = np.zeros((rank, 900), "f4"), np.zeros((700, rank), "f4")
        a[:, columns] = rng.standard_normal(a[:, columns].shape)
        b[rows] = size * rng.standard_normal(b[rows].shape)
        return a, b

    first = pair(24, slice(0, 350), slice(0, 450), 1.0)
    second = pair(40, slice(350, 700), slice(450, 900), 1.0)
    x = (first[1] @ first[0] + second[1] @ second[0]).astype("f4")
    x *= np.random.default_rng(5).random(x.shape) < 0.7
    near = {
        "near": [first, second],
        "zero": [(0 * first[0], first[1])],
        "apart": [pair(24, slice(0, 700), slice(0, 900), 1.0)],
        "hidden": [(first[0], 2.0**30 * first[1]), (second[0], 0 * second[1])],
        "of rank 1": [pair(1, slice(0, 1), slice(0, 1), 1.0)],
    }[kind]
    k = 24
    _, values, _ = truncated_svd(x, k, float(np.sum(x.astype("f8") ** 2)), near)
    best = np.linalg.svd(x.astype("f8"), compute_uv=False)
    least = np.sum(best[k:] ** 2)
    assert np.sum(best**2) - np.sum(values**2) <= least * (1 + TOLERANCE) ** 2


def test_what_does_not_settle_is_decomposed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pemlang.kernels.sketch.ROUNDS", 1)
    for shape in ((700, 900), (900, 700)):
        x = np.random.default_rng(1).standard_normal(shape)
        u, values, vt = truncated_svd(x, 24, float(np.sum(x**2)))
        best = np.linalg.svd(x, compute_uv=False)
        assert np.allclose(values, best[:24])
        assert np.linalg.norm(x - (u * values) @ vt) <= np.linalg.norm(best[24:]) * (1 + 1e-9)


def test_a_site_that_is_large_is_merged_as_a_small_one_is(tmp_path: Path) -> None:
    """TIES over Δ through tiles and the randomised decomposition, against all of it in float64."""
    shape, rank = (1200, 900), 16
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed, {"layers.0.q": shape}, rank=8)
    text = 'adapter a = "a"\nadapter b = "b"\nsave ties([a, b], density=0.4) to "x" with '
    [built] = build(tmp_path, text + f"rank={rank}, dtype=f32\n").outputs
    xs = [delta(tmp_path / name)["layers.0.q"] for name in "ab"]
    trimmed = [x * (np.abs(x) >= np.sort(np.abs(x), axis=None)[-int(0.4 * x.size)]) for x in xs]
    sign = np.where(sum(trimmed) >= 0, 1, -1)
    mask = [np.sign(x) == sign for x in trimmed]
    whole = sum(x * m for x, m in zip(trimmed, mask, strict=True)) / np.maximum(sum(mask), 1)
    values = np.linalg.svd(whole, compute_uv=False)
    lost = np.linalg.norm(delta(built.path)["layers.0.q"] - whole)
    assert lost <= np.linalg.norm(values[rank:]) * (1 + 2 * TOLERANCE)
    assert built.loss is not None
    assert built.loss.total == pytest.approx(lost / np.linalg.norm(whole), rel=1e-3)


@pytest.mark.parametrize("rank", [1, 10, 24])
def test_what_has_no_more_than_the_rank_settles(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is rounding then, and no share of it; an exact decomposition of a large matrix
    would take minutes."""
    monkeypatch.setattr("pemlang.kernels.sketch._by_gram", None)
    rng = np.random.default_rng(rank)
    a, b = (rng.standard_normal(shape).astype("f4") for shape in ((rank, 900), (700, rank)))
    x = b @ a
    for near in ((), [(a, b)]):
        u, values, vt = truncated_svd(x, 24, float(np.sum(x.astype("f8") ** 2)), near)
        assert np.linalg.norm(x - (u * values) @ vt) <= 1e-5 * np.linalg.norm(x)


@pytest.mark.parametrize("rows", [1, 2, 6, 16])
def test_a_few_rows_are_counted_once(rows: int) -> None:
    """A basis that spans them all leaves rounding, which is no direction of its own."""
    for seed in range(8):
        rng = np.random.default_rng(100 * rows + seed)
        x = np.zeros((700, 900), "f4")
        x[rng.choice(700, rows, replace=False)] = rng.standard_normal((rows, 900))
        u, values, vt = truncated_svd(x, 16, float(np.sum(x.astype("f8") ** 2)))
        best = np.linalg.svd(x.astype("f8"), compute_uv=False)
        least = np.linalg.norm(best[16:])
        lost = np.linalg.norm(x - (u * values) @ vt)
        assert lost <= least * (1 + TOLERANCE) + 1e-5 * best[0]


def test_a_rank_beyond_what_stands_out_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half steps gain more and more there, and rounds less and less."""
    monkeypatch.setattr("pemlang.kernels.sketch._by_gram", None)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((16, 900)).astype("f4"), rng.standard_normal((800, 16)).astype("f4")
    x = (b @ a) * (rng.random((800, 900)) < 0.4).astype("f4")
    for k in (16, 24, 32, 64):
        _, values, _ = truncated_svd(x, k, float(np.sum(x.astype("f8") ** 2)), [(a, b)])
        best = np.linalg.svd(x.astype("f8"), compute_uv=False)
        lost = np.sum(best**2) - np.sum(values**2)
        assert lost <= np.sum(best[k:] ** 2) * (1 + TOLERANCE) ** 2


@pytest.mark.parametrize(("k", "others", "size"), [(1, 48, 1.65), (2, 64, 1.1), (1, 63, 1.2)])
def test_a_direction_that_nothing_near_has_is_not_passed_over(
    k: int, others: int, size: float
) -> None:
    """One that is larger than all others, as where weights of opposite signs leave little of what
    the adapters share."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        u, v = (np.linalg.qr(rng.standard_normal((n, others + 1)))[0] for n in (700, 900))
        sizes = np.append(np.arange(1, others + 1.0) ** -0.4, size)
        x = ((u * sizes) @ v.T).astype("f4")
        near = [(v[:, :-1].T.astype("f4"), (u * sizes)[:, :-1].astype("f4"))]
        left, values, right = truncated_svd(x, k, float(np.sum(x.astype("f8") ** 2)), near)
        lost = np.linalg.norm(x - (left * values) @ right)
        assert lost <= np.linalg.norm(np.sort(sizes)[:-k]) * (1 + TOLERANCE)


CALLS = [
    "ties([a, b, c], density=0.3",
    "dare_ties([a, b, c], density=0.5, seed=1",
    "della([a, b, c], density=0.5, epsilon=0.2, seed=1",
    "breadcrumbs([a, b, c], density=0.5, gamma=0.1",
    "sce([a, b, c], density=0.5",
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("shape", [(90, 401), (64, 96), (7, 33), (1, 5)])
def test_a_delta_kept_where_the_result_will_lie_is_the_one_that_is_formed(
    call: str, shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of any length, in several tiles: as over matrices that were formed before."""
    monkeypatch.setattr("pemlang.kernels.steps.deltas.TILE", 1200)
    for seed, name in enumerate("abc"):
        lora(tmp_path / name, seed, {"layers.0.q": shape}, rank=1)
    declared = "".join(f'adapter {name} = "{name}"\n' for name in "abc")
    path = recipe(tmp_path, f'{declared}save {call}, rank=1) to "out"\n')
    made, _ = pemlang.load(path).programs()
    [site] = made.plan.sites
    [step] = [step for step in site.program.steps if isinstance(step, OverDeltas)]
    constants = [site.constants[slot] for slot in step.constants]
    rng = np.random.default_rng(5)
    factors = [
        (rng.standard_normal((r, shape[1]), "f4"), rng.standard_normal((shape[0], r), "f4"))
        for r in (3, 1, 8)
    ]
    builder = Builder()
    builder.store(builder.load(0, "F32", ()), 0, "F32")
    [copy] = builder.calls()
    formed = [NATIVE.over_deltas(copy.program, [pair], [])[0] for pair in factors]
    np.testing.assert_array_equal(
        NATIVE.over_deltas(step.program, factors, constants)[0],
        NATIVE.over_arrays(step.program, formed, constants),
    )
