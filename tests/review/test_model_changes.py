"""`pem diff` of whole models, against float64 arithmetic on what safetensors and json read."""

from __future__ import annotations

import json
import re
import shlex
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import lora, pem
from support.comparing import compared_of, shown_of
from support.hub_server import serving
from support.models import SHAPES, model, weights_of

BIG = {**SHAPES, "model.layers.0.mlp.down_proj.weight": (700, 900)}
SITE = "model.layers.0.self_attn.q_proj"


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-12)


def named(changes: Any) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in changes.tensors}


def edited(at: Path, name: str, **fields: object) -> None:
    """Fields of a JSON file of a model set anew."""
    path = at / name
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | fields))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_number_of_two_models(tmp_path: Path, dtype: torch.dtype) -> None:
    """One of them in shards; a tensor is larger than what is looked at together."""
    old = model(tmp_path / "old", shapes=BIG, dtype=dtype)
    new = model(tmp_path / "new", 1, BIG, dtype=dtype, shards=3)
    changes, x, y = compared_of(old, new), weights_of(old), weights_of(new)
    flat = [np.concatenate([weights[key].ravel() for key in x]) for weights in (x, y)]
    pairs = [(tensor.measured, x[name], y[name]) for name, tensor in named(changes).items()
             if name in x]  # fmt: skip
    assert len(pairs) == len(BIG)
    for measured, before, after in pairs:
        norms = np.linalg.norm(before), np.linalg.norm(after), np.linalg.norm(after - before)
        assert [measured.old, measured.new, measured.change] == list(map(near, map(float, norms)))
        assert measured.relative == near(float(norms[2] / norms[0]))
        assert measured.cosine == near(float(np.sum(before * after) / norms[0] / norms[1]))
    for name, tensor in named(changes).items():
        if name in x:
            assert tensor.largest == float(np.abs(y[name] - x[name]).max())
            assert (tensor.state, tensor.shapes) == ("changed", [list(x[name].shape)] * 2)
    positions = [load_file(old / "model.safetensors")["model.positions"].double().numpy()] * 2
    both = [np.concatenate(parts) for parts in zip(flat, positions, strict=True)]
    assert changes.total.change == near(float(np.linalg.norm(both[1] - both[0])))
    assert changes.total.old == near(float(np.linalg.norm(both[0])))
    assert named(changes)["model.positions"].state == "same"
    assert not changes.same


def test_a_copy_is_the_same_however_it_is_cut_into_files(tmp_path: Path) -> None:
    one, three = model(tmp_path / "one"), model(tmp_path / "three", shards=3)
    changes = compared_of(one, three)
    assert changes.same and changes.total.change == 0 and changes.total.cosine == 1
    assert "12 tensors: 12 same" in shown_of(one, three)
    assert pem("diff", one, three, "--exit-code").code == 0
    assert pem("diff", one, model(tmp_path / "m", 1), "--exit-code").code == 1


def test_tensors_that_one_lacks_or_has_in_another_shape_or_dtype(tmp_path: Path) -> None:
    shapes = {**SHAPES, "lm_head.weight": (31, 12), "extra.weight": (3, 3)}
    del shapes["scale"]
    old, new = model(tmp_path / "old"), model(tmp_path / "new", shapes=shapes)
    file = new / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.norm.weight"] = load_file(old / file.name)["model.layers.1.norm.weight"]
    tensors["model.layers.1.norm.weight"] = tensors["model.layers.1.norm.weight"].double()
    tensors["model.positions"] += 2**53
    save_file(tensors, file)
    changes = named(compared_of(old, new))
    assert (changes["scale"].state, changes["extra.weight"].state) == ("removed", "added")
    assert changes["extra.weight"].dtypes == [None, "F32"]
    head = changes["lm_head.weight"]
    assert (head.state, head.measured.change, head.largest) == ("incomparable", None, None)
    assert head.measured.new == near(float(tensors["lm_head.weight"].double().norm()))
    norm = changes["model.layers.1.norm.weight"]
    assert (norm.state, norm.measured.change, norm.dtypes) == ("changed", 0, ["F32", "F64"])
    assert changes["model.positions"].largest == 2**53
    text = shown_of(old, new)
    assert re.search(
        r"^lm_head.weight +incomparable .* f32 \[30, 12\] → f32 \[31, 12\]$", text, re.M
    )
    assert "without 1 incomparable" in text
    assert re.search(r"^tensors +12 → 12|^parameters +1,543 → ", text, re.M)


def test_whole_numbers_that_float64_does_not_tell_apart(tmp_path: Path) -> None:
    for name, number in (("old", 2**53), ("new", 2**53 + 1)):
        file = model(tmp_path / name) / "model.safetensors"
        save_file(load_file(file) | {"model.positions": torch.tensor([number])}, file)
    [changed] = [
        x for x in compared_of(tmp_path / "old", tmp_path / "new").tensors if x.state != "same"
    ]
    assert (changed.name, changed.largest) == ("model.positions", 1)


def test_configs_by_field_and_the_files_beside(tmp_path: Path) -> None:
    old = model(tmp_path / "old", rope={"theta": 1, "kind": {"name": "x"}}, gone=1, same=[1])
    new = model(tmp_path / "new", rope={"theta": 1.0, "kind": {"name": "y"}}, same=[1])
    edited(new, "tokenizer.json", version="2.0")
    edited(new, "generation_config.json", eos_token_id=2)
    long = "x" * 500
    edited(old, "config.json", long=long + "a")
    edited(new, "config.json", long=long + "b")
    changes = compared_of(old, new)
    facts = {fact.label: (fact.old, fact.new) for fact in changes.facts if fact.old != fact.new}
    assert facts.pop("config.json long")[1].endswith("…, different further on")
    assert facts == {
        "config.json rope.theta": ("1", "1.0"),
        "config.json rope.kind.name": ('"x"', '"y"'),
        "config.json gone": ("1", "none"),
    }
    files = {file.name: file.state for file in changes.files}
    assert files == {"generation_config.json": "added", "tokenizer.json": "changed"}
    text = shown_of(old, new)
    assert re.search(r"^tokenizer.json +\S+ B → \S+ B, other content$", text, re.M)
    assert not changes.same and changes.total.change == 0


def test_many_fields_are_counted(tmp_path: Path) -> None:
    old = model(tmp_path / "old", **{f"k{i}": i for i in range(300)})
    new = model(tmp_path / "new", **{f"k{i}": i + 1 for i in range(300)})
    text = shown_of(old, new)
    assert "200 more fields that differ" in text and len(text.splitlines()) < 110


HOSTILE = ("<script>alert(1)</script>", "a | b", "[x](javascript:alert(1))", "\u202er\x1b[2J")


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_hostile_names_are_shown_and_nothing_else(tmp_path: Path, form: str) -> None:
    """In a tensor, in a config and in a place."""
    shapes = {**SHAPES, **dict.fromkeys(HOSTILE, (2, 2))}
    nested: Any = "deep"
    for _ in range(60):
        nested = {HOSTILE[0]: nested}
    old = model(tmp_path / "<i>o", 1, shapes, **{name: name for name in HOSTILE}, deep=nested)
    new = model(tmp_path / "n`e", 2, shapes, **dict.fromkeys(HOSTILE, 1), deep=1)
    told = shown_of(old, new, form)
    assert "\x1b" not in told and "\u202e" not in told
    assert form != "html" or not re.search(r"<(script|a|i|img)\b", told)
    assert form != "html" or told.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3
    if form == "markdown":
        parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True})
        page = parser.enable("table").render(told)
        assert not re.search(r"<(script|a|img|i)\b", page)


def test_a_model_whose_config_cannot_be_read_is_compared_by_its_tensors(tmp_path: Path) -> None:
    old, new = model(tmp_path / "old"), model(tmp_path / "new", 1)
    (new / "config.json").write_text("[" * 100_000)
    assert pem("diff", old, new).code == 0


def test_numbers_that_are_none_are_said(tmp_path: Path) -> None:
    old, new = model(tmp_path / "old"), model(tmp_path / "new", shards=2)
    file = new / "model-00002-of-00002.safetensors"
    tensors = load_file(file)
    key = next(iter(tensors))
    tensors[key] = torch.full_like(tensors[key], float("nan"))
    save_file(tensors, file)
    done = pem("diff", old, new, "--exit-code")
    assert done.code == 2 and "PEM0502" in done.err and key in done.err
    file.write_bytes(file.read_bytes()[:-4])
    assert "PEM0412" in pem("diff", old, new).err


def test_a_model_and_an_adapter_are_told_how_to_compare(tmp_path: Path) -> None:
    base = model(tmp_path / "b ase")
    adapter = lora(tmp_path / "a", sites={SITE: (12, 12)})
    for words in ((base, adapter), (adapter, base)):
        done = pem("diff", *words, folder=tmp_path)
        assert done.code == 1 and "PEM0304" in done.err
    command = shlex.split(done.err.split("`pem ")[1].split("`")[0])
    assert pem(*command, folder=tmp_path).code == 0
    [changed] = [x for x in compared_of(base, tmp_path / "baked").tensors if x.state != "same"]
    assert changed.name == f"{SITE}.weight"


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    shapes = {"layers.0.w": (4096, 4096)}
    old, new = (model(tmp_path / f"m{i}", i, shapes, torch.bfloat16) for i in range(2))
    pem("diff", model(tmp_path / "x"), model(tmp_path / "y"))
    tracemalloc.start()
    assert pem("diff", old, new).code == 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4096 * 4096 * 8  # a tensor in float64 alone


def test_models_on_the_hub(tmp_path: Path) -> None:
    old, new = model(tmp_path / "old"), model(tmp_path / "new", 1, shards=3)
    adapter = lora(tmp_path / "a", sites={SITE: (12, 12)})
    repos = {"org/m": {"main": new}, "org/a": {"main": adapter}}
    with serving(repos) as hub:
        env = hub.env(tmp_path / "cache")
        told = pem("diff", old, "hf://org/m", "--format", "json", process=True, **env)
        assert told.code == 0, told.err
        assert json.loads(told.out)["tensors"][0]["state"] == "changed"
        other = pem("diff", "hf://org/a", "hf://org/a@main", process=True, **env)
        assert other.code == 0 and "1 same" in other.out, other.err
        assert "PEM0441" in pem("diff", old, "hf://org/none", process=True, **env).err
