"""AdaLoRA, LoHa and LoKr of PEFT: the same Δ as PEFT's at every site, in float64, through sums,
negation, truncation and measures; baked as PEFT merges them."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import AdaLoraConfig, LoHaConfig, LoKrConfig, PeftConfig, PeftModel
from safetensors.torch import load_file, save_file
from support import config_of, error, pem, tensors_of
from support.peft_made import made
from torch import nn

Deltas = Mapping[str, NDArray[np.float64]]


class Net(nn.Module):
    """Layers that PEFT's methods adapt."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.tall = nn.Linear(8, 24), nn.Linear(24, 8)
        self.conv, self.point = nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 1)
        self.line = nn.Conv1d(4, 6, 3)


def net() -> nn.Module:
    torch.manual_seed(3)
    return Net().double()


LINEAR = ["wide", "tall"]
KERNELS = ["wide", "conv"]
CONFIGS: dict[str, PeftConfig] = {
    "AdaLoRA": AdaLoraConfig(init_r=3, lora_alpha=6, total_step=9, target_modules=LINEAR),
    "AdaLoRA without α": AdaLoraConfig(
        init_r=3, lora_alpha=-1, total_step=9, target_modules=LINEAR
    ),
    "LoHa": LoHaConfig(r=2, alpha=4, target_modules=LINEAR),
    "LoHa above the full rank": LoHaConfig(r=4, alpha=2, target_modules=LINEAR),
    "LoHa by patterns": LoHaConfig(
        r=2, alpha=4, target_modules=LINEAR, rank_pattern={"tall": 4}, alpha_pattern={"^wide": 1}
    ),
    "LoHa of kernels": LoHaConfig(r=2, alpha=4, target_modules=KERNELS, use_effective_conv2d=True),
    "LoHa of kernels, above": LoHaConfig(
        r=8, alpha=4, target_modules=KERNELS, use_effective_conv2d=True
    ),
    "LoKr": LoKrConfig(r=2, alpha=4, target_modules=LINEAR),
    "LoKr, whole": LoKrConfig(r=16, alpha=4, target_modules=LINEAR),
    "LoKr of factors": LoKrConfig(r=1, alpha=4, target_modules=LINEAR, decompose_both=True),
    "LoKr of a factor": LoKrConfig(r=1, alpha=4, target_modules=LINEAR, decompose_factor=2),
    "LoKr of kernels": LoKrConfig(r=1, alpha=4, target_modules=KERNELS, use_effective_conv2d=True),
    "LoKr of kernels, whole": LoKrConfig(r=16, alpha=4, target_modules=KERNELS),
}
each = pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))


def of_peft(directory: Path) -> Deltas:
    """Δ of each module as PEFT computes it, and the (out, in·kernel) of it."""
    model = PeftModel.from_pretrained(net(), str(directory)).double()
    return {
        name: module.get_delta_weight("default").detach().flatten(1).numpy()
        for name, module in model.base_model.model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def pair(folder: Path, config: PeftConfig) -> list[Deltas]:
    """Two adapters, a and b, and their Δ."""
    for seed, name in enumerate("ab"):
        made(net(), folder / name, config, seed, torch.float64)
    return [of_peft(folder / name) for name in "ab"]


def composed(folder: Path, text: str) -> Deltas:
    """Δ of what a recipe saves, as PEFT reads it."""
    (folder / "r.pem").write_text('adapter a = "a"\nadapter b = "b"\n' + text)
    done = pem("build", folder / "r.pem")
    assert done.code == 0, done.text
    return of_peft(folder / "out")


def apart(ours: Deltas, wanted: Deltas) -> float:
    assert ours.keys() == wanted.keys()
    return max(
        float(np.linalg.norm(ours[site] - wanted[site]) / np.linalg.norm(wanted[site]))
        for site in wanted
    )


@each
def test_a_sum_is_that_of_pefts_changes(config: PeftConfig, tmp_path: Path) -> None:
    a, b = pair(tmp_path, config)
    ours = composed(tmp_path, 'save a - 0.5 * b to "out" with dtype=f64')
    assert apart(ours, {site: a[site] - 0.5 * b[site] for site in a}) < 1e-12


@each
def test_truncation_and_measures_are_those_of_the_change(
    config: PeftConfig, tmp_path: Path
) -> None:
    a, b = pair(tmp_path, config)
    norm, cosine = total(a, a) ** 0.5, total(a, b) / (total(a, a) * total(b, b)) ** 0.5
    checks = "".join(
        f'assert {measure} > {value - 1e-6:.9f} else "low"\n'
        f'assert {measure} < {value + 1e-6:.9f} else "high"\n'
        for measure, value in (("norm(a)", norm), ("cosine(a, b)", cosine))
    )
    ours = composed(tmp_path, checks + 'save compress(-a, rank=1) to "out" with dtype=f64')
    wanted = {}
    for site, delta in a.items():
        u, values, vt = np.linalg.svd(delta)
        wanted[site] = -values[0] * np.outer(u[:, 0], vt[0])
    assert apart(ours, wanted) < 1e-6


def total(a: Deltas, b: Deltas) -> float:
    return float(sum(np.sum(a[site] * b[site]) for site in a))


@each
def test_a_bake_is_pefts_merge(config: PeftConfig, tmp_path: Path) -> None:
    pair(tmp_path, config)
    baked_as_merged(tmp_path)


@pytest.mark.parametrize("kind", [LoHaConfig, LoKrConfig])
def test_a_flat_convolution_is_baked_as_peft_merges_it(
    kind: type[PeftConfig], tmp_path: Path
) -> None:
    pair(tmp_path, kind(r=1, alpha=3, target_modules=["conv", "point"]))
    baked_as_merged(tmp_path)


def baked_as_merged(folder: Path) -> None:
    (folder / "m").mkdir()
    save_file(dict(net().state_dict()), folder / "m/model.safetensors")
    (folder / "m/config.json").write_text(json.dumps({"model_type": "net"}))
    (folder / "r.pem").write_text(
        'base m = "m"\nmodel w on m = "m"\nadapter a on m = "a"\n'
        'save w + a to "baked" with dtype=f64'
    )
    done = pem("build", folder / "r.pem")
    assert done.code == 0, done.text
    wanted = PeftModel.from_pretrained(net(), str(folder / "a")).double().merge_and_unload()
    ours = load_file(folder / "baked/model.safetensors")
    for key, tensor in wanted.state_dict().items():
        assert torch.allclose(ours[key].double(), tensor, rtol=1e-7, atol=1e-7), key


def test_what_adalora_pruned_is_left_out(tmp_path: Path) -> None:
    """As a training ends: all of one module pruned, a part of the other."""
    pattern = {"wide.lora_E": [True, False, True], "tall.lora_E": [False] * 3}
    config = copy.deepcopy(CONFIGS["AdaLoRA"])

    def prune(model: PeftModel) -> None:
        model.peft_config["default"].rank_pattern = copy.deepcopy(pattern)

    made(net(), tmp_path / "a", config, 0, torch.float64, prune)
    shapes = {key: tuple(x.shape) for key, x in tensors_of(tmp_path / "a").items()}
    assert shapes["base_model.model.tall.lora_A"] == (0, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT reads the pattern twice, once as if it were LoRA's
        a = of_peft(tmp_path / "a")
    (tmp_path / "r.pem").write_text('adapter a = "a"\nsave 2 * a to "out" with dtype=f64')
    assert pem("build", tmp_path / "r.pem").code == 0
    ours = of_peft(tmp_path / "out")
    assert not ours["tall"].any() and not a["tall"].any()
    assert np.allclose(ours["wide"], 2 * a["wide"], rtol=1e-12)
    assert config_of(tmp_path / "out")["r"] in (1, 2)


def test_a_lokr_over_one_axis_is_refused(tmp_path: Path) -> None:
    config = LoKrConfig(r=16, alpha=4, target_modules=["line"])
    made(net(), tmp_path / "a", config, 0)
    refused = error(tmp_path, 'adapter a = "a"\nsave a to "out"')
    assert refused.code == "PEM0421"


def test_inspect_says_what_is_stored(tmp_path: Path) -> None:
    made(net(), tmp_path / "a", CONFIGS["LoHa"], 0)
    assert "LoRA, stored as LoHa" in pem("inspect", tmp_path / "a").out


def test_a_lock_and_a_verified_output_hold(tmp_path: Path) -> None:
    made(net(), tmp_path / "a", CONFIGS["LoKr"], 0)
    (tmp_path / "r.pem").write_text('adapter a = "a"\nsave 2 * a to "out"')
    for command in (["lock"], ["build", "--locked"], ["plan"]):
        done = pem(*command, tmp_path / "r.pem")
        assert done.code == 0, done.text
    assert pem("verify", "--rebuild", tmp_path / "out").code == 0
