"""`pem inspect` of what is no adapter that can be computed with, and of outputs."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, VeraConfig
from safetensors.torch import save_file
from support import Done, build, lora, pem, tensors_of
from support.hub_server import serving
from support.models import model
from support.peft_made import made
from torch import nn


def shown(place: Path, code: int = 0) -> Done:
    done = pem("inspect", place)
    assert (done.code, "Traceback" in done.text) == (code, False), done
    return done


@pytest.mark.parametrize(
    ("config", "said", "why"),
    [
        (VeraConfig(r=4, target_modules=["0"]), "VERA", "PEM0420"),
        (LoraConfig(r=2, init_lora_weights="pissa", target_modules=["0"]), "pissa", "PEM0422"),
    ],
    ids=["VeRA", "PiSSA"],
)
def test_a_kind_that_is_not_supported_is_described(
    tmp_path: Path, config: LoraConfig, said: str, why: str
) -> None:
    adapter = made(nn.Sequential(nn.Linear(6, 5)), tmp_path / "a", config, 0)
    done = shown(adapter)
    for line in ("is          an adapter", "files       adapter_model.safetensors", said):
        assert line in done.out
    for key, tensor in tensors_of(adapter).items():
        assert f"F32 {list(tensor.shape)}" in done.out, key
    assert f"warning[{why}]" in done.err
    told = json.loads(pem("inspect", adapter, "--format", "json").out)
    assert told["config"]["peft_type"] == config.peft_type.value
    assert [message["code"] for message in told["messages"]] == [why]


def test_a_config_alone_is_described(tmp_path: Path) -> None:
    lora(tmp_path / "a", use_qalora=True)
    (tmp_path / "a/adapter_model.safetensors").unlink()
    assert "none of tensors" in shown(tmp_path / "a").out


@pytest.mark.parametrize("sharded", [False, True])
def test_a_model_is_described(tmp_path: Path, sharded: bool) -> None:
    weights = {f"layers.{i}.q.weight": torch.ones(4, 6, dtype=torch.bfloat16) for i in range(3)}
    names = ["model.safetensors"]
    if sharded:
        names = ["model-1.safetensors", "model-2.safetensors"]
        places = {name: names[i % 2] for i, name in enumerate(weights)}
        index = json.dumps({"weight_map": places})
        (tmp_path / "model.safetensors.index.json").write_text(index)
    for i, name in enumerate(names):
        part = {key: weights[key] for key in list(weights)[i :: len(names)]}
        save_file(part, tmp_path / name)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = shown(tmp_path)
    assert done.err == ""
    for line in (
        "is          a model",
        "parameters  72",
        'architectures  ["LlamaForCausalLM"]',
        "layers.{0..2}.q.weight  3  BF16 [4, 6]",
    ):
        assert line in done.out
    assert "tie" not in done.out


def test_a_model_says_how_it_is_put_together(tmp_path: Path) -> None:
    """One that transformers saved, its output layer tied to its embedding."""
    sizes = {"hidden_size": 12, "intermediate_size": 20, "num_attention_heads": 2, "vocab_size": 30}
    config = transformers.LlamaConfig(**sizes, num_hidden_layers=3, tie_word_embeddings=True)
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "m")
    words = {"model": {"vocab": {"a": 0, "b": 28}}}
    (tmp_path / "m/tokenizer.json").write_text(json.dumps(words))
    told = json.loads(pem("inspect", tmp_path / "m", "--format", "json").out)
    facts = told["facts"]
    assert (facts["dtype"], facts["layers"], facts["tokenizer"]) == ("bf16", "3", "tokenizer.json")
    assert facts["vocabulary"] == "30 rows, the tokenizer's highest token is 28"
    assert facts["tied"] == "model.embed_tokens.weight, used in more than one place"
    assert told["config"]["hidden_size"] == "12"
    config.tie_word_embeddings = False
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "untied")
    assert "tied " not in shown(tmp_path / "untied").out.split("\n\n")[0]


def test_a_quantised_model_is_described_with_a_warning(tmp_path: Path) -> None:
    done = shown(model(tmp_path / "m", quantization_config={"quant_method": "gptq"}))
    assert "is          a model" in done.out and "warning[PEM0431]" in done.err


def test_a_model_that_was_built_says_from_what(tmp_path: Path) -> None:
    model(tmp_path / "b")
    model(tmp_path / "m", 1)
    build(tmp_path, 'model b = "b"\nmodel m = "m"\nsave b + 0.5 * (m - b) to "out"\n')
    assert "built from  recipe.pem: b + 0.5 * (m - b)\n" in shown(tmp_path / "out").out


def test_of_a_model_on_the_hub_headers_are_fetched_and_no_tensors(tmp_path: Path) -> None:
    shapes = {f"model.layers.{n}.mlp.up_proj.weight": (512, 512) for n in range(9)}
    model(tmp_path / "m", shapes=shapes, shards=3)
    with serving({"org/m": {"main": tmp_path / "m"}}) as hub:
        done = pem("inspect", "hf://org/m", process=True, **hub.env(tmp_path / "cache"))
        assert done.code == 0 and "files       3 files, 9.44 MB" in done.out, done.text
        fetched = sum(size for _, name, size in hub.sent if name.endswith(".safetensors"))
        assert fetched < 9_440_000 / 4


def test_a_single_file_is_described(tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    weights = {"lora_unet_q.lora_down.weight": np.ones((4, 6), "f4")}
    save_file({k: torch.as_tensor(v) for k, v in weights.items()}, file, {"ss_network_dim": "4"})
    done = shown(file)
    assert "is          a file of tensors" in done.out
    assert "ss_network_dim  4" in done.out
    assert "lora_unet_q.lora_down.weight  1  F32 [4, 6]" in done.out
    torch.save(tensors_of(lora(tmp_path / "a")), tmp_path / "a.bin")
    assert "lora_A.weight  2  F32 [4, 16]" in shown(tmp_path / "a.bin").out


def test_an_output_is_an_adapter_that_says_where_it_came_from(tmp_path: Path) -> None:
    lora(tmp_path / "a")
    build(tmp_path, 'adapter a = "a"\nsave 2 * a to "out/x"\n')
    assert "built from  recipe.pem: 2 * a\n" in shown(tmp_path / "out/x").out


@pytest.mark.parametrize("name", ["nowhere", "empty", "text.safetensors", "words.txt", "broken"])
def test_what_cannot_be_described_is_a_mistake(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    for text in ("text.safetensors", "words.txt"):
        (tmp_path / text).write_text("words")
    weights = lora(tmp_path / "broken", use_dora=True) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert "error[PEM04" in shown(tmp_path / name, 1).err


@pytest.mark.parametrize(
    "index", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 5}}', "pipe", "/dev/zero"]
)
def test_a_model_with_a_broken_index_is_a_mistake(tmp_path: Path, index: str) -> None:
    """And one that never ends does not hang."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    place = tmp_path / "model.safetensors.index.json"
    if index == "pipe":
        os.mkfifo(place)
    elif index.startswith("/"):
        place.symlink_to(index)
    else:
        place.write_text(index)
    assert "error[PEM04" in shown(tmp_path, 1).err


@pytest.mark.parametrize("name", ["pipe", "pipe.safetensors", "pipe.pem", "/dev/zero"])
def test_what_never_ends_is_a_mistake(tmp_path: Path, name: str) -> None:
    if not name.startswith("/"):
        os.mkfifo(tmp_path / name)
    assert "neither a file nor a directory" in shown(tmp_path / name, 1).err


def test_a_recipe_is_told_as_one(tmp_path: Path) -> None:
    """Help is the command that says what it makes."""
    (tmp_path / "merge.pem").write_text("language 1\n")
    assert (
        "`pem plan merge.pem` says what it makes"
        in pem("inspect", "merge.pem", folder=tmp_path).err
    )


def test_names_in_files_are_escaped(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"a\x1b[31m": torch.ones(1)}, file, {"\x1b[2J": "\u202e"})
    shown_text = shown(file).out
    assert "\x1b" not in shown_text
    assert "\u202e" not in shown_text
    (tmp_path / "config.json").write_text(json.dumps({"a\x1b": ["\x1b", "x" * 999]}))
    file.rename(tmp_path / "model.safetensors")
    assert "\x1b" not in shown(tmp_path).out


def test_layers_far_apart_are_listed_by_what_is_there(tmp_path: Path) -> None:
    """Whatever the numbers in the names of sites are."""
    lora(tmp_path / "a", sites={f"layers.{layer}.q": (3, 5) for layer in (0, 100_000_000)})
    tracemalloc.start()
    shown = pem("inspect", "a", folder=tmp_path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "0, 100000000" in shown.out
    assert most < 100_000_000
