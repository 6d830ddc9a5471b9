"""Spectral methods and methods by overlap on task vectors: each matrix by the published formula,
written here in float64 NumPy; what is no matrix as the papers' code has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from support import build, codes, delta, ia3, lora, recipe, tensors_of
from support.models import DECLARED, model, weights_of

import pemlang

Dense = NDArray[np.float64]

CLOSE = 2e-6
SHAPES = {
    "model.embed_tokens.weight": (90, 12),
    "model.layers.0.mlp.up_proj.weight": (20, 14),
    "model.layers.0.mlp.down_proj.weight": (10, 33),
    "model.layers.0.mlp.gate_proj.weight": (16, 16),
    "model.layers.0.norm.weight": (12,),
    "model.layers.0.experts.weight": (3, 8, 6),
    "model.conv.weight": (6, 4, 3, 3),
    "model.row.weight": (1, 9),
    "model.column.weight": (7, 1),
}
LIST = "[m - b, n - b, k - b]"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three fine-tunes of it."""
    folder = tmp_path_factory.mktemp("tuned")
    for seed, name in enumerate("bmnk"):
        model(folder / name, seed, SHAPES)
    return folder


def merged(folder: Path, expression: str) -> dict[str, Dense]:
    """What a method adds to the base."""
    text = f'{DECLARED}model k on b = "k"\nsave b + {expression} to "out" with dtype=f64\n'
    [output] = build(folder, text).outputs
    base, out = weights_of(folder / "b"), weights_of(output.path)
    return {key: out[key] - base[key] for key in base}


def vectors(folder: Path) -> dict[str, list[Dense]]:
    base, *models = (weights_of(folder / name) for name in "bmnk")
    return {key: [x[key] - base[key] for x in models] for key in base}


# --- the formulas --------------------------------------------------------------------------


def svd(x: Dense) -> tuple[Dense, Dense, Dense]:
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    return u, s, vt


def whitened(x: Dense) -> Dense:
    """Procrustes: P·Qᵀ of x = P·D·Qᵀ."""
    p, _, qt = svd(x)
    return p @ qt


def tsv(xs: Sequence[Dense], weights: Sequence[float]) -> Dense:
    """TSV-Merge, algorithm 1."""
    k = max(1, min(xs[0].shape) // len(xs))
    us, vs, sizes = [], [], []
    for x, weight in zip(xs, weights, strict=True):
        u, s, vt = svd(x)
        us.append(u[:, :k])
        vs.append(vt[:k].T)
        sizes += list(weight * s[:k])
    return whitened(np.hstack(us)) @ np.diag(sizes) @ whitened(np.hstack(vs)).T


def iso_c(xs: Sequence[Dense], weights: Sequence[float]) -> Dense:
    """Iso-C, algorithm 1."""
    u, s, vt = svd(np.sum([w * x for w, x in zip(weights, xs, strict=True)], axis=0))
    return s.mean() * u @ vt


def iso_cts(xs: Sequence[Dense], weights: Sequence[float]) -> Dense:
    """Iso-CTS, algorithm 2, with 0.8 of the directions in common."""
    scaled = [w * x for w, x in zip(weights, xs, strict=True)]
    u, s, vt = svd(np.sum(scaled, axis=0))
    own = round((len(s) - int(len(s) * 0.8)) / len(xs))
    k = len(s) - own * len(xs)
    us, vs, sizes = [u[:, :k]], [vt[:k].T], list(s[:k])
    for x in scaled:
        own_u, own_s, own_vt = svd(x - us[0] @ us[0].T @ x)
        us.append(own_u[:, :own])
        vs.append(own_vt[:own].T)
        sizes += list(own_s[:own])
    return float(np.mean(sizes)) * whitened(np.hstack(us)) @ whitened(np.hstack(vs)).T


def mean(xs: Sequence[Dense], weights: Sequence[float]) -> Dense:
    return np.asarray(sum(w * x for w, x in zip(weights, xs, strict=True)) / len(xs))


FORMULAS: dict[str, Callable[[Sequence[Dense], Sequence[float]], Dense]] = {
    "tsv": tsv,
    "iso_c": iso_c,
    "iso_cts": iso_cts,
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 0.5, -0.25)])
def test_each_matrix_is_merged_by_the_formula(
    tuned: Path, name: str, weights: tuple[float, ...]
) -> None:
    out = merged(tuned, f"{name}({LIST}, weights={list(weights)}, scale=1.5)")
    for key, xs in vectors(tuned).items():
        wanted = 1.5 * (FORMULAS[name] if xs[0].ndim == 2 else mean)(xs, weights)
        assert np.abs(out[key] - wanted).max() < CLOSE, key


def test_knots_aligns_matrices_and_elects_signs_in_what_is_none(tuned: Path) -> None:
    """Of equal task vectors all of the basis agrees; elsewhere by the joint decomposition."""
    same = merged(tuned, "knots([m - b, m - b], density=1)")
    out = merged(tuned, f"knots({LIST}, density=1)")
    ties = merged(tuned, f"ties({LIST}, density=1)")
    for key, xs in vectors(tuned).items():
        assert np.abs(same[key] - xs[0]).max() < CLOSE, key
        if xs[0].ndim != 2:
            assert np.abs(out[key] - ties[key]).max() < CLOSE, key
            continue
        u, s, vt = svd(np.hstack(xs))
        signs = np.sign(u[np.abs(u).argmax(axis=0), range(len(s))])
        parts = np.split(signs[:, None] * vt, 3, axis=1)
        elected = np.where(np.sum(parts, axis=0) >= 0, 1, -1)
        agree = [np.sign(part) == elected for part in parts]
        total = np.sum([part * yes for part, yes in zip(parts, agree, strict=True)], axis=0)
        wanted = (u * signs * s) @ (total / np.maximum(np.sum(agree, axis=0), 1))
        assert np.abs(out[key] - wanted).max() < CLOSE, key


def test_extract_subtract_goes_by_rows(tuned: Path) -> None:
    out = merged(tuned, "extract_subtract(m - b, n - b)")
    for key, (x, y, _) in vectors(tuned).items():
        one_row = max(x.shape) == x.size
        for left, right, got in zip(
            *(z.reshape(1 if one_row else len(z), -1) for z in (x, y, out[key])), strict=True
        ):
            common = left / np.linalg.norm(left) + right / np.linalg.norm(right)
            common /= np.linalg.norm(common)
            assert np.abs(got - (left - right + (right @ common) * common)).max() < CLOSE, key


def disturbance(x: Dense, xs: Sequence[Dense]) -> float:
    """The loss of WUDI-Merging."""
    return sum(float(np.sum(((x - y) @ y.T) ** 2) / np.sum(y**2)) for y in xs)


def test_interference_is_that_loss_as_a_share(tuned: Path) -> None:
    """Over all tensors: a vector is a column, what has more axes is flattened to rows."""
    told = pemlang.load(recipe(tuned, f'{DECLARED}save b + (m - b) to "out"\n'))
    lost = whole = 0.0
    for first, second, _ in vectors(tuned).values():
        x, y = (z.reshape(len(z), -1) for z in (first, second))
        lost += disturbance(x, [y])
        whole += disturbance(0 * x, [y])
    assert told.measure("interference(m - b, n - b)") == pytest.approx(lost / whole, rel=1e-6)
    assert told.measure("interference(n - b, n - b)") == 0


@pytest.mark.parametrize("ridge", [0.01, 0.3])
def test_wudi_is_the_least_of_its_loss(tuned: Path, ridge: float) -> None:
    """As a problem of least squares: (Δ − Δᵢ)·Δᵢᵀ/‖Δᵢ‖ and √ρ·(Δ − mean) all at once."""
    out = merged(tuned, f"wudi({LIST}, ridge={ridge})")
    for key, xs in vectors(tuned).items():
        wanted = np.asarray(sum(xs)) / 3
        if xs[0].ndim == 2:
            units = [x / np.linalg.norm(x) for x in xs]
            left = np.vstack([*units, ridge**0.5 * np.eye(xs[0].shape[1])])
            right = [u @ x.T for u, x in zip(units, xs, strict=True)]
            right.append(ridge**0.5 * wanted.T)
            wanted = np.linalg.lstsq(left, np.vstack(right), rcond=None)[0].T
        assert np.abs(out[key] - wanted).max() < CLOSE, key


def test_wudi_disturbs_less_than_the_descent_of_its_authors(tuned: Path) -> None:
    """300 steps of Adam from the sum, as their code has it, here at a rate that suits the size of
    these vectors."""
    out = merged(tuned, f"wudi({LIST}, ridge=1e-6)")
    for key, arrays in vectors(tuned).items():
        if arrays[0].ndim != 2:
            continue
        xs = torch.tensor(np.stack(arrays))
        x = torch.nn.Parameter(xs.sum(dim=0))
        adam = torch.optim.Adam([x], lr=1e-2 * float(xs.std()))
        squares = xs.square().sum(dim=(1, 2), keepdim=True)
        for _ in range(300):
            adam.zero_grad()
            (((x - xs) @ xs.mT).square() / squares).sum().backward()
            adam.step()
        found = disturbance(x.detach().numpy(), arrays)
        assert disturbance(out[key], arrays) <= found + 1e-12
        assert found < disturbance(np.sum(arrays, axis=0), arrays)


@pytest.mark.parametrize(("alpha", "weight"), [(1.0, 1.0), (0.5, 0.5), (0.2, 1.0)])
def test_svc_scales_singular_values_by_the_formula(
    tuned: Path, alpha: float, weight: float
) -> None:
    out = merged(tuned, f"svc({weight} * sum({LIST}), {LIST}, alpha={alpha})")
    for key, xs in vectors(tuned).items():
        wanted = weight * np.sum(xs, axis=0)
        if wanted.ndim == 2:
            u, s, vt = svd(wanted)
            of_merge, of_each = u.T @ wanted, np.stack([u.T @ x for x in xs])
            shares = (of_merge * of_each).sum(axis=2) / (of_each**2).sum(axis=2)
            wanted = u @ np.diag(s / np.maximum(shares, alpha).mean(axis=0)) @ vt
        assert np.abs(out[key] - wanted).max() < CLOSE, key


def test_adapters_of_one_initialisation_do_not_blow_up(tmp_path: Path) -> None:
    """Two LoRAs whose A are nearly the same: what tells their rows apart is as small as rounding,
    and would be divided by."""
    sites = {"layers.0.q_proj": (30, 20)}
    lora(tmp_path / "x", 1, sites, 4)
    lora(tmp_path / "y", 2, sites, 4)
    x, y = (tensors_of(tmp_path / name) for name in "xy")
    [at] = [key for key in x if "lora_A" in key]
    y[at] = x[at] * (1 + 1e-3 * torch.sign(y[at]))
    save_file(y, tmp_path / "y" / "adapter_model.safetensors")
    text = 'adapter x = "x"\nadapter y = "y"\nsave wudi([x, y]) to "out" with dtype=f64\n'
    [output] = build(tmp_path, text).outputs
    sizes = [np.linalg.norm(delta(path)["layers.0.q_proj"])
             for path in (output.path, tmp_path / "x", tmp_path / "y")]  # fmt: skip
    assert sizes[0] <= max(sizes[1:])


# --- what holds of all ---------------------------------------------------------------------

EVERY = ["knots", "tsv", "iso_c", "iso_cts", "wudi", "svc"]


def call(name: str, *xs: str) -> str:
    """A use of a method on some adapters; of one that takes a merge of them, on their sum."""
    listed = f"[{', '.join(xs)}]"
    return f"svc(sum({listed}), {listed})" if name == "svc" else f"{name}({listed})"


@pytest.mark.parametrize("name", EVERY)
def test_threads_and_memory_do_not_change_a_bit(tuned: Path, name: str) -> None:
    text = f'{DECLARED}save b + {call(name, "m - b", "n - b")} to "out"\n'
    made = []
    for threads in (1, 2, 5):
        options = pemlang.BuildOptions(threads=threads, force=True)
        [output] = pemlang.load(recipe(tuned, text)).build(options=options).outputs
        made.append((output.path / "model.safetensors").read_bytes())
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("name", EVERY)
def test_what_is_not_changed_stays(tuned: Path, name: str) -> None:
    """Of zero task vectors, and where one of them is zero."""
    base = weights_of(tuned / "b")
    text = f'{DECLARED}save b + {call(name, "0 * (m - b)", "0 * (n - b)")} to "out"\n'
    [output] = build(tuned, text).outputs
    assert all((x == base[key]).all() for key, x in weights_of(output.path).items())
    half = merged(tuned, call(name, "m - b", "0 * (n - b)"))
    assert all(np.isfinite(x).all() for x in half.values())


@pytest.mark.parametrize("name", [*EVERY, "extract_subtract"])
def test_gains_have_no_matrices(tmp_path: Path, name: str) -> None:
    for seed, at in enumerate("xy"):
        ia3(tmp_path / at, seed)
    use = "extract_subtract(x, y)" if name == "extract_subtract" else call(name, "x", "y")
    text = f'adapter x = "x"\nadapter y = "y"\nsave {use} to "out"\n'
    assert codes(tmp_path, text) == ["PEM0311"]


@pytest.mark.parametrize("name", ["tsv", "iso_c", "iso_cts", "wudi", "svc"])
def test_a_lora_is_merged_as_the_matrix_that_it_is(tmp_path: Path, name: str) -> None:
    """The same by factors, and by the whole matrices that two models tuned so differ by."""
    sites = {"layers.0.q_proj": (14, 10), "layers.0.k_proj": (9, 12)}
    shapes = {f"model.{site}.weight": shape for site, shape in sites.items()}
    model(tmp_path / "b", 0, shapes, torch.float64)
    for seed, at in enumerate("xy"):
        lora(
            tmp_path / at,
            seed,
            {f"model.{site}": shape for site, shape in sites.items()},
            3,
            base_model_name_or_path=...,
        )
    head = 'base b = "b"\nadapter x = "x"\nadapter y = "y"\n'
    build(tmp_path, f'{head}save b + x to "m"\nsave b + y to "n"\n')
    text = (
        f'{head}model m on b = "m"\nmodel n on b = "n"\n'
        f'save b + {call(name, "x", "y")} to "by_factors"\n'
        f'save b + {call(name, "m - b", "n - b")} to "by_matrices"\n'
    )
    by_factors, by_matrices = (weights_of(out.path) for out in build(tmp_path, text).outputs)
    for key, wanted in by_factors.items():
        assert np.abs(by_matrices[key] - wanted).max() < CLOSE, key


@pytest.mark.parametrize("name", EVERY)
def test_a_plan_has_room_for_the_largest_matrix(tmp_path: Path, name: str) -> None:
    """The room goes by that matrix, not by the model; a budget without it is refused."""
    needed = []
    for layers in (1, 4):
        folder = tmp_path / str(layers)
        shapes = {f"model.layers.{n}.up_proj.weight": (96, 64) for n in range(layers)}
        for seed, at in enumerate("bmn"):
            model(folder / at, seed, shapes)
        text = f'{DECLARED}save b + {call(name, "m - b", "n - b")} to "out"\n'
        loaded = pemlang.load(recipe(folder, text))
        with pytest.raises(pemlang.PemError) as refused:
            loaded.build(options=pemlang.BuildOptions(memory=100_000, threads=1))
        [told] = refused.value.diagnostics
        assert told.code == "PEM0521", told
        needed.append(told.message)
    assert needed[0] == needed[1]
