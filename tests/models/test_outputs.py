"""Outputs of models: shards of a size, and the tokenizer of another model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import build, codes, error, pem, recipe
from support.models import DECLARED, POSITIONS, SHAPES, away, model, weights_of

import pemlang

CHANGED = f"{DECLARED}save b + 0.5 * (m - b)"
INDEX = "model.safetensors.index.json"


def shards_of(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def test_shards_of_a_size_with_an_index(folder: Path) -> None:
    """As transformers reads them: its own loader of shards gives the tensors of one file."""
    from transformers.utils.hub import get_checkpoint_shard_files

    whole = build(folder, f'{CHANGED} to "whole"\n').outputs[0].path
    out = build(folder, f'{CHANGED} to "out" with shard="2kB"\n').outputs[0].path
    files = shards_of(out)
    count = len(files)
    assert [x.name for x in files] == [
        f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)
    ]
    tensors = [load_file(file) for file in files]
    sizes = [sum(x.numel() * x.element_size() for x in part.values()) for part in tensors]
    assert count > 2 and all(
        size <= 2000 or len(part) == 1 for size, part in zip(sizes, tensors, strict=True)
    )
    assert json.loads((out / INDEX).read_text())["metadata"]["total_size"] == sum(sizes)
    found, told = get_checkpoint_shard_files(str(out), str(out / INDEX), local_files_only=True)
    assert found == [str(file) for file in files]
    assert set(told["all_checkpoint_keys"]) == set(load_file(whole / "model.safetensors"))
    assert away(weights_of(out), weights_of(whole)) == 0
    assert pem("verify", "out", folder=folder).code == 0


def test_a_size_below_a_tensors_and_one_above_all(folder: Path) -> None:
    each = build(folder, f'{CHANGED} to "each" with shard="1B"\n').outputs[0].path
    assert [len(load_file(file)) for file in shards_of(each)] == [1] * (len(SHAPES) + 1)
    one = build(folder, f'{CHANGED} to "one" with shard="1 GiB"\n').outputs[0].path
    assert [file.name for file in shards_of(one)] == ["model.safetensors"]
    assert not (one / INDEX).exists()


def test_shards_of_an_input_become_one_file(folder: Path) -> None:
    text = f'{DECLARED}save n + 0.5 * (m - b) to "out" with shard="1GB"\n'
    out = build(folder, text).outputs[0].path
    assert [file.name for file in shards_of(out)] == ["model.safetensors"]
    assert weights_of(out).keys() == weights_of(folder / "n").keys()


def test_a_size_counts_for_the_hash_where_it_is_given(folder: Path) -> None:
    hashes = {
        build(folder, f'{CHANGED} to "out"{option}\n').outputs[0].semantic_hash
        for option in ("", ' with shard="2kB"', ' with shard="2000B"', ' with shard="3kB"')
    }
    assert len(hashes) == 3


@pytest.fixture
def chat(folder: Path) -> Path:
    """A model with a tokenizer and a template of its own."""
    at = model(folder / "chat", tuned=3)
    (at / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0, "b": 29}}}')
    (at / "chat_template.jinja").write_text("{{ messages }}")
    (at / "generation_config.json").write_text('{"top_k": 7}')
    return at


def test_a_tokenizer_of_another_model(folder: Path, chat: Path) -> None:
    (folder / "b" / "vocab.json").write_text("{}")
    (folder / "b" / "generation_config.json").write_text('{"top_k": 1}')
    declared = f'{DECLARED}model chat on b = "chat"\n'
    out = (
        build(folder, f'{declared}save b + 0.5 * (m - b) to "out" with tokenizer=chat\n')
        .outputs[0]
        .path
    )
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (chat / name).read_bytes()
    for name in ("generation_config.json", "config.json"):
        assert (out / name).read_bytes() == (folder / "b" / name).read_bytes()
    assert not (out / "vocab.json").exists()


def test_the_model_of_a_tokenizer_is_a_material(folder: Path, chat: Path) -> None:
    declared = f'{DECLARED}model chat on b = "chat"\n'
    text = f'{declared}save b + 0.5 * (m - b) to "out" with tokenizer=chat\n'
    first = build(folder, text).outputs[0]
    statement = json.loads((first.path / "provenance.json").read_text())
    materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {m["uri"] for m in materials} >= {"chat/tokenizer.json", "chat/chat_template.jinja"}
    assert "used" not in pem("plan", "recipe.pem", folder=folder).err
    assert pem("lock", "recipe.pem", folder=folder).code == 0
    (chat / "chat_template.jinja").write_text("{{ other }}")
    assert "PEM0803" in pem("build", "--locked", "recipe.pem", folder=folder).err
    assert pem("verify", "out", folder=folder).code == 1
    assert build(folder, text).outputs[0].semantic_hash != first.semantic_hash


def test_a_base_may_lend_its_tokenizer(folder: Path) -> None:
    out = build(folder, f'{DECLARED}save m to "out" with tokenizer=b\n').outputs[0].path
    assert (out / "tokenizer.json").is_file()


def test_a_tokenizer_with_more_tokens_than_rows(folder: Path, chat: Path) -> None:
    declared = f'{DECLARED}model chat on b = "chat"\n'
    for vocabulary in (
        {"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 30, "content": "b"}]},
        {"model": {"vocab": [["a", 0.0]] * 31}},
    ):
        (chat / "tokenizer.json").write_text(json.dumps(vocabulary))
        text = f'{declared}save b + 0.5 * (m - b) to "out" with tokenizer=chat\n'
        wrong = error(folder, text)
        assert wrong.code == "PEM0351" and "30" in wrong.message


@pytest.mark.parametrize("option", ["heads=m", "rank=full", "rank=2", "energy=0.9"])
def test_options_of_adapters_are_not_of_models(folder: Path, option: str) -> None:
    assert codes(folder, f'{CHANGED} to "out" with {option}\n') == ["PEM0343"]


@pytest.mark.parametrize("size", ["", "0GB", "5", "GB", "-1GB", "5 apples", "1e3MB"])
def test_what_is_no_size(folder: Path, size: str) -> None:
    expected = [] if size == "5" else ["PEM0350"]
    checked = pemlang.load(recipe(folder, f'{CHANGED} to "out" with shard="{size}"\n')).check()
    assert [d.code for d in checked] == expected


def test_models_of_several_dtypes_are_saved_with_a_dtype(folder: Path) -> None:
    model(folder / "b", dtype=torch.bfloat16)
    text = f"{DECLARED}save b + ties([m - b, n - b], density=0.5)"
    wrong = error(folder, f'{text} to "out"\n')
    assert wrong.code == "PEM0352" and "F32" in wrong.message and "BF16" in wrong.message
    assert not (folder / "out").exists()
    mended = f"{DECLARED}{wrong.help}\n"
    assert codes(folder, mended) == []
    out = build(folder, mended).outputs[0].path
    dtypes = {x.dtype for k, x in load_file(out / "model.safetensors").items() if k != POSITIONS}
    assert dtypes == {torch.bfloat16}
    wide = build(folder, f'{text} to "wide" with dtype=f32\n').outputs[0].path
    assert away(weights_of(out), weights_of(wide)) < 0.05


def test_other_models_of_a_recipe_may_have_another_dtype(folder: Path) -> None:
    model(folder / "n", dtype=torch.bfloat16)
    text = f'{DECLARED}let x = n - b\nsave b + 0.5 * (m - b) to "out" with tokenizer=n\n'
    assert codes(folder, text) == []
