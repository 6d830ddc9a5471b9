"""Outputs as programs read them that know less of a config than PEFT does. What they do is written
here anew, from vLLM's, SGLang's and llama.cpp's own code."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig
from support import PREFIX, config_of, delta, error, lora, pem, recipe, save, tensors_of
from support.adapters import SITES, Dense
from support.peft_made import apart, composed, declared, loaded, made, output, together
from torch import nn

QUERIES = {site: shape for site, shape in SITES.items() if site.endswith("query")}
VALUES = {site: shape for site, shape in SITES.items() if site.endswith("value")}


def products(directory: Path, scale_of: float | None) -> Dense:
    """s·B·A by site; s is lora_alpha by the rank of the tensors where no scale is given."""
    config, tensors, deltas = config_of(directory), tensors_of(directory), {}
    for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
        a = tensors[key].double().numpy()
        b = tensors[key.replace("lora_A", "lora_B")].double().numpy()
        scale = config["lora_alpha"] / len(a) if scale_of is None else scale_of
        deltas[key.removeprefix(PREFIX).removesuffix(".lora_A.weight")] = scale * b @ a
    return deltas


def as_vllm(directory: Path) -> Dense:
    config = config_of(directory)
    assert not config.get("modules_to_save"), "vLLM only supports modules_to_save being None."
    assert config["r"] <= 512
    assert max(len(x) for key, x in tensors_of(directory).items() if "lora_A" in key) <= config["r"]
    root = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
    return products(directory, config["lora_alpha"] / root)


def as_sglang(directory: Path) -> Dense:
    config = config_of(directory)
    for field, usual in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        assert all(x == config[usual] for x in (config.get(field) or {}).values()), field
    ends = {name.split(".")[-1] for name in config["target_modules"]}
    deltas = products(directory, config["lora_alpha"] / config["r"])
    assert {site.split(".")[-1] for site in deltas} == ends
    return deltas


def as_llama_cpp(directory: Path) -> Dense:
    keys = tensors_of(directory)
    assert all(".lora_A.weight" in key or ".lora_B.weight" in key for key in keys)
    return products(directory, None)


READERS = {"vllm": as_vllm, "sglang": as_sglang, "llama_cpp": as_llama_cpp}


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """`a` and `b` of unlike scales; `c` of a rank that differs little; `q` and `v` on some modules
    each, with rsLoRA and patterns."""
    third = {site: 4 - (site == next(iter(SITES))) for site in SITES}
    return {
        "a": lora(tmp_path / "a", 1, alpha=8),
        "b": lora(tmp_path / "b", 2, rank=2, alpha=7, alpha_pattern={"value": 3}),
        "c": lora(tmp_path / "c", 3, rank=third, alpha=5),
        "q": lora(tmp_path / "q", 4, QUERIES, rank=4, alpha=9, use_rslora=True),
        "v": lora(tmp_path / "v", 5, VALUES, rank=4, alpha=3),
        "w": lora(tmp_path / "w", 6, VALUES, rank=12, alpha=3),
    }


def total(inputs: dict[str, Path], weights: dict[str, float]) -> Dense:
    parts = [(weight, delta(inputs[name])) for name, weight in weights.items()]
    sites = {site for _, part in parts for site in part}
    return {site: sum(w * part[site] for w, part in parts if site in part) for site in sites}


EXPRESSIONS = {
    "b": {"b": 1.0},
    "a - 0.5 * b": {"a": 1.0, "b": -0.5},
    "a + c": {"a": 1.0, "c": 1.0},
    "c": {"c": 1.0},
    "join(q, v)": {"q": 1.0, "v": 1.0},
    "2 * q": {"q": 2.0},
}


@pytest.mark.parametrize("reader", [None, *READERS])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_output_is_right_by_r_and_lora_alpha_alone(
    inputs: dict[str, Path], tmp_path: Path, expression: str, reader: str | None
) -> None:
    option = "" if reader is None else f"reader={reader}"
    out = composed(tmp_path, inputs, expression, option)
    wanted = total(inputs, EXPRESSIONS[expression])
    for read in (delta, *READERS.values()):
        deltas = read(out)
        assert deltas.keys() == wanted.keys()
        for site, matrix in wanted.items():
            assert np.allclose(deltas[site], matrix, rtol=0, atol=1e-5 * abs(matrix).max())


def test_ranks_far_apart_stay_and_a_warning_names_the_option(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    text = declared(inputs) + 'save join(q, w) to "out"\n'
    result = pem("build", recipe(tmp_path, text))
    assert result.code == 0 and "PEM0707" in result.err and "reader=vllm" in result.err
    wanted = total(inputs, {"q": 1.0, "w": 1.0})
    out = tmp_path / "out"
    assert {len(x) for key, x in tensors_of(out).items() if "lora_A" in key} == {4, 12}
    for read in (delta, as_vllm):
        assert all(np.allclose(read(out)[site], wanted[site], atol=1e-5) for site in wanted)
    with pytest.raises(AssertionError, match="rank_pattern"):
        as_sglang(out)
    again = pem("build", recipe(tmp_path, text))
    assert "up to date" in again.out and "PEM0707" in again.err


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_of_one_rank_gets_one(
    inputs: dict[str, Path], tmp_path: Path, reader: str
) -> None:
    out = composed(tmp_path, inputs, "join(q, w)", f"reader={reader}")
    wanted = total(inputs, {"q": 1.0, "w": 1.0})
    deltas = READERS[reader](out)
    assert all(np.allclose(deltas[site], wanted[site], atol=1e-5) for site in wanted)
    assert config_of(out)["rank_pattern"] == {}


def test_peft_gets_what_its_patterns_can_say(inputs: dict[str, Path], tmp_path: Path) -> None:
    out = composed(tmp_path, inputs, "b", "reader=peft")
    ours, theirs = tensors_of(out), tensors_of(inputs["b"])
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert config_of(out)["alpha_pattern"]


def test_experts_have_one_rank(tmp_path: Path) -> None:
    """In transformers 5 PEFT stacks them by `r` alone; a rank by energy differs from expert to
    expert."""
    experts = [f"model.layers.{n}.mlp.experts.{m}.down_proj" for n in (0, 1) for m in range(3)]
    a = lora(tmp_path / "a", 1, dict.fromkeys(experts, (24, 20)), rank=8)
    for at, site in enumerate(experts):
        key = f"{PREFIX}{site}.lora_B.weight"
        tensors = tensors_of(a)
        tensors[key] = tensors[key] * torch.tensor([1.0] * (1 + at) + [1e-3] * (7 - at))
        save(a, tensors, config_of(a))
    out = composed(tmp_path, {"a": a}, "a", "energy=0.99")
    ranks = {len(x) for key, x in tensors_of(out).items() if "lora_A" in key}
    assert ranks == {config_of(out)["r"]} != {8}
    wanted = delta(a)
    for site, matrix in delta(out).items():
        lost = np.linalg.norm(matrix - wanted[site]) / np.linalg.norm(wanted[site])
        assert lost**2 <= 0.0101


def save_tensors(directory: Path, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    whole = {key: tensor.contiguous() for key, tensor in tensors.items()}
    save_file(whole, directory / "adapter_model.safetensors")


@pytest.mark.parametrize("reader", ["vllm", "sglang", "llama_cpp"])
def test_heads_are_refused_with_the_way_out(tmp_path: Path, reader: str) -> None:
    head = {f"{PREFIX}classifier.weight": np.ones((3, 12), "f4")}
    adapters = {"a": lora(tmp_path / "a", extra=head, modules_to_save=["classifier"])}
    refusal = error(tmp_path, declared(adapters) + f'save a to "out" with reader={reader}\n')
    assert refusal.code == "PEM0367" and "heads=none" in (refusal.help or "")
    out = composed(tmp_path, adapters, "a", f"reader={reader}, heads=none")
    assert READERS[reader](out).keys() == SITES.keys()
    assert config_of(out)["modules_to_save"] is None


def test_peft_loads_what_is_filled_up(bert: nn.Module, tmp_path: Path) -> None:
    adapters = {
        name: made(bert, tmp_path / name, LoraConfig(r=r, lora_alpha=5, target_modules=[target]), r)
        for name, target, r in (("q", "query", 4), ("v", "value", 12))
    }
    out = composed(tmp_path, adapters, "join(q, v)", "reader=vllm")
    assert config_of(out)["rank_pattern"] == {} == config_of(out)["alpha_pattern"]
    wanted = output(together(bert, adapters, {"q": 1.0, "v": 1.0}))
    assert apart(wanted, output(bert)) > 1e-3
    assert apart(output(loaded(bert, out)), wanted) < 1e-5


def test_names_of_targets_stay_short(bert: nn.Module, tmp_path: Path) -> None:
    """After a join and a selection too, as long as they mean the same modules to PEFT."""
    adapters = {
        name: made(bert, tmp_path / name, LoraConfig(r=4, target_modules=targets), seed)
        for seed, (name, targets) in enumerate(
            {"a": ["query", "value"], "d": ["output.dense"], "i": ["intermediate.dense"]}.items()
        )
    }
    for expression, targets in {
        'join(a["*.query"], d)': ["output.dense", "query"],
        'a["*.value"]': ["value"],
        "join(d, i)": ["intermediate.dense", "output.dense"],
    }.items():
        out = composed(tmp_path, adapters, expression)
        assert config_of(out)["target_modules"] == targets
        sites = {key.removeprefix(PREFIX).rpartition(".lora_")[0] for key in tensors_of(out)}
        adapted = loaded(bert, out).get_base_model().named_modules()
        assert {name for name, module in adapted if hasattr(module, "lora_A")} == sites
    out = composed(tmp_path, adapters, "a[layers 0..0]")
    assert all("layer.0" in name for name in config_of(out)["target_modules"])


@pytest.mark.parametrize("reader", ["vllm", "sglang"])
def test_a_pattern_becomes_a_list_of_names(tmp_path: Path, reader: str) -> None:
    """As unsloth writes it."""
    a = lora(tmp_path / "a", target_modules=r"(?:.*?(?:self).*?(?:query|value))")
    out = composed(tmp_path, {"a": a}, "0.5 * a", f"reader={reader}")
    assert READERS[reader](out).keys() == SITES.keys()
    assert config_of(out)["target_modules"] == sorted(SITES)
