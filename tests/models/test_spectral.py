"""Spectral methods on task vectors: each matrix by the published formula, written here in float64
NumPy; what is no matrix as the papers' code has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import build, codes, ia3, lora, recipe
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


# --- what holds of all ---------------------------------------------------------------------

EVERY = ["knots", "tsv", "iso_c", "iso_cts"]


@pytest.mark.parametrize("name", EVERY)
def test_threads_and_memory_do_not_change_a_bit(tuned: Path, name: str) -> None:
    text = f'{DECLARED}save b + {name}([m - b, n - b]) to "out"\n'
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
    text = f'{DECLARED}save b + {name}([0 * (m - b), 0 * (n - b)]) to "out"\n'
    [output] = build(tuned, text).outputs
    assert all((x == base[key]).all() for key, x in weights_of(output.path).items())
    half = merged(tuned, f"{name}([m - b, 0 * (n - b)])")
    assert all(np.isfinite(x).all() for x in half.values())


@pytest.mark.parametrize("name", [*EVERY, "extract_subtract"])
def test_gains_have_no_matrices(tmp_path: Path, name: str) -> None:
    for seed, at in enumerate("xy"):
        ia3(tmp_path / at, seed)
    operands = "x, y" if name == "extract_subtract" else "[x, y]"
    text = f'adapter x = "x"\nadapter y = "y"\nsave {name}({operands}) to "out"\n'
    assert codes(tmp_path, text) == ["PEM0311"]


@pytest.mark.parametrize("name", ["tsv", "iso_c", "iso_cts"])
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
        f'save b + {name}([x, y]) to "by_factors"\n'
        f'save b + {name}([m - b, n - b]) to "by_matrices"\n'
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
        text = f'{DECLARED}save b + {name}([m - b, n - b]) to "out"\n'
        loaded = pemlang.load(recipe(folder, text))
        with pytest.raises(pemlang.PemError) as refused:
            loaded.build(options=pemlang.BuildOptions(memory=100_000, threads=1))
        [told] = refused.value.diagnostics
        assert told.code == "PEM0521", told
        needed.append(told.message)
    assert needed[0] == needed[1]
