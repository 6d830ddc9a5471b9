"""Layers of models: `m[layers …]` and `stack`. That they are mergekit's passthrough is in
tests/oracles/test_mergekit_convert.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import build, recipe
from support.models import POSITIONS, model

import pemlang
from pemlang import PemError

LAYERS = 4


def made(folder: Path, name: str, seed: int, **config: object) -> dict[str, np.ndarray]:
    """A model of four layers, on disk and as its tensors."""
    rng = np.random.default_rng(seed)
    names = [f"model.layers.{i}.mlp.up.weight" for i in range(LAYERS)]
    names += ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    tensors = {key: rng.normal(size=(3, 4)).astype(np.float32) for key in names}
    (folder / name).mkdir()
    save_file(tensors, folder / name / "model.safetensors")
    fields = {"model_type": "llama", "num_hidden_layers": LAYERS, **config}
    (folder / name / "config.json").write_text(json.dumps(fields))
    return tensors


def built(folder: Path, expression: str) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    text = f'model a = "a"\nmodel b = "b"\nsave {expression} to "out"\n'
    [output] = build(folder, text).outputs
    config = json.loads((output.path / "config.json").read_text())
    return load_file(output.path / "model.safetensors"), config


def up(layer: int) -> str:
    return f"model.layers.{layer}.mlp.up.weight"


def test_a_stack_has_the_layers_of_each_and_the_ends_of_the_outer_two(tmp_path: Path) -> None:
    a, b = made(tmp_path, "a", 1), made(tmp_path, "b", 2)
    tensors, config = built(tmp_path, "stack(a[layers 0..2], b[layers 1..3])")
    wanted = {up(i): a[up(i)] for i in range(3)} | {up(i + 2): b[up(i)] for i in range(1, 4)}
    wanted |= {"model.embed_tokens.weight": a["model.embed_tokens.weight"]}
    wanted |= {key: b[key] for key in ("model.norm.weight", "lm_head.weight")}
    assert tensors.keys() == wanted.keys() and config["num_hidden_layers"] == 6
    assert all(np.array_equal(tensors[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(
    ("expression", "same"),
    [
        ("stack(a)", "a"),
        ("a[layers 0..3]", "a"),
        ("stack(a[layers 0..1], a[layers 2..3])[layers 1..2]", "stack(a[layers 1], a[layers 2])"),
        ("stack(stack(a, b), a)", "stack(a, b, a)"),
    ],
)
def test_a_stack_of_stacks_is_one(tmp_path: Path, expression: str, same: str) -> None:
    made(tmp_path, "a", 1), made(tmp_path, "b", 2)
    text = 'model a = "a"\nmodel b = "b"\n'
    text += f'save {expression} to "x"\nsave {same} to "y"\n'
    one, other = build(tmp_path, text).outputs
    assert one.semantic_hash == other.semantic_hash


def test_what_the_config_says_of_each_layer_is_said_of_more(tmp_path: Path) -> None:
    made(tmp_path, "a", 1, layer_types=["full"] * LAYERS), made(tmp_path, "b", 2)
    _, config = built(tmp_path, "stack(a, b)")
    assert (config["num_hidden_layers"], config["layer_types"]) == (8, ["full"] * 8)


@pytest.mark.parametrize(
    ("expression", "config", "code"),
    [
        ("a[layers 2..4]", {}, "PEM0320"),
        ("a[layers 3..2]", {}, "PEM0320"),
        ("stack(a, b)", {"layer_types": ["full", "slid", "full", "slid"]}, "PEM0353"),
        ("stack(a, b)", {"num_hidden_layers": 7}, "PEM0353"),
    ],
)
def test_what_does_not_stack_is_refused(
    tmp_path: Path, expression: str, config: dict[str, object], code: str
) -> None:
    made(tmp_path, "a", 1, **config), made(tmp_path, "b", 2)
    with pytest.raises(PemError) as caught:
        built(tmp_path, expression)
    assert [told.code for told in caught.value.diagnostics] == [code]
    assert not (tmp_path / "out").exists()


def test_options_hold_for_a_stack_and_each_tensor_keeps_its_dtype(tmp_path: Path) -> None:
    for name, tuned in (("a", 1), ("b", 2)):
        model(tmp_path / name, tuned, num_hidden_layers=2)
        tensors = load_file(tmp_path / name / "model.safetensors")
        tensors = {key: x for key, x in tensors.items() if key != POSITIONS}
        tensors["model.layers.0.norm.weight"] = tensors["model.layers.0.norm.weight"].astype("f2")
        tensors["model.layers.1.norm.weight"] = tensors["model.layers.1.norm.weight"].astype("f2")
        save_file(tensors, tmp_path / name / "model.safetensors")
        (tmp_path / name / "tokenizer.json").write_text(f'{{"of": "{name}"}}')
    text = 'model a = "a"\nmodel b = "b"\n'
    text += (
        'save stack(a, b) to "out" with shard="0.002MB", tokenizer=b\nsave stack(a, b) to "one"\n'
    )
    build(tmp_path, text)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 3 and (tmp_path / "out" / "tokenizer.json").read_text() == '{"of": "b"}'
    sharded = {key: x for file in files for key, x in load_file(file).items()}
    one = load_file(tmp_path / "one" / "model.safetensors")
    assert (
        all(np.array_equal(sharded[key], one[key]) for key in one) and sharded.keys() == one.keys()
    )
    assert one["model.layers.3.norm.weight"].dtype == np.float16
    assert one["model.layers.3.mlp.up_proj.weight"].dtype == np.float32
    assert one["scale"].shape == ()


def test_a_mean_of_stacks_holds_together(tmp_path: Path) -> None:
    a, b = made(tmp_path, "a", 1), made(tmp_path, "b", 2)
    tensors, _ = built(tmp_path, "mean([a[layers 0..1], b[layers 2..3]])")
    assert np.allclose(tensors[up(1)], (a[up(1)] + b[up(3)]) / 2, atol=1e-6)
    text = 'model a = "a"\nmodel b = "b"\nlet x = mean([a[layers 0..1], b[layers 2..3]])\n'
    loaded = pemlang.load(recipe(tmp_path, f'{text}save lerp(x, x, t=1) to "out"\n'))
    loaded.checked().graph.invariant()
