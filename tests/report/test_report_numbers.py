"""The numbers of a report, against dense float64 NumPy."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Dense, build, delta, gains, lora, pem, recipe
from support.reports import TEXT

import pemlang
from pemlang.compare import (
    MeasuredAdapter,
    Measurements,
    measured,
    rows_looked_at,
    truncation_curve,
)


def measured_of(path: Path) -> Measurements:
    """The numbers of a recipe's adapters and outputs."""
    checked = pemlang.load(path).identified()
    adapters = [
        MeasuredAdapter(declared.name, "input", leaf) for leaf, declared in checked.leaves.items()
    ]
    adapters += [MeasuredAdapter(out.path, "output", out.node) for out in checked.outputs]
    return measured(checked.graph, adapters, lambda *_: None)


@pytest.fixture
def numbers(folder: Path) -> Measurements:
    return measured_of(recipe(folder, TEXT))


def by_name(numbers: Measurements, name: str) -> MeasuredAdapter:
    return next(adapter for adapter in numbers.norms if adapter.name == name)


def dense(folder: Path, name: str) -> Dense:
    """What an adapter of TEXT is, from the files."""
    if name in "ij":
        return {site: gain - 1 for site, gain in gains(folder / name).items()}
    if name == "out/gains":
        i, j = dense(folder, "i"), dense(folder, "j")
        return {site: i[site] + 0.5 * j[site] for site in i}
    if name in "abc":
        return delta(folder / name)
    a, b = delta(folder / "a"), delta(folder / "b")
    return {site: 0.5 * a[site] - 2 * b[site] for site in a}


@pytest.mark.parametrize("name", ["a", "b", "c", "i", "out/sum", "out/gains"])
def test_norms(folder: Path, numbers: Measurements, name: str) -> None:
    expected = {site: float(np.linalg.norm(value)) for site, value in dense(folder, name).items()}
    assert numbers.norms[by_name(numbers, name)] == pytest.approx(expected, rel=1e-6)


def test_norms_of_what_is_cut_are_those_of_what_is_built(
    folder: Path, numbers: Measurements
) -> None:
    build(folder, TEXT)
    expected = {s: float(np.linalg.norm(d)) for s, d in delta(folder / "out/cut").items()}
    assert numbers.norms[by_name(numbers, "out/cut")] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["a", "out/sum"])
def test_spectra_and_what_a_truncation_loses(
    folder: Path, numbers: Measurements, name: str
) -> None:
    spectra = numbers.spectra[by_name(numbers, name)]
    squares, total = np.zeros(17), 0.0
    for site, value in dense(folder, name).items():
        sigma = np.linalg.svd(value, compute_uv=False)
        assert spectra[site] == pytest.approx(sigma[: len(spectra[site])], rel=1e-5)
        squares[: len(sigma)] += sigma**2
        total += float(np.sum(value**2))
    curve = truncation_curve(spectra)
    expected = [np.sqrt(squares[k:].sum() / total) for k in range(len(curve))]
    assert curve == pytest.approx(np.array(expected), abs=1e-6)
    assert (curve[0], curve[-1]) == (pytest.approx(1), 0)


def flat(values: Dense, layer: str = "") -> Any:
    kept = [value.ravel() for site, value in sorted(values.items()) if f".{layer}" in site]
    return np.concatenate(kept)


@pytest.mark.parametrize("names", ["abc", "ij"])
def test_cosines_and_sign_conflicts(folder: Path, numbers: Measurements, names: str) -> None:
    [alike] = [group for group in numbers.alike if group.adapters[0].name in names]
    assert [adapter.name for adapter in alike.adapters] == list(names)
    layers = list(alike.products)
    for chosen, layer in [(layers, ""), (["1"], "1.")]:
        cosine, conflict = alike.cosine(chosen), alike.conflict(chosen)
        for (i, x), (j, y) in combinations(enumerate(names), 2):
            first, second = flat(dense(folder, x), layer), flat(dense(folder, y), layer)
            expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
            assert [cosine[i, j], cosine[j, i]] == pytest.approx([expected] * 2, abs=1e-6)
            assert conflict[i, j] == pytest.approx(np.mean(np.sign(first) * np.sign(second) < 0))
    assert not alike.sampled
    assert np.diagonal(alike.cosine(layers)) == pytest.approx(1)
    assert not np.diagonal(alike.conflict(layers)).any()


def test_signs_of_a_large_site_are_those_of_a_sample(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = {"layers.0.q_proj": (512, 64), "layers.1.q_proj": (16, 64)}
    lora(folder / "a", 1, sites, rank=8)
    lora(folder / "b", 2, sites, rank=8)
    monkeypatch.setattr("pemlang.compare.measure.TILE", 64 * 200)
    text = 'adapter a = "a"\nadapter b = "b"\nsave a + b to "x"\n'
    [alike] = measured_of(recipe(folder, text)).alike
    first, second = flat(delta(folder / "a")), flat(delta(folder / "b"))
    assert alike.sampled
    assert sum(alike.entries.values()) == first.size
    expected = np.mean(np.sign(first) * np.sign(second) < 0)
    assert alike.conflict(["0", "1"])[0, 1] == pytest.approx(expected, abs=0.02)
    rows = rows_looked_at(512, 64)
    assert len(rows) > 150
    assert np.diff(rows).max() <= 5


def test_a_zero_adapter_has_no_cosine(folder: Path) -> None:
    text = 'adapter a = "a"\nsave a - a to "zero"\nsave 2 * a to "x"\n'
    numbers = measured_of(recipe(folder, text))
    assert not any(numbers.norms[by_name(numbers, "zero")].values())
    assert pem("report", "recipe.pem", folder=folder).code == 0


def test_adapters_of_other_sites_or_methods_are_not_compared(folder: Path) -> None:
    lora(folder / "b", 1)
    text = 'adapter a = "a"\nadapter b = "b"\nadapter i = "i"\nsave 2 * a to "x"\n'
    assert measured_of(recipe(folder, text)).alike == []
    assert pem("report", "recipe.pem", folder=folder).code == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "No two adapters" in page.partition("<h2>Likeness</h2>")[2].partition("</section>")[0]


@pytest.mark.parametrize("alpha", [1e308, 1e160, 2e153])
def test_what_no_float_holds_is_said_and_nothing_else_reaches_the_terminal(
    tmp_path: Path, alpha: float
) -> None:
    lora(tmp_path / "large", 1, alpha=alpha)
    lora(tmp_path / "a", 2)
    commands = ["report large", "report large a", "diff large a", "diff a large"]
    for number in ("cosine(x, a)", "energy(x, rank=2)", "norm(x)"):
        text = f'adapter x = "large"\nadapter a = "a"\nsave {number} * a to "out"\n'
        recipe(tmp_path, text, f"{number[:4]}.pem")
        commands.append(f"build {number[:4]}.pem")
    for command in commands:
        done = pem(*command.split(), folder=tmp_path, process=True)
        assert done.code == 1
        assert re.match(r"error\[PEM0(503|331)\]: .* too large", done.err), (command, done)
        assert not re.search("Warning|DLASCL", done.text)
