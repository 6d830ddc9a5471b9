"""`with rank=k` and `compress` against the SVD of the dense Δ, in float64."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import PREFIX, SITES, Dense, build, config_of, delta, error, lora, save, tensors_of
from support.peft_made import declared

from pemlang.artifact import Built

SITE = "layer.0.fc"


def saved(folder: Path, adapters: dict[str, Path], save: str) -> Built:
    """The one output of a recipe."""
    [built] = build(folder, declared(adapters) + save).outputs
    return built


def best(dense: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """The nearest matrix of a rank (Eckart and Young), by the SVD of the whole."""
    u, values, vt = np.linalg.svd(dense, full_matrices=False)
    return (u[:, :rank] * values[:rank]) @ vt[:rank]


def held(built: Built, whole: Dense, rank: int, tolerance: float = 1e-5) -> None:
    """An output is the best of its rank at every site, and its loss is the true one."""
    ours = delta(built.path)
    assert ours.keys() == whole.keys()
    lost = {}
    for site, dense in whole.items():
        size = np.linalg.norm(dense)
        assert np.linalg.norm(ours[site] - best(dense, rank)) <= tolerance * size
        lost[site] = float(np.linalg.norm(dense - best(dense, rank)))
    assert built.loss is not None
    norms = {site: float(np.linalg.norm(dense)) for site, dense in whole.items()}
    assert built.loss.sites == pytest.approx({s: lost[s] / norms[s] for s in whole}, rel=1e-6)
    total = math.hypot(*lost.values()) / math.hypot(*norms.values())
    assert built.loss.total == pytest.approx(total, rel=1e-6)


def total(*parts: tuple[float, Dense]) -> Dense:
    return {site: sum(c * part[site] for c, part in parts) for site in parts[0][1]}  # type: ignore[misc]


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Path]:
    """Two LoRAs of unequal rank and scale that share no initialisation."""
    return {
        "a": lora(tmp_path / "a", 1, rank=4, alpha=8),
        "b": lora(tmp_path / "b", 2, rank=3, alpha=1, init=9),
    }


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_a_rank_is_the_best_of_that_rank(tmp_path: Path, pair: dict[str, Path], rank: int) -> None:
    built = saved(tmp_path, pair, f'save a - 0.7 * b to "out" with rank={rank}, dtype=f64')
    whole = total((1, delta(pair["a"])), (-0.7, delta(pair["b"])))
    held(built, whole, rank)
    assert (built.rank, config_of(built.path)["r"]) == (rank, rank)


def test_compress_in_the_middle_of_an_expression(tmp_path: Path, pair: dict[str, Path]) -> None:
    built = saved(tmp_path, pair, 'save 3 * compress(a + b, rank=2) - a to "out" with dtype=f64')
    whole, a = total((1, delta(pair["a"])), (1, delta(pair["b"]))), delta(pair["a"])
    for site, ours in delta(built.path).items():
        wanted = 3 * best(whole[site], 2) - a[site]
        assert np.linalg.norm(ours - wanted) <= 1e-6 * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)]
)
def test_every_dtype(tmp_path: Path, dtype: torch.dtype, tolerance: float) -> None:
    pair = {
        name: lora(tmp_path / name, seed, rank=4, dtype=dtype, use_rslora=True, init=seed)
        for seed, name in enumerate("ab")
    }
    built = saved(tmp_path, pair, 'save a + b to "out" with rank=5')
    held(built, total((1, delta(pair["a"])), (1, delta(pair["b"]))), 5, tolerance)
    assert {tensor.dtype for tensor in tensors_of(built.path).values()} == {dtype}


def ill(seed: int) -> dict[str, torch.Tensor]:
    """Factors whose rows span nine orders of magnitude, and nearly depend on each other."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(6, 20)) * np.logspace(-5, 4, 6)[:, None]
    a[3] = a[2] + 1e-7 * a[3]
    b = rng.normal(size=(15, 6)) * np.logspace(3, -4, 6)
    return {
        f"{PREFIX}{SITE}.lora_A.weight": torch.from_numpy(a),
        f"{PREFIX}{SITE}.lora_B.weight": torch.from_numpy(b),
    }


CONFIG = {"peft_type": "LORA", "target_modules": ["fc"], "base_model_name_or_path": "some/base"}


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_ill_conditioned_factors(tmp_path: Path, rank: int) -> None:
    config = CONFIG | {"r": 6, "lora_alpha": 0.3}
    pair = {name: save(tmp_path / name, ill(seed), config) for seed, name in enumerate("ab")}
    built = saved(tmp_path, pair, f'save a + b to "out" with rank={rank}')
    whole = total((1, delta(pair["a"])), (1, delta(pair["b"])))
    size = np.linalg.norm(whole[SITE])
    lost = np.linalg.norm(whole[SITE] - best(whole[SITE], rank))
    assert np.linalg.norm(delta(built.path)[SITE] - best(whole[SITE], rank)) <= 1e-12 * size
    assert built.loss is not None
    assert built.loss.total == pytest.approx(lost / size, rel=1e-6, abs=1e-14)


def spectrum(directory: Path, *values: float) -> Path:
    """A LoRA of one site with these singular values, of scale 1/2."""
    rng = np.random.default_rng(5)
    n = len(values)
    u, v = (np.linalg.qr(rng.normal(size=(size, n)))[0] for size in (9, 7))
    tensors = {
        f"{PREFIX}{SITE}.lora_A.weight": torch.from_numpy((v * np.sqrt(values)).T),
        f"{PREFIX}{SITE}.lora_B.weight": torch.from_numpy(2 * u * np.sqrt(values)),
    }
    return save(directory, tensors, CONFIG | {"r": n, "lora_alpha": n / 2})


@pytest.mark.parametrize(
    ("energy", "rank"),
    [(0.5, 1), (16 / 21, 1), (0.77, 2), (20 / 21, 2), (0.953, 3), (1, 3)],
)
def test_energy_takes_the_least_rank_that_keeps_it(
    tmp_path: Path, energy: float, rank: int
) -> None:
    a = spectrum(tmp_path / "a", 4, 2, 1)  # squares 16, 4, 1
    built = saved(tmp_path, {"a": a}, f'save a to "out" with energy={energy!r}')
    assert built.rank == rank
    assert np.linalg.matrix_rank(delta(built.path)[SITE]) == rank


def test_energy_chooses_a_rank_for_each_site(tmp_path: Path, pair: dict[str, Path]) -> None:
    built = saved(tmp_path, pair, 'save compress(a + b, energy=0.9) to "out" with reader=peft')
    config = config_of(built.path)
    for site, dense in total((1, delta(pair["a"])), (1, delta(pair["b"]))).items():
        squares = np.linalg.svd(dense, compute_uv=False) ** 2
        least = int(np.argmax(np.cumsum(squares) >= 0.9 * squares.sum())) + 1
        rank = tensors_of(built.path)[f"{PREFIX}{site}.lora_A.weight"].shape[0]
        assert rank == least == config["rank_pattern"].get(site, config["r"])
        near = np.linalg.norm(delta(built.path)[site] - best(dense, least))
        assert near <= 1e-5 * np.linalg.norm(dense)


@pytest.mark.parametrize(("tail", "warned"), [(0.0099, []), (0.0102, ["PEM0702"])])
def test_more_than_one_percent_lost_is_a_warning(
    tmp_path: Path, tail: float, warned: list[str]
) -> None:
    a = spectrum(tmp_path / "a", 1, tail)
    result = build(tmp_path, declared({"a": a}) + 'save a to "out" with rank=1')
    assert [warning.code for warning in result.warnings] == warned
    [built] = result.outputs
    assert built.loss is not None
    assert built.loss.total == pytest.approx(tail / math.hypot(1, tail), rel=1e-6)


def test_a_tie_of_singular_values(tmp_path: Path) -> None:
    a = spectrum(tmp_path / "a", 2, 2, 2)
    built = saved(tmp_path, {"a": a}, 'save a to "out" with rank=2')
    whole, cut = delta(a)[SITE], delta(built.path)[SITE]
    assert np.linalg.norm(whole - cut) == pytest.approx(2)
    assert np.linalg.svd(cut, compute_uv=False)[:3] == pytest.approx([2, 2, 0], abs=1e-12)
    first = (built.path / "adapter_model.safetensors").read_bytes()
    saved(tmp_path, {"a": a}, 'save a to "out" with rank=2')
    assert (built.path / "adapter_model.safetensors").read_bytes() == first


def test_a_site_that_is_zero(tmp_path: Path, pair: dict[str, Path]) -> None:
    zero, *others = SITES
    tensors = tensors_of(pair["a"])
    tensors[f"{PREFIX}{zero}.lora_B.weight"] *= 0
    pair["a"] = save(tmp_path / "z", tensors, config_of(pair["a"]))
    built = saved(tmp_path, pair, 'save a - per { "' + zero + '": 0, else: 1 } * b to "out" '
                  "with rank=2")  # fmt: skip
    cut = delta(built.path)
    assert not cut[zero].any()
    assert built.loss is not None
    assert built.loss.sites[zero] == 0
    whole = total((1, delta(pair["a"])), (-1, delta(pair["b"])))
    for site in others:
        near = np.linalg.norm(cut[site] - best(whole[site], 2))
        assert near <= 1e-5 * np.linalg.norm(whole[site])


def test_a_scale_of_zero(tmp_path: Path) -> None:
    a = lora(tmp_path / "a", rank=4, alpha=0)
    built = saved(tmp_path, {"a": a}, 'save a to "out" with rank=2')
    assert not any(dense.any() for dense in delta(built.path).values())
    assert built.loss is not None
    assert built.loss.total == 0


@pytest.mark.parametrize("option", ["with rank=13", "with rank=20"])
def test_a_rank_above_the_matrix_is_an_error_with_the_rank_to_write(
    tmp_path: Path, pair: dict[str, Path], option: str
) -> None:
    refusal = error(tmp_path, declared(pair) + f'save a + b to "out" {option}')
    assert refusal.code == "PEM0310"
    help_ = re.search(r"rank=\d+", refusal.help or "")
    assert help_ is not None
    built = saved(tmp_path, pair, f'save a + b to "out" with {help_[0]}')
    assert refusal.help == 'save a + b to "out" with rank=12'
    assert built.loss is None  # the sum has rank 7


def test_a_rank_that_is_there_already_changes_nothing(
    tmp_path: Path, pair: dict[str, Path]
) -> None:
    built = saved(tmp_path, pair, 'save a to "out" with rank=4')
    ours, theirs = tensors_of(built.path), tensors_of(pair["a"])
    assert built.loss is None
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert (config_of(built.path)["lora_alpha"], config_of(built.path)["r"]) == (8, 4)
