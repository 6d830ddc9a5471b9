"""Files of models: what an output has of its inputs, and what is said of those that do not fit."""

from __future__ import annotations

import json
import shutil
import socket
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import build, codes, edit, error, lora, pem, recipe
from support.models import DECLARED, POSITIONS, SHAPES, away, model, weights_of

import pemlang

SAVE = f'{DECLARED}save b + 0.5 * (m - b) + 0.5 * (n - b) to "out"\n'


def test_an_output_is_laid_out_as_the_model_it_is_made_from(folder: Path) -> None:
    whole = build(folder, f'{DECLARED}save b + 0.5 * (n - b) to "out"\n').outputs[0].path
    names = {path.name for path in whole.iterdir()}
    beside = {"README.md", "provenance.json", "config.json", "tokenizer.json"}
    assert names == beside | {"model.safetensors"}
    tensors = load_file(whole / "model.safetensors")
    assert tensors[POSITIONS].tolist() == list(range(6))
    assert {k: tuple(x.shape) for k, x in tensors.items()} == {**SHAPES, POSITIONS: (6,)}
    shards = build(folder, f'{DECLARED}save n + 0.5 * (m - b) to "sharded"\n').outputs[0].path
    names = {path.name for path in shards.iterdir()} - beside
    assert names == {path.name for path in (folder / "n").iterdir()} - beside
    index = json.loads((shards / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(
        x.numel() * x.element_size()
        for f in shards.glob("*.safetensors")
        for x in load_file(f).values()
    )
    for file in shards.glob("*.safetensors"):
        assert {index["weight_map"][key] for key in load_file(file)} == {file.name}


def test_a_dtype_is_written_and_said(folder: Path) -> None:
    text = f'{DECLARED}save b + 0.5 * (m - b) to "out" with dtype=bf16\n'
    out = build(folder, text).outputs[0].path
    tensors = load_file(out / "model.safetensors")
    assert {x.dtype for key, x in tensors.items() if key != POSITIONS} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    b, m = weights_of(folder / "b"), weights_of(folder / "m")
    near = {key: (b[key] + m[key]) / 2 for key in b}
    assert away(weights_of(out), near) < 0.02


def test_an_output_is_verified_locked_and_stays(folder: Path) -> None:
    recipe(folder, SAVE)
    assert pem("build", "recipe.pem", folder=folder).code == 0
    assert pem("verify", "out", folder=folder).code == 0
    assert pem("lock", "recipe.pem", folder=folder).code == 0
    again = pem("build", "--locked", "recipe.pem", folder=folder)
    assert again.code == 0 and "up to date" in again.out and "model, 11 tensors" in again.out
    assert "model, 11 tensors" in pem("explain-output", "out", folder=folder).out
    with (folder / "n" / "model-00002-of-00003.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert "PEM0803" in pem("build", "--locked", "recipe.pem", folder=folder).err
    assert pem("verify", "out", folder=folder).code == 1
    assert pem("build", "recipe.pem", folder=folder).code == 0
    assert pem("verify", "out", folder=folder).code == 0


def test_a_recipe_is_checked_planned_and_compared_without_its_models(folder: Path) -> None:
    recipe(folder, SAVE)
    assert pem("lock", "recipe.pem", folder=folder).code == 0
    here = pem("plan", "recipe.pem", folder=folder).out
    for name in "bmn":
        shutil.rmtree(folder / name)
    assert pem("check", "--locked", "recipe.pem", folder=folder).code == 0
    assert "model, 11 tensors" in pem("plan", "--locked", "recipe.pem", folder=folder).out
    hashes = [line for line in here.splitlines() if "hash" in line]
    assert all(line in pem("plan", "--locked", "recipe.pem", folder=folder).out for line in hashes)
    recipe(folder, SAVE.replace("0.5 * (n", "0.25 * (n"), "other.pem")
    told = pem("diff", "recipe.pem", "other.pem", folder=folder)
    assert told.code == 0 and "0.25" in told.out, told.text


def test_the_same_bytes_on_any_threads_and_in_any_memory(folder: Path) -> None:
    text = f'{DECLARED}save b + ties([m - b, n - b], density=0.5) to "out"\n'
    made = set()
    for threads, memory in ((1, None), (2, 10 << 20), (16, None)):
        shutil.rmtree(folder / "out", ignore_errors=True)
        options = pemlang.BuildOptions(threads=threads, memory=memory)
        pemlang.load(recipe(folder, text)).build(options=options)
        made.add((folder / "out" / "model.safetensors").read_bytes())
    assert len(made) == 1


def test_an_extraction_is_the_best_there_is(folder: Path) -> None:
    """Also of an embedding, which is stored transposed; and all of it at full rank."""
    text = f'{DECLARED}let x = (m - b)["*.weight"]["*_proj*", "*embed*"]\n'
    build(folder, f'{text}save compress(x, rank=3) to "cut"\nsave compress(x, rank=12) to "all"\n')
    b, m = weights_of(folder / "b"), weights_of(folder / "m")
    for name, rank in (("cut", 3), ("all", 12)):
        tensors = load_file(folder / name / "adapter_model.safetensors")
        scale = json.loads((folder / name / "adapter_config.json").read_text())
        assert scale["lora_alpha"] == scale["r"] == rank
        modules = {key.rpartition(".lora_")[0] for key in tensors}
        assert len(modules) == 5
        for module in modules:
            a, c = (x.double().numpy() for k, x in sorted(tensors.items()) if k.startswith(module))
            delta = c @ a if "embed" not in module else (c @ a).T
            key = module.removeprefix("base_model.model.") + ".weight"
            wanted = torch.as_tensor(m[key] - b[key])
            least = torch.linalg.svdvals(wanted)[rank:].norm().item()
            lost = (torch.as_tensor(delta) - wanted).norm().item()
            assert lost < 1.001 * least + 1e-5


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda at: model(at, shapes={**SHAPES, "lm_head.weight": (31, 12)}), "PEM0307"),
        (lambda at: model(at, shapes={**SHAPES, "more.weight": (3, 3)}), "PEM0307"),
        (lambda at: model(at, quantization_config={"quant_method": "gptq"}), "PEM0431"),
        (lambda at: model(at, shapes={**SHAPES, "none.weight": (0, 3)}), "PEM0417"),
        (lora, "PEM0430"),
    ],
)
def test_models_that_do_not_fit(folder: Path, make: object, code: str) -> None:
    make(folder / "o")  # type: ignore[operator]
    text = 'base b = "b"\nmodel o on b = "o"\n'
    assert codes(folder, f'{text}save b + 0.5 * (o - b) to "out"\n') == [code]


def test_a_truncated_shard_is_said_and_nothing_is_written(folder: Path) -> None:
    shard = folder / "n" / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    assert error(folder, SAVE).code == "PEM0412"
    assert not (folder / "out").exists()


def test_an_input_is_no_output(folder: Path) -> None:
    assert error(folder, f'{DECLARED}save b + (m - b) to "m"\n').code == "PEM0511"


def test_a_task_vector_is_no_file_of_an_adapter(folder: Path) -> None:
    wrong = error(folder, f'{DECLARED}save m - b to "out"\n')
    assert wrong.code == "PEM0421" and "compress(x, rank=16)" in str(wrong.help)


def test_a_large_tokenizer_and_a_broken_one_are_kept_as_they_are(folder: Path) -> None:
    words = json.dumps({"model": {"vocab": {f"word{n}": n for n in range(300_000)}}})
    (folder / "b" / "tokenizer.json").write_text(words)
    (folder / "b" / "vocab.json").write_text("no JSON")
    out = build(folder, f'{DECLARED}save b + 0.5 * (m - b) to "out"\n').outputs[0].path
    assert (out / "tokenizer.json").read_text() == words
    assert (out / "vocab.json").read_text() == "no JSON"
    assert (out / "provenance.json").stat().st_size < 50_000
    assert pem("verify", "out", folder=folder).code == 0
    (out / "vocab.json").write_text("other")
    assert pem("verify", "out", folder=folder).code == 1


def index(at: Path, weight_map: dict[str, str]) -> None:
    """A model in shards whose index says something else."""
    model(at, 3, shards=3)
    (at / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda at: index(at, {}), "PEM0430"),
        (
            lambda at: index(
                at,
                {f"w{n}": f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)},
            ),
            "PEM0412",
        ),
        (lambda at: model(at, shapes={}), "PEM0430"),
    ],
    ids=["empty", "missing", "whole-numbers"],
)
def test_a_model_that_is_not_whole_is_said(folder: Path, make: object, code: str) -> None:
    make(folder / "o")  # type: ignore[operator]
    assert codes(folder, 'model o = "o"\nsave o to "out"\n') == [code]


def test_what_a_killed_build_of_a_model_left_is_removed(folder: Path) -> None:
    build(folder, SAVE)
    left = f"out.{zlib.crc32(b'out'):08x}"
    host = f"{zlib.crc32(socket.gethostname().encode()):08x}"
    stage = folder / f".{left}-{host}{'0' * 16}"
    shutil.copytree(folder / "n", stage)
    assert pem("clean", folder=folder).code == 0
    assert not stage.exists()


def test_a_name_in_a_provenance_leads_nowhere_else(folder: Path) -> None:
    """It is no provenance of a build, and nothing is taken from there."""
    build(folder, SAVE)

    def renamed(statement: dict[str, Any]) -> None:
        for subject in statement["subject"]:
            if subject["name"] == "tokenizer.json":
                subject["name"] = "../outside.json"

    edit(folder / "out", renamed)
    (folder / "outside.json").write_text((folder / "out" / "tokenizer.json").read_text())
    assert "PEM0810" in pem("verify", "out", folder=folder).text


def test_an_expression_on_the_command_line_takes_models(folder: Path) -> None:
    site = "model.layers.0.self_attn.q_proj"
    lora(folder / "a", sites={site: (12, 12)})
    words = ["b + 0.5 * (m - b) + a", "m=m", "b=b", "a=a", "--to", "out"]
    told = pem("build", "-e", *words, folder=folder)
    assert told.code == 0 and 'model b = "b"' in told.out and 'adapter a = "a"' in told.out, told
    assert (folder / "out" / "model.safetensors").exists()


def test_a_report_of_models_leaves_nothing_out(folder: Path) -> None:
    recipe(folder, SAVE)
    assert pem("report", "recipe.pem", "-o", "page.html", folder=folder).code == 0
    assert "Measured are the first" not in (folder / "page.html").read_text()
