"""Between PEFT, mlx-lm and GGUF: names as the package gguf maps them, rows as llama.cpp's converter
regroups them, the same Δ at every site in float64 both ways, and the same model in PEFT."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig
from support import build, codes, delta, error, ia3, lora, pem, recipe
from support.gguf_made import gguf_deltas, gguf_fields, gguf_lora
from support.mlx_made import mlx_deltas
from support.outputs import verified
from support.peft_made import apart, loaded, made, output
from torch import nn

from pemlang.formats import ARCHITECTURES

SITES = {
    f"model.layers.{i}.{name}": shape
    for i in range(2)
    for name, shape in {
        "self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "self_attn.v_proj": (16, 32),
        "self_attn.o_proj": (32, 32), "mlp.gate_proj": (48, 32), "mlp.down_proj": (32, 48),
    }.items()
} | {"lm_head": (40, 32)}  # fmt: skip
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
MODEL = {"architectures": ["LlamaForCausalLM"], **HEADS}
ALONE = 'adapter a = "a"\nsave a to "out/x.gguf" with format=gguf\n'


def beside(folder: Path, **fields: object) -> None:
    (folder / "config.json").write_text(json.dumps(MODEL | fields))


def converted(given: Path, target: Path, to: str) -> Path:
    done = pem("convert", given, target, "--to", to)
    assert (done.code, done.err) == (0, "")
    return target


def regrouped(site: str, delta: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the converter makes of the rows of a Δ of a llama."""
    heads = {"q_proj": 4, "k_proj": 2}.get(site.rpartition(".")[2])
    if heads is None:
        return delta
    halves = delta.reshape(heads, 2, len(delta) // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(delta.shape)


def named(site: str, architecture: str = "llama") -> str:
    """What the package gguf calls a module."""
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    name = gguf.get_tensor_name_map(kinds[architecture], 4).get_name(site)
    assert name is not None
    return name


@pytest.mark.parametrize("known", ARCHITECTURES, ids=lambda known: known.name)
def test_names_are_those_of_the_package(known: object, tmp_path: Path) -> None:
    assert isinstance(known, type(ARCHITECTURES[0]))
    sites = {site: shape for site, shape in SITES.items() if "layers" in site}
    sites |= {site: (40, 32) for site in known.outside if site == "lm_head"}
    lora(tmp_path / "a", 1, sites)
    beside(tmp_path / "a", architectures=[known.models[-1]])
    there = converted(tmp_path / "a", tmp_path / "x.gguf", "gguf")
    assert gguf_deltas(there).keys() == {named(site, known.name) for site in sites}
    assert gguf_fields(there)["general.architecture"] == known.name
    back = delta(converted(there, tmp_path / "back", "peft"))
    assert back.keys() == sites.keys()
    for site, before in delta(tmp_path / "a").items():
        np.testing.assert_array_equal(back[site], before)


def test_rows_of_q_and_k_stand_as_llama_cpp_has_them(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1, SITES, alpha=6)
    beside(tmp_path / "a")
    there = gguf_deltas(converted(tmp_path / "a", tmp_path / "x.gguf", "gguf"))
    for site, before in delta(tmp_path / "a").items():
        np.testing.assert_allclose(there[named(site)], regrouped(site, before), rtol=1e-12)


def test_what_the_converter_wrote_needs_the_heads(tmp_path: Path) -> None:
    sites = {named(site): shape for site, shape in SITES.items()}
    file = gguf_lora(tmp_path / "a.gguf", 1, sites)
    text = 'adapter a = "a.gguf"\nsave a to "out/x" with format={}\n'
    assert "how many heads" in error(tmp_path, text.format("peft")).message
    beside(tmp_path)
    for form, deltas in (("peft", delta), ("mlx", mlx_deltas)):
        [x] = build(tmp_path, text.format(form).replace("/x", f"/{form}")).outputs
        there = deltas(x.path)
        assert there.keys() == SITES.keys()
        for site in SITES:
            wanted = gguf_deltas(file)[named(site)]
            np.testing.assert_allclose(regrouped(site, there[site]), wanted, rtol=1e-12)


def test_peft_loads_what_went_through_gguf(tmp_path: Path, llama: nn.Module) -> None:
    names = ["embed_tokens", "q_proj", "k_proj", "o_proj", "up_proj", "lm_head"]
    config = LoraConfig(r=4, lora_alpha=6, target_modules=names)
    given = made(llama, tmp_path / "a", config, 1)
    llama.config.save_pretrained(given)
    beside(given)
    there = converted(given, tmp_path / "x.gguf", "gguf")
    assert "token_embd" in gguf_deltas(there)
    through_mlx = converted(there, tmp_path / "m", "mlx")
    for other in (there, through_mlx):
        back = converted(other, tmp_path / f"back-of-{other.stem}", "peft")
        assert apart(output(loaded(llama, given)), output(loaded(llama, back))) == 0


def test_a_sum_is_converted_and_its_base_is_kept(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed, SITES, base_model_name_or_path="org/base-1b")
        beside(tmp_path / name)
    text = 'adapter a = "a"\nadapter b = "b"\nsave a - 2 * b to "out/x.gguf" with format=gguf\n'
    [x] = build(tmp_path, text).outputs
    b = delta(tmp_path / "b")
    for site, before in delta(tmp_path / "a").items():
        wanted = regrouped(site, before - 2 * b[site])
        np.testing.assert_allclose(gguf_deltas(x.path)[named(site)], wanted, rtol=1e-4, atol=1e-4)
    told = gguf_fields(x.path)
    assert told["general.base_model.0.repo_url"] == "https://huggingface.co/org/base-1b"
    assert [told[f"llama.attention.head_count{end}"] for end in ("", "_kv")] == [4, 2]
    assert "org/base-1b" in pem("inspect", x.path).out


def test_what_two_models_differ_in_becomes_a_lora_of_llama_cpp(
    tmp_path: Path, llama: nn.Module
) -> None:
    tuned = copy.deepcopy(llama)
    for parameter in tuned.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for name, model in (("b", llama), ("m", tuned)):
        model.save_pretrained(tmp_path / name)
    text = 'base x = "some/base"\nmodel m on x = "m"\nmodel b on x = "b"\n'
    text += 'let d = compress((m - b)["*_proj.weight"], rank=8)\nsave d to "out/x"\n'
    [plain, there] = build(tmp_path, text + 'save d to "out/x.gguf" with format=gguf\n').outputs
    for site, before in delta(plain.path).items():
        wanted = regrouped(site, before)
        np.testing.assert_allclose(gguf_deltas(there.path)[named(site)], wanted, atol=1e-6)


def test_the_config_beside_is_locked_and_verified(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1, SITES)
    beside(tmp_path / "a")
    path = recipe(tmp_path, ALONE)
    assert pem("lock", path).code == 0
    shutil.move(tmp_path / "a", tmp_path / "gone")
    assert pem("check", "--locked", path).code == 0
    shutil.move(tmp_path / "gone", tmp_path / "a")
    assert pem("build", "--locked", path).code == 0
    assert verified(tmp_path / "out/x.gguf", "--rebuild").holds
    beside(tmp_path / "a", num_key_value_heads=4)
    assert not verified(tmp_path / "out/x.gguf").holds
    assert pem("build", "--locked", path).code == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"architectures": ["FalconForCausalLM"]},
        {"architectures": "LlamaForCausalLM"},
        {"architectures": [["LlamaForCausalLM"]]},
        {"num_attention_heads": 3},
        {"num_attention_heads": True},
        {"num_attention_heads": -4},
        {"num_key_value_heads": 10**30, "num_attention_heads": None},
    ],
)
def test_configs_that_do_not_say_it(fields: dict[str, object], tmp_path: Path) -> None:
    lora(tmp_path / "a", 1, SITES)
    beside(tmp_path / "a", **fields)
    assert codes(tmp_path, ALONE) == ["PEM0354"]


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '"x"', "[" * 5000])
def test_configs_that_are_none(text: str, tmp_path: Path) -> None:
    lora(tmp_path / "a", 1, SITES)
    (tmp_path / "a/config.json").write_text(text)
    assert codes(tmp_path, ALONE) == ["PEM0354"]
    assert codes(tmp_path, 'adapter a = "a"\nsave a to "out/x"\n') == []


def test_what_has_no_place_in_gguf(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1, {"model.layers.0.self_attn.q_norm": (32, 32)})
    beside(tmp_path / "a")
    assert "q_norm" in error(tmp_path, ALONE).message
    shutil.rmtree(tmp_path / "a")
    ia3(tmp_path / "a", 1, {"model.layers.0.self_attn.k_proj": 16}, {})
    beside(tmp_path / "a")
    assert codes(tmp_path, ALONE) == ["PEM0421"]
    shutil.rmtree(tmp_path / "a")
    lora(tmp_path / "a", 1, {"model.layers.0.self_attn.k_proj": (16, 32)})
    beside(tmp_path / "a")
    assert codes(tmp_path, ALONE.replace("format=gguf", "format=gguf, dtype=f64")) == ["PEM0419"]
