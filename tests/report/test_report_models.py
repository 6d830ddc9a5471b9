"""`pem report` of models and of recipes with models, against float64 NumPy."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import lora, pem, recipe
from support.models import POSITIONS, SHAPES, Weights, model, weights_of

BIG = {**SHAPES, "model.layers.0.mlp.down_proj.weight": (700, 900)}
SITE = "model.layers.0.self_attn.q_proj"
TEXT = """\
base b = "b"
model m on b = "m"
model n on b = "n"
save b + 0.5 * (m - b) + 0.3 * (n - b) to "out/sum"
save b + ties([m - b, n - b], density=0.5) to "out/ties"
save mean([m, n]) to "out/mean"
save m to "out/m"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model(tmp_path / "b", shapes=BIG)
    model(tmp_path / "m", 1, BIG)
    model(tmp_path / "n", 2, BIG, shards=3)
    return tmp_path


def figures(folder: Path, target: str, *more: str) -> dict[str, Any]:
    """What is measured of something, by name; and what of pairs."""
    done = pem("report", target, *more, "--format", "json", folder=folder)
    assert done.code == 0, done.err
    told: dict[str, Any] = json.loads(done.out)
    return told


def by_name(told: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each for each in told["figures"][-1]["adapters"]}


def norm(weights: Weights, layer: str = "") -> float:
    return float(np.sqrt(sum(np.sum(x**2) for name, x in weights.items() if layer in name)))


def apart(left: Weights, right: Weights) -> Weights:
    return {name: left[name] - right[name] for name in left}


def test_what_models_were_tuned_by_and_what_outputs_change(folder: Path) -> None:
    told = figures(folder, str(recipe(folder, TEXT)))
    assert pem("build", "recipe.pem", folder=folder).code == 0
    b, m, n = (weights_of(folder / name) for name in "bmn")
    built = {name: weights_of(folder / "out" / name) for name in ("sum", "ties", "mean")}
    expected: dict[str, Weights] = {"m − b": apart(m, b), "n − b": apart(n, b)}
    expected |= {f"out/{name}": apart(built[name], b) for name in ("sum", "ties")}
    expected |= {"out/mean": apart(built["mean"], m)}
    measured = by_name(told)
    assert measured.keys() == {*expected, "out/m"}
    assert measured["out/m"]["norm"] == 0
    for name, weights in expected.items():
        assert measured[name]["norm"] == pytest.approx(norm(weights), rel=1e-6)
        for layer in "01":
            wanted = norm(weights, f"layers.{layer}.")
            assert measured[name]["layers"][layer] == pytest.approx(wanted, rel=1e-6)
    [pair] = told["figures"][0]["likeness"]
    x, y = (
        np.concatenate([value.ravel() for _, value in sorted(expected[name].items())])
        for name in ("m − b", "n − b")
    )
    cosine = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    assert pair["cosine"] == pytest.approx(cosine, abs=1e-6)
    assert pair["sign_conflict"] == pytest.approx(float(np.mean(x * y < 0)), abs=1e-6)
    assert "Adapters and models" in told["sections"]


def test_a_model_alone(folder: Path) -> None:
    told = figures(folder, "n")
    assert told["sections"] == ["Model", "Norms", "Tensors"]
    weights = weights_of(folder / "n")
    assert by_name(told)["n"]["norm"] == pytest.approx(norm(weights), rel=1e-9)
    page = (folder / "report.html").read_text()
    assert "model.positions" in page and "700×900" in page and "‖W‖" in page


def test_two_models(folder: Path) -> None:
    told = figures(folder, "b", "m")
    assert told["sections"][0] == "What changed" and len(told["figures"]) == 2


def test_an_adapter_that_is_baked_and_one_that_is_extracted(folder: Path) -> None:
    lora(folder / "a", sites={SITE: (12, 12)}, base_model_name_or_path="b")
    text = TEXT + 'adapter a = "a"\nsave b + a to "out/baked"\n'
    text += f'save compress((m - b)["{SITE}.weight"], rank=3) to "out/cut"\n'
    measured = by_name(figures(folder, str(recipe(folder, text))))
    assert pem("build", "recipe.pem", folder=folder).code == 0
    changed = apart(weights_of(folder / "out/baked"), weights_of(folder / "b"))
    assert measured["out/baked"]["norm"] == pytest.approx(norm(changed), rel=1e-5)
    assert measured["a"]["norm"] == pytest.approx(norm(changed), rel=1e-5)
    assert 0 < measured["out/cut"]["norm"] < measured["m − b"]["norm"]
    assert len(measured["out/cut"]["lost_at_rank"]) == 4


def test_layers_that_are_numbered_anew_are_not_measured(tmp_path: Path) -> None:
    for seed, name in enumerate("mn"):
        file = model(tmp_path / name, seed, num_hidden_layers=2) / "model.safetensors"
        save_file({k: x for k, x in load_file(file).items() if k != POSITIONS}, file)
    text = 'model m = "m"\nmodel n = "n"\nsave stack(m[layers 0..0], n[layers 0..1]) to "tall"\n'
    told = figures(tmp_path, str(recipe(tmp_path, text)))
    assert told["figures"][0]["adapters"] == [] and "Norms" not in told["sections"]


@pytest.mark.parametrize("what", [lambda folder: "m", lambda folder: recipe(folder, TEXT)])
def test_numbers_that_are_none_are_said(folder: Path, what: Callable[[Path], object]) -> None:
    file = folder / "m" / "model.safetensors"
    with file.open("r+b") as opened:
        opened.seek(-4, 2)
        opened.write(b"\x00\x00\xc0\x7f")
    done = pem("report", str(what(folder)), folder=folder)
    assert done.code == 1 and "PEM0502" in done.err
    assert not (folder / "report.html").exists()


def test_memory_does_not_grow_with_the_tensors(tmp_path: Path) -> None:
    """Task arithmetic on tensors that in float64 take more than all that is taken."""
    shapes = {"layers.0.w": (4096, 4096)}
    for seed, name in enumerate("bmn"):
        model(tmp_path / name, seed, shapes, torch.bfloat16)
    path = recipe(tmp_path, TEXT.partition("save b + ties")[0])
    pem("report", "b", folder=tmp_path)
    (tmp_path / "report.html").unlink()
    tracemalloc.start()
    assert pem("report", path, folder=tmp_path).code == 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4096 * 4096 * 8


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    shapes = {**SHAPES, "<script>alert(1)</script>.weight": (3, 3), "\x1b[31m": (2,)}
    at = model(tmp_path / "<i>", 1, shapes, **{"<b>": "<img src=x onerror=alert(1)>"})
    assert pem("report", at, folder=tmp_path).code == 0
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in page and "<img src=x" not in page and "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in page
