"""LoRAs of mlx-lm: as mlx-lm itself makes and loads them, and the same Δ as in PEFT both ways, in
float64. What is wrong with one is told."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file
from support import build, delta, error, lora, pem, recipe
from support.hub_server import serving
from support.mlx_made import (
    BROKEN,
    KEYS,
    SITES,
    WEIGHTS,
    Deltas,
    as_mlx_loads,
    mlx_deltas,
    mlx_lora,
    trained,
)
from support.peft_made import apart, loaded, made, output, together
from support.refusals import refused
from torch import nn

CONFIG = "adapter_config.json"
PAIR = 'adapter a = "a"\nadapter b = "b"\n'


def converted(given: Path, target: Path, to: str) -> Path:
    done = pem("convert", given, target, "--to", to)
    assert (done.code, done.err) == (0, "")
    return target


def assert_same(left: Deltas, right: Deltas, rtol: float = 1e-12) -> None:
    assert left.keys() == right.keys()
    for site in left:
        np.testing.assert_allclose(left[site], right[site], rtol=rtol, atol=rtol, err_msg=site)


def test_there_and_back_again_is_the_same_to_the_bit(tmp_path: Path) -> None:
    a = mlx_lora(tmp_path / "a", 1)
    there = converted(a, tmp_path / "peft", "peft")
    assert_same(delta(there), mlx_deltas(a))
    back = converted(there, tmp_path / "back", "mlx")
    before, after = load_file(a / WEIGHTS), load_file(back / WEIGHTS)
    assert before.keys() == after.keys()
    assert all(before[key].tobytes() == after[key].tobytes() for key in before)
    fields = json.loads((back / CONFIG).read_text())
    assert fields == {
        "fine_tune_type": "lora",
        "lora_parameters": {"rank": 4, "scale": 10.0, "dropout": 0.0, "keys": sorted(KEYS)},
        "model": "some/base",
        "num_layers": -1,
    }


def test_sums_within_it_and_with_peft(tmp_path: Path) -> None:
    a, b = mlx_lora(tmp_path / "a", 1), mlx_lora(tmp_path / "b", 2, rank=2)
    lora(tmp_path / "p", 3, SITES, rank=3)
    own = 'save 0.5 * a - b to "out/own"\n'
    [made_own] = build(tmp_path, PAIR + own).outputs
    wanted = {site: 0.5 * x - mlx_deltas(b)[site] for site, x in mlx_deltas(a).items()}
    assert_same(mlx_deltas(made_own.path), wanted, rtol=1e-5)
    assert json.loads((made_own.path / CONFIG).read_text())["num_layers"] == 2
    [mixed] = build(tmp_path, f'{PAIR}adapter p = "p"\nsave a + p to "out/mixed"\n').outputs
    there = delta(tmp_path / "p")
    wanted = {site: x + there[site] for site, x in mlx_deltas(a).items()}
    assert_same(delta(mixed.path), wanted, rtol=1e-5)


def test_one_rank_and_one_scale_for_all(tmp_path: Path) -> None:
    queries = {site: shape for site, shape in SITES.items() if "q_proj" in site}
    lora(tmp_path / "a", 1, SITES, rank=4, alpha=8)
    lora(tmp_path / "b", 2, queries, rank=16, alpha=4)
    text = f'{PAIR}save join(a, b) to "out/x" with format=mlx\n'.replace("b)", "b[layers 1..1])")
    [x] = build(tmp_path, text).outputs
    tensors = load_file(x.path / WEIGHTS).items()
    assert {factor.shape[key.endswith("a")] for key, factor in tensors} == {20}
    wanted = {s: d + (delta(tmp_path / "b")[s] if "1.self_attn.q" in s else 0) for s, d in
              delta(tmp_path / "a").items()}  # fmt: skip
    assert_same(mlx_deltas(x.path), wanted, rtol=1e-5)


def test_a_number_of_bfloat16_stays(tmp_path: Path, llama: nn.Module) -> None:
    import torch

    given = made(
        llama, tmp_path / "p", LoraConfig(r=2, target_modules=["q_proj"]), 1, torch.bfloat16
    )
    converted(converted(given, tmp_path / "m", "mlx"), tmp_path / "q", "peft")
    assert_same(delta(tmp_path / "q"), delta(given))
    there, back = (
        (x / "adapter_model.safetensors").read_bytes()[-100:] for x in (given, tmp_path / "q")
    )
    assert there == back


def test_embeddings_are_transposes_too(tmp_path: Path, llama: nn.Module) -> None:
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["embed_tokens", "q_proj", "lm_head"])
    given = made(llama, tmp_path / "p", config, 1)
    mlx = converted(given, tmp_path / "m", "mlx")
    back = converted(mlx, tmp_path / "q", "peft")
    assert apart(output(loaded(llama, given)), output(loaded(llama, back))) == 0
    shapes = {key: x.shape for key, x in load_file(mlx / WEIGHTS).items()}
    assert shapes["model.embed_tokens.lora_a"] == (40, 4)
    assert shapes["model.embed_tokens.lora_b"] == (4, 32)


def test_baked_it_is_what_peft_makes_of_it(tmp_path: Path, llama: nn.Module) -> None:
    llama.save_pretrained(tmp_path / "model")
    mlx = mlx_lora(tmp_path / "m", 1)
    there = converted(mlx, tmp_path / "p", "peft")
    text = (
        'base b = "some/base"\nmodel w on b = "model"\nadapter m on b = "m"\nsave w + m to "out"\n'
    )
    build(tmp_path, text)
    from transformers import AutoModelForCausalLM

    baked = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    merged = together(llama, {"p": there})
    assert apart(output(baked), output(merged)) < 1e-4 * output(merged).abs().max()


# --- mlx-lm itself ---------------------------------------------------------------------------


def test_what_mlx_lm_trains_is_read_and_what_is_written_it_loads(
    tmp_path: Path, llama: nn.Module
) -> None:
    pytest.importorskip("mlx_lm")
    keys = ["self_attn.q_proj", "mlp.up_proj", "model.embed_tokens", "lm_head"]
    a = trained(tmp_path / "a", 1, keys, 7.5)
    b = trained(tmp_path / "b", 2, keys, 3.0, rank=2)
    theirs = as_mlx_loads(a)
    assert len(theirs) == 6
    [x] = build(tmp_path, f'{PAIR}save a - 2 * b to "out/x"\n').outputs
    wanted = {site: x - 2 * as_mlx_loads(b)[site] for site, x in theirs.items()}
    assert_same(as_mlx_loads(x.path), wanted, rtol=1e-5)
    there = converted(a, tmp_path / "p", "peft")
    assert_same(delta(there), {s: x for s, x in theirs.items() if "embed" not in s}, rtol=1e-6)
    assert_same(as_mlx_loads(converted(there, tmp_path / "m", "mlx")), theirs)


def test_a_part_of_the_layers_is_loaded_right(tmp_path: Path) -> None:
    pytest.importorskip("mlx_lm")
    lora(tmp_path / "a", 1, SITES)
    text = 'adapter a = "a"\nsave a[layers 0..0] to "out/x" with format=mlx\n'
    [x] = build(tmp_path, text).outputs
    wanted = {site: d for site, d in delta(tmp_path / "a").items() if ".0." in site}
    assert_same(as_mlx_loads(x.path), wanted)


# --- what is wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_told(case: str, tmp_path: Path) -> None:
    code, changes = BROKEN[case]
    mlx_lora(tmp_path / "a", 1, **changes)
    recipe(tmp_path, 'adapter a = "a"\nsave a to "out/x"\n')
    refused(tmp_path, code)
    done = pem("inspect", tmp_path / "a")
    assert "tensors" in done.out or code != "PEM0421"


@pytest.mark.parametrize("missing", ["adapters.safetensors", "adapter_config.json"])
def test_what_lacks_a_file(missing: str, tmp_path: Path) -> None:
    (mlx_lora(tmp_path / "a", 1) / missing).unlink()
    told = error(tmp_path, 'adapter a = "a"\nsave a to "out/x"\n')
    assert told.code == "PEM0410" and missing in told.message


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_what_is_cut_short(share: float, tmp_path: Path) -> None:
    weights = mlx_lora(tmp_path / "a", 1) / WEIGHTS
    weights.write_bytes(weights.read_bytes()[: int(share * weights.stat().st_size)])
    recipe(tmp_path, 'adapter a = "a"\nsave a to "out/x"\n')
    refused(tmp_path, "PEM0412")


def test_what_it_cannot_hold(tmp_path: Path, llama: nn.Module) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    made(llama, tmp_path / "a", config, 1)
    text = 'adapter a = "a"\nsave a to "out/x" with format=mlx'
    assert error(tmp_path, text).code == "PEM0421"
    assert build(tmp_path, f"{text}, heads=none").outputs
    words = ("convert", tmp_path / "a", tmp_path / "mlx", "--to", "mlx")
    done = pem(*words)
    assert done.code == 1 and "help: leave them out, with --heads none\n" in done.err
    assert pem(*words, "--heads", "none").code == 0
    weights = [(x / WEIGHTS).read_bytes() for x in (tmp_path / "mlx", tmp_path / "out" / "x")]
    assert weights[0] == weights[1]
    for wrong in (("merge.yml", "--heads", "none"), (*words[1:], "--heads", "a")):
        assert pem("convert", *wrong).code == 2


def test_a_copy_of_the_base_is_left_out(tmp_path: Path, llama: nn.Module) -> None:
    config = LoraConfig(r=2, target_modules=["embed_tokens"], init_lora_weights=False)
    a = tmp_path / "a"
    get_peft_model(copy.deepcopy(llama), config).save_pretrained(a, save_embedding_layers=True)
    there = converted(a, tmp_path / "mlx", "mlx")
    back = converted(there, tmp_path / "back", "peft")
    stored, kept = (load_file(x / "adapter_model.safetensors") for x in (a, back))
    copied = stored.pop("base_model.model.model.embed_tokens.base_layer.weight")
    assert copied.shape == (40, 32) and stored.keys() == kept.keys()
    assert all(stored[key].tobytes() == kept[key].tobytes() for key in stored)


def test_a_lock_keeps_it(tmp_path: Path) -> None:
    mlx_lora(tmp_path / "a", 1)
    recipe(tmp_path, 'adapter a = "a"\nsave 2 * a to "out/x"\n')
    assert pem("lock", "recipe.pem", folder=tmp_path).code == 0
    shutil.move(tmp_path / "a", tmp_path / "gone")
    assert pem("check", "--locked", "recipe.pem", folder=tmp_path).code == 0
    shutil.move(tmp_path / "gone", tmp_path / "a")
    assert pem("build", "recipe.pem", folder=tmp_path).code == 0
    assert pem("verify", "--rebuild", tmp_path / "out/x").code == 0
    fields = tmp_path / "a" / CONFIG
    fields.write_text(fields.read_text().replace("10.0", "11.0"))
    assert pem("build", "--locked", "recipe.pem", folder=tmp_path).code == 1


def test_on_the_hub(tmp_path: Path) -> None:
    a = mlx_lora(tmp_path / "a", 1)
    with serving({"org/a": {"main": a}}) as hub:
        text = 'adapter a = "hf://org/a"\nsave a to "out/x" with format=peft\n'
        path, env = recipe(tmp_path, text), hub.env(tmp_path / "cache")
        assert pem("check", path, process=True, **env).code == 0
        assert pem("build", path, process=True, **env).code == 0
    assert_same(delta(tmp_path / "out/x"), mlx_deltas(a))
