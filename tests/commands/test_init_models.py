"""`pem init` of models: a recipe that checks, is laid out, and builds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from support import Done, lora, pem
from support.hub_server import serving
from support.models import SHAPES, away, model, weights_of

from pemlang.syntax import formatted, read_source


def written(folder: Path, *places: str) -> str:
    """The recipe that is written for some places; it is right, laid out, and builds."""
    (folder / "merge.pem").unlink(missing_ok=True)
    done = pem("init", *places, folder=folder)
    assert done == Done(0, "merge.pem\n", "")
    path = folder / "merge.pem"
    assert pem("check", "merge.pem", folder=folder) == Done(0, "", "")
    assert formatted(read_source(path)) == path.read_text(encoding="utf-8")
    assert pem("build", "merge.pem", folder=folder).code == 0
    return path.read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model(tmp_path / "models/base-7b")
    model(tmp_path / "models/chat", 1, shards=2)
    model(tmp_path / "models/code", 2)
    return tmp_path


def test_fine_tunes_of_a_base(folder: Path) -> None:
    assert written(folder, "models/base-7b", "models/chat", "models/code/") == (
        "language 1\n"
        "\n"
        "# The others are taken to be tuned from it: put another first if they are not.\n"
        'base base_7b = "models/base-7b"\n'
        'model chat on base_7b = "models/chat"\n'
        'model code on base_7b = "models/code"\n'
        "\n"
        "## How much of what each model learned goes in.\n"
        "param weight: number in 0..1 = 0.5\n"
        "\n"
        "let merged = base_7b + weight * (chat - base_7b) + weight * (code - base_7b)\n"
        "\n"
        'save merged to "out/merged"\n'
    )
    b, m, n = (weights_of(folder / "models" / name) for name in ("base-7b", "chat", "code"))
    wanted = {key: b[key] + 0.5 * (m[key] - b[key]) + 0.5 * (n[key] - b[key]) for key in b}
    assert away(weights_of(folder / "out/merged"), wanted) < 1e-6


def test_a_base_is_the_one_that_the_others_say_they_were_tuned_from(folder: Path) -> None:
    """As transformers writes it down, also where it was given last."""
    for name in ("chat", "code"):
        config = folder / "models" / name / "config.json"
        told = {"_name_or_path": "org/Base-7B"}
        config.write_text(json.dumps(json.loads(config.read_text()) | told))
    text = written(folder, "models/chat", "models/code", "models/base-7b")
    assert 'base base_7b = "models/base-7b"\nmodel chat on base_7b' in text and "#" not in text[:60]
    assert text.count("# ") == text.count("## ")


def test_models_of_other_shapes_and_adapters_are_apart(folder: Path) -> None:
    model(folder / "models/tall", shapes={**SHAPES, "lm_head.weight": (31, 12)})
    lora(folder / "models/style", sites={"model.layers.0.self_attn.q_proj": (16, 16)})
    text = written(folder, "models")
    assert "let merged_base_7b = base_7b + 0.5 * (chat - base_7b) + 0.5 * (code - base_7b)" in text
    assert 'model tall = "models/tall"\n\nlet merged_tall = tall\n' in text
    assert 'adapter style: lora(rank=4) on base_2 = "models/style"' in text


def test_adapters_of_a_model(folder: Path) -> None:
    """They are added, and baked in; where their configs name another model, that is said."""
    sites = {"model.layers.0.self_attn.q_proj": (12, 12)}
    for seed, name in enumerate(("x", "y")):
        lora(folder / name, seed, sites=sites, base_model_name_or_path="org/other")
    text = written(folder, "x", "models/base-7b", "y")
    assert text == (
        "language 1\n"
        "\n"
        "# The adapters fit it; their configs name it otherwise.\n"
        'base base_7b = ["models/base-7b", "org/other"]\n'
        "\n"
        'adapter x: lora(rank=4) on base_7b = "x"\n'
        'adapter y: lora(rank=4) on base_7b = "y"\n'
        "\n"
        "## How much of the result is x.\n"
        "param weight: number in 0..1 = 0.5\n"
        "\n"
        "let merged = weight * x + (1 - weight) * y\n"
        "\n"
        "# Exactly that, of rank 8; `with rank=4` cuts it, and loses as little as can be.\n"
        'save merged to "out/merged"\n'
        'save base_7b + merged to "out/merged-baked"\n'
    )
    base, baked = (weights_of(folder / name) for name in ("models/base-7b", "out/merged-baked"))
    changed = {name for name in base if (base[name] != baked[name]).any()}
    assert changed == {f"{site}.weight" for site in sites}


def test_adapters_beside_fine_tunes(folder: Path) -> None:
    lora(folder / "x", sites={"model.layers.0.mlp.up_proj": (20, 12)})
    text = written(folder, "models/chat", "models/code", "x")
    assert 'base chat = ["models/chat", "some/base"]\nmodel code on chat' in text
    assert 'save chat + merged_chat_lora to "out/merged_chat_lora-baked"\n' in text


def test_models_of_different_dtypes_are_saved_in_the_base_s(folder: Path) -> None:
    model(folder / "models/half", 3, dtype=torch.bfloat16)
    assert "with dtype=bf16" in written(folder, "models/half", "models/chat")
    assert "with dtype=f32" in written(folder, "models/chat", "models/half")


def test_a_model_that_transformers_saved(tmp_path: Path) -> None:
    """Read back by transformers, with no key too many or too few."""
    sizes = {"hidden_size": 12, "intermediate_size": 20, "num_attention_heads": 2, "vocab_size": 30}
    config = transformers.LlamaConfig(**sizes, num_hidden_layers=2, tie_word_embeddings=True)
    for name in "ab":
        transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / name)
    written(tmp_path, "a", "b")
    place = tmp_path / "out/merged"
    _, told = transformers.LlamaForCausalLM.from_pretrained(place, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]


def test_a_model_that_cannot_be_taken_is_said(folder: Path) -> None:
    model(folder / "models/small", quantization_config={"quant_method": "awq"})
    done = pem("init", "models", folder=folder)
    assert done.code == 0 and "warning[PEM0431]" in done.err
    assert "small" not in (folder / "merge.pem").read_text()
    alone = pem("init", "models/small", "-o", "other.pem", folder=folder)
    assert alone.code == 1 and "error[PEM0431]" in alone.err
    assert not (folder / "other.pem").exists()


def test_a_model_on_the_hub(folder: Path) -> None:
    with serving({"org/chat": {"main": folder / "models/chat"}}) as hub:
        env = hub.env(folder / "cache")
        done = pem("init", "models/base-7b", "hf://org/chat", folder=folder, process=True, **env)
        assert done.code == 0, done.err
        assert 'model chat on base_7b = "hf://org/chat"' in (folder / "merge.pem").read_text()


@pytest.mark.parametrize("name", ['a"b{x}', "ba\nd", "<b>\x1b[1m", "save", "ties"])
def test_a_name_that_means_something_else(tmp_path: Path, name: str) -> None:
    model(tmp_path / name)
    done = pem("init", name, folder=tmp_path)
    assert "\x1b" not in done.text
    if name.isprintable():
        assert pem("check", "merge.pem", folder=tmp_path) == Done(0, "", "")
    else:
        assert done.code == 1 and "PEM0111" in done.err
