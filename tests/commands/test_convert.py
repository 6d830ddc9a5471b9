"""`pem convert`: what it writes, what it leaves alone, and what it refuses and where. That recipes
build what mergekit merges is in tests/oracles/test_mergekit_convert.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import Done, pem

from pemlang.convert import METHODS

TWO = "models: [{model: org/chat-7b}, {model: org/code-7b-v2}]\n"


def convert(folder: Path, text: str) -> Done:
    (folder / "merge.yml").write_text(text)
    return pem("convert", "merge.yml", folder=folder)


def converted(folder: Path, text: str) -> list[str]:
    """The statements of the recipe."""
    assert convert(folder, text).code == 0
    lines = (folder / "merge.pem").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")][1:]


def test_a_recipe_is_as_a_person_writes_it(tmp_path: Path) -> None:
    text = """
models:
  - model: org/Alpha-7B-v0.1
  - model: org/Chat-Alpha-7b@main
    parameters: {weight: [0, 0.3, 1], density: 0.5}
  - model: models/code-7b
    parameters: {weight: 0.5, density: 0.5}
merge_method: ties
base_model: org/Alpha-7B-v0.1
dtype: bfloat16
name: Alpha Merge
"""
    (tmp_path / "models/code-7b").mkdir(parents=True)
    (tmp_path / "merge.yml").write_text(text)
    assert pem("convert", "merge.yml", folder=tmp_path).code == 0
    assert (tmp_path / "merge.pem").read_text() == (
        "# From merge.yml, a configuration of mergekit: ties.\n"
        "language 1\n"
        "\n"
        'base alpha = "hf://org/Alpha-7B-v0.1"\n'
        'model chat_alpha on alpha = "hf://org/Chat-Alpha-7b@main"\n'
        'model code on alpha = "models/code-7b"\n'
        "\n"
        'let chat_alpha_weight = per { "*.layers.*": ramp([0, 0.3, 1]), else: 0 }\n'
        "let merged = alpha + ties(\n"
        "    [chat_alpha - alpha, code - alpha],\n"
        "    weights=[chat_alpha_weight, 0.5],\n"
        "    density=0.5,\n"
        "    normalize=weights,\n"
        ")\n"
        "\n"
        'save merged to "out/Alpha-Merge" with dtype=bf16\n'
    )


def test_each_model_may_have_a_density_of_its_own(tmp_path: Path) -> None:
    models = "models: [{model: org/a, parameters: {density: 0.7}}, {model: org/b}]\n"
    rest = "merge_method: dare_ties\nbase_model: org/o\nparameters: {weight: 1, density: 0.3}\n"
    lines = converted(tmp_path, models + rest)
    assert "let sparse_a = dare([a - o], density=0.7, rescale=l1)" in lines
    assert "let sparse_b = dare([b - o], density=0.3, rescale=l1)" in lines
    merged = "ties([sparse_a, sparse_b], density=1, normalize=off)"
    assert f"let merged = o + {merged}" in lines


def test_an_adapter_beside_a_model_is_added_to_it(tmp_path: Path) -> None:
    text = "models: [{model: org/o+org/lora, parameters: {weight: 0.5}}]\n"
    lines = converted(tmp_path, text + "merge_method: task_arithmetic\nbase_model: org/o\n")
    assert 'adapter lora = "hf://org/lora"' in lines
    assert "let o_lora = o + lora" in lines
    assert "let merged = o + 0.5 * (o_lora - o)" in lines


def test_slices_of_layers_are_stacked(tmp_path: Path) -> None:
    text = """
slices:
  - sources: [{model: org/a, layer_range: [0, 16]}]
  - sources: [{model: org/b, layer_range: [8, 32]}]
merge_method: passthrough
"""
    lines = converted(tmp_path, text)
    assert "let merged = stack(a[layers 0..15], b[layers 8..31])" in lines


def test_layers_that_may_not_be_all_are_warned_of(tmp_path: Path) -> None:
    sources = "[{model: a, layer_range: [0, 4]}, {model: b, layer_range: [0, 4]}]"
    text = f"slices: [{{sources: {sources}}}]\nmerge_method: slerp\nbase_model: b\n"
    text += "parameters: {t: 0.5}\n"
    for layers, warned, value in (
        (None, True, "slerp(b, a, t=0.5)"),
        (4, False, "slerp(b, a, t=0.5)"),
        (8, False, "slerp(b[layers 0..3], a[layers 0..3], t=0.5)"),
    ):
        if layers:
            (tmp_path / "a").mkdir(exist_ok=True)
            (tmp_path / "a/config.json").write_text(json.dumps({"num_hidden_layers": layers}))
        done = convert(tmp_path, text)
        assert done.code == 0 and ("PEM0834" in done.err) == warned
        recipe = tmp_path / "merge.pem"
        assert f"let merged = {value}" in recipe.read_text()
        recipe.unlink()


def test_filters_stand_in_order_and_their_signs_are_plain(tmp_path: Path) -> None:
    setting = "[{filter: 'mlp*', value: [1, 0]}, {filter: norm, value: [1, 0]}, {value: 0.5}]"
    text = f"{TWO}merge_method: slerp\nbase_model: org/chat-7b\nparameters: {{t: {setting}}}\n"
    (tmp_path / "merge.yml").write_text(text)
    assert pem("convert", "merge.yml", folder=tmp_path).code == 0
    written = " ".join((tmp_path / "merge.pem").read_text().split())
    inner = 'per { "*.layers.*": ramp(1, 0), else: 1 }'
    assert f'"*mlp[*]*": ramp(1, 0), "*norm*": {inner}, else: 0.5' in written


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("merge_method: ties\n", "PEM0832", 1),
        (TWO + "merge_method: tise\n", "PEM0832", 2),
        (TWO + "merge_method: ties\n", "PEM0832", 2),
        (TWO + "merge_method: ties\nbase_model: org/o\n", "PEM0832", 1),
        (TWO + "merge_method: slerp\nbase_model: org/o\nparameters: {t: 0}\n", "PEM0832", 1),
        (TWO + "merge_method: linear\nparameters:\n  weight: half\n", "PEM0832", 4),
        (TWO + "merge_method: linear\nparameters:\n  weight: .inf\n", "PEM0831", 4),
        (TWO + "merge_method: linear\nparameters:\n  weight: 1.0e+99999999\n", "PEM0831", 4),
        (TWO + "merge_method: linear\nparameters: {weight: 1}\ndtype: int4\n", "PEM0832", 4),
        (TWO + "merge_method: karcher\nchat_template: auto\n", "PEM0833", 3),
        (TWO + "merge_method: karcher\ntokenizer: {source: base, tokens: {}}\n", "PEM0833", 3),
        (TWO + "merge_method: ramplus\nbase_model: org/o\n", "PEM0832", 2),
        (TWO + "merge_method: !!python/object:os.system x\n", "PEM0831", 2),
        ("models: " + "[" * 100_000, "PEM0831", 1),
        ("? [a]\n: 1\n", "PEM0831", 1),
        ("- 1\n", "PEM0832", 1),
        ("models: [{model: a+b+c}]\nmerge_method: linear\n", "PEM0832", 1),
        ("modules: {text: {models: []}, vision: {}}\nmerge_method: linear\n", "PEM0833", 1),
        (
            TWO + "merge_method: ties\nbase_model: org/o\n"
            "parameters:\n  weight: 1\n  density: 0.5\n  rescale: true\n",
            "PEM0833",
            7,
        ),
        (
            TWO + "merge_method: nuslerp\nparameters:\n  weight: 1\n"
            "  nuslerp_flatten: [{filter: mlp, value: 0}, {value: 1}]\n",
            "PEM0833",
            5,
        ),
        (
            "models: [{model: org/a}]\nmerge_method: passthrough\nparameters: {scale: 2}\n",
            "PEM0833",
            3,
        ),
    ],
)
def test_what_does_not_carry_over_is_an_error_at_its_line(
    tmp_path: Path, text: str, code: str, line: int
) -> None:
    (tmp_path / "merge.yml").write_text(text)
    done = pem("convert", "merge.yml", "--format", "json", folder=tmp_path)
    [told] = json.loads(done.out)["messages"]
    assert (done.code, told["code"], told["start"]["line"]) == (1, code, line), told
    assert not (tmp_path / "merge.pem").exists()


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "merge.pem").write_text("mine")
    done = convert(tmp_path, TWO + "merge_method: karcher\n")
    assert done.code == 2 and "is there already" in done.err
    assert (tmp_path / "merge.pem").read_text() == "mine"


def test_paths_are_seen_from_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "models/a").mkdir(parents=True)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "merge.yml").write_text("models: [{model: models/a}]\nmerge_method: passthrough\n")
    to = tmp_path / "recipes/a.pem"
    assert pem("convert", "merge.yml", "-o", to, folder=tmp_path).code == 0
    assert 'model a = "../models/a"' in to.read_text()

    (tmp_path / "merge.yml").write_text("models: [{model: ../a}]\nmerge_method: passthrough\n")
    assert pem("convert", "merge.yml", folder=tmp_path).code == 0
    assert 'model a = "../a"' in (tmp_path / "merge.pem").read_text(), "no name on the hub"


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_every_method_is_converted(tmp_path: Path, method: object) -> None:
    record = METHODS[method.name]  # type: ignore[attr-defined]
    needed = [k for k, v in {**record.of_all, **record.of_each}.items() if v is None]
    models = TWO if record.models in (None, 2) else "models: [{model: org/chat-7b}]\n"
    base = "base_model: org/o\n" if record.base in ("origin", "first") else ""
    settings = ", ".join(f"{name}: 0.5" for name in needed)
    text = f"{models}merge_method: {record.name}\n{base}parameters: {{{settings}}}\n"
    done = convert(tmp_path, text)
    assert done.code == 0, done
    assert "let merged = " in (tmp_path / "merge.pem").read_text()
