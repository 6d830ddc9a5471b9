"""A rank in a recipe is an upper bound: a module with less room gets what it has room for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import PREFIX, codes, config_of, delta, error, lora, pem, recipe, tensors_of
from support.adapters import SITES, Dense
from support.peft_made import composed, declared

SMALL = "encoder.classifier"
WITH_SMALL = SITES | {SMALL: (4, 16)}


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Path]:
    return {name: lora(tmp_path / name, seed, WITH_SMALL, 6) for seed, name in enumerate("ab")}


def ranks(directory: Path) -> dict[str, int]:
    factors = {key.removeprefix(PREFIX): x for key, x in tensors_of(directory).items()}
    end = ".lora_A.weight"
    return {key.removesuffix(end): len(x) for key, x in factors.items() if key.endswith(end)}


def best(matrices: Dense, rank: int) -> Dense:
    """The best approximations of a rank, by NumPy's SVD."""
    cut = {}
    for site, matrix in matrices.items():
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        cut[site] = (u[:, :rank] * s[:rank]) @ v[:rank]
    return cut


@pytest.mark.parametrize(
    ("expression", "options"),
    [("a + b", "rank=8, reader=peft"), ("compress(a + b, rank=8)", "reader=peft")],
)
def test_a_rank_is_an_upper_bound(
    pair: dict[str, Path], tmp_path: Path, expression: str, options: str
) -> None:
    out = composed(tmp_path, pair, expression, options)
    a, b = (delta(path) for path in pair.values())
    wanted = best({site: a[site] + b[site] for site in a}, 8)
    assert ranks(out) == {site: 4 if site == SMALL else 8 for site in WITH_SMALL}
    for site, matrix in delta(out).items():
        assert np.allclose(matrix, wanted[site], atol=1e-4)


def test_a_method_over_entries_is_cut_to_what_there_is_room_for(
    pair: dict[str, Path], tmp_path: Path
) -> None:
    whole = delta(composed(tmp_path / "whole", pair, "ties([a, b], density=0.5, rank=full)"))
    expression = "ties([a, b], density=0.5, rank=8)"
    out = composed(tmp_path / "cut", pair, expression, "reader=peft")
    wanted = best(whole, 8)
    assert ranks(out)[SMALL] == 4
    for site, matrix in delta(out).items():
        assert np.allclose(matrix, wanted[site], atol=1e-3)


def test_it_is_said_once(pair: dict[str, Path], tmp_path: Path) -> None:
    text = declared(pair)
    assert codes(tmp_path, text + 'save a + b to "out" with rank=8') == ["PEM0708"]
    assert codes(tmp_path, text + 'save a + b to "out" with rank=4') == []
    assert error(tmp_path, text + 'save a + b to "out" with rank=17').code == "PEM0310"
    result = pem("build", recipe(tmp_path, text + 'save a + b to "out" with rank=8\n'))
    assert result.code == 0 and result.err.count("PEM0708") == 1


def test_pad_fills_up_a_rank_by_energy(tmp_path: Path) -> None:
    """Where what is cut had the rank that is asked for, the cut has less than that."""
    adapters = {"x": lora(tmp_path / "x", 1, rank=12)}
    cut = composed(tmp_path / "cut", adapters, "compress(x, energy=0.9)", "reader=peft")
    out = composed(tmp_path / "out", adapters, "pad(compress(x, energy=0.9), rank=12)")
    assert max(ranks(cut).values()) < 12 and set(ranks(out).values()) == {12}
    assert config_of(out)["r"] == 12 and config_of(out)["rank_pattern"] == {}
    ours, theirs = delta(out), delta(cut)
    assert all(np.allclose(ours[site], theirs[site], atol=1e-6) for site in theirs)
