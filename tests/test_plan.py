"""`pem plan`: what it says a build would do, held to what the build then does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hub_server import serving
from safetensors import safe_open
from support import SITES, build, config_of, edit, lora, recipe

import pemlang
from pemlang.cli.main import cli
from pemlang.pipeline.build import How
from pemlang.pipeline.forecast import Forecast, Outlook
from pemlang.show.plan import as_json, as_markdown, as_text

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
DECLARED = 'adapter a = "a"\nadapter b = "b"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2)
    return tmp_path


def outlook(folder: Path, text: str, **params: Any) -> Outlook:
    return pemlang.load(recipe(folder, text), params).outlook()


def one(found: Outlook) -> Forecast:
    [output] = found.outputs
    return output


def tensor_bytes(path: Path) -> int:
    """Bytes of the tensors of a file, by the safetensors package."""
    with safe_open(path / WEIGHTS, "np") as file:
        return sum(file.get_tensor(key).nbytes for key in file.keys())  # noqa: SIM118


OUTPUTS = [
    'save a + 0.5 * b to "out/x"',
    'save 0.3 ⊗ a ⊕ 0.7 ⊗ b to "out/x"',
    'save a + b to "out/x" with rank=3',
    'save a + b to "out/x" with dtype=bf16',
    'save (a + b)["*.query"] to "out/x"',
    'save pad(a, rank=9) to "out/x"',
    'save ties([a, b], density=0.5, rank=4) to "out/x"',
    'save ramp(1, 0.2) * a - b to "out/x"',
    'save cosine(a, b) * a + b to "out/x"',
    'save a - a to "out/x"',
]


@pytest.mark.parametrize("text", OUTPUTS)
def test_a_plan_is_what_the_build_does(folder: Path, text: str) -> None:
    found = outlook(folder, DECLARED + text)
    said = one(found)
    assert not (folder / "out").exists()
    [built] = build(folder, DECLARED + text).outputs
    file = built.path / WEIGHTS
    assert said.size == found.written == file.stat().st_size
    assert said.semantic_hash == built.semantic_hash
    with safe_open(file, "np") as opened:
        assert opened.metadata()["pemlang_semantic_hash"] == said.semantic_hash
        keys = list(opened.keys())
        dtypes = {str(opened.get_slice(key).get_dtype()) for key in keys}
        ranks = {opened.get_slice(k).get_shape()[0] for k in keys if "lora_A" in k}
    assert dtypes == {said.dtype}
    assert said.ranks is not None
    assert ranks == set(range(said.ranks[0], said.ranks[1] + 1)) or said.ranks[1] == 0
    assert not said.at_most
    assert (said.stays, said.why) == (False, "not built yet")


def test_each_byte_of_an_input_is_read_once(folder: Path) -> None:
    found = outlook(folder, DECLARED + 'let x = a + b\nsave x - 0.5 * a to "out/x"')
    assert found.read == tensor_bytes(folder / "a") + tensor_bytes(folder / "b")
    part = outlook(folder, DECLARED + 'save a["*.query"] to "out/x"')
    assert part.read == tensor_bytes(folder / "a") // 2
    assert found.written == one(found).size


def test_a_sum_of_the_parameters_takes_two_operations_an_element(folder: Path) -> None:
    found = outlook(folder, DECLARED + 'save a ⊕ 0.7 ⊗ b to "out/x"')
    elements = tensor_bytes(folder / "a") // 4
    assert elements <= found.flops <= 3 * elements
    again = outlook(folder, DECLARED + 'save a ⊕ 0.7 ⊗ b to "x"\nsave a ⊕ 0.6 ⊗ b to "y"')
    assert again.flops == 2 * found.flops


def test_a_cut_takes_more_than_a_sum(folder: Path) -> None:
    whole = outlook(folder, DECLARED + 'save a + b to "out/x"')
    cut = outlook(folder, DECLARED + 'save a + b to "out/x" with rank=3')
    # Two QR decompositions at least: 2·(out + in)·R² at each site.
    assert cut.flops - whole.flops > sum(2 * (o + i) * 8**2 for o, i in SITES.values())


def test_the_memory_it_names_is_enough(folder: Path) -> None:
    sites = {f"layers.{i}.q_proj": (300, 200) for i in range(3)}
    for seed, name in enumerate("ab"):
        lora(folder / name, seed, sites, rank=40)
    text = DECLARED + 'save a + b to "out/x" with rank=30\nsave a ⊕ b to "out/y"\n'
    found = outlook(folder, text)
    how = How(threads=found.threads, memory=found.memory)
    pemlang.load(recipe(folder, text)).build(how=how)
    with pytest.raises(pemlang.PemError, match="PEM0521"):
        pemlang.load(recipe(folder, text)).build(how=How(threads=1, memory=1000, force=True))


def test_a_rank_by_energy_is_a_bound(folder: Path) -> None:
    text = DECLARED + 'save a + b to "out/x" with energy=0.7'
    found = outlook(folder, text)
    assert one(found).at_most
    assert "rank 8, 4 sites at most" in as_text(found)
    [built] = build(folder, text).outputs
    assert built.size <= one(found).size
    assert config_of(built.path)["r"] < 8
    assert built.semantic_hash == one(found).semantic_hash
    inside = outlook(folder, DECLARED + 'save compress(a + b, energy=0.7) + a to "out/y"')
    assert one(inside).at_most


def test_numbers_that_are_measured_are_named(folder: Path) -> None:
    text = DECLARED + 'assert norm(b) > 0\nsave cosine(a, b) * a + b to "out/x"'
    found = outlook(folder, text)
    cosine, norm = found.measured
    assert (cosine in ("cosine(a, b)", "cosine(b, a)"), norm) == (True, "norm(b)")
    assert f"measured from weights first\n  {cosine}\n  {norm}" in as_text(found)


def test_adapters_and_names_are_told(folder: Path) -> None:
    lora(folder / "c", 3, rank=8, alpha=16)
    text = DECLARED + 'adapter c = "c"\nlet mid = (a + b) / 2\nsave mid to "out/x"'
    found = outlook(folder, text)
    assert [(one.name, one.path, one.used) for one in found.inputs] == [
        ("a", "a", True), ("b", "b", True), ("c", "c", False),
    ]  # fmt: skip
    assert [one.size for one in found.inputs] == [tensor_bytes(folder / n) for n in "abc"]
    assert [(one.name, one.value) for one in found.bindings] == [("mid", "0.5·a + 0.5·b")]
    shown = as_text(found)
    assert "c  (not used)" in shown
    assert "LoRA, rank 8, 4 sites" in shown


# --- what is there already -----------------------------------------------------------------

TEXT = DECLARED + 'save a + b to "out/x"\n'


def nothing(at: Path) -> None:
    pass


def flipped(at: Path) -> None:
    data = bytearray((at / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (at / WEIGHTS).write_bytes(data)


def other_field(at: Path) -> None:
    (at / CONFIG).write_text((at / CONFIG).read_text().replace('"lora_alpha": ', '"lora_alpha": 1'))


def no_tensors(at: Path) -> None:
    (at / WEIGHTS).unlink()


def no_provenance(at: Path) -> None:
    (at / "provenance.json").unlink()


def junk_provenance(at: Path) -> None:
    (at / "provenance.json").write_text("[" * 9999)


def other_version(at: Path) -> None:
    def older(said: Any) -> None:
        said["predicate"]["runDetails"]["builder"]["version"]["pemlang"] = "0.0.1"

    edit(at, older)


STATES = {
    nothing: "",
    flipped: f"its {WEIGHTS} is not what was built",
    other_field: f"its {CONFIG} is not what was built",
    no_tensors: f"its {WEIGHTS} cannot be read",
    no_provenance: "what is there has no provenance.json that this version reads",
    junk_provenance: "what is there has no provenance.json that this version reads",
    other_version: "pemlang 0.0.1 built it",
}


@pytest.mark.parametrize("change", STATES, ids=lambda change: change.__name__)
def test_whether_an_output_stays_is_what_the_build_does(
    folder: Path, change: Callable[[Path], None]
) -> None:
    build(folder, TEXT)
    change(folder / "out/x")
    found = outlook(folder, TEXT)
    assert (one(found).stays, one(found).why) == (not STATES[change], STATES[change])
    assert (found.written == 0) == one(found).stays
    assert (found.kernels == (0, 0)) == one(found).stays
    assert ("nothing to build" in as_text(found)) == one(found).stays
    [built] = build(folder, TEXT).outputs
    assert built.was_there == one(found).stays
    assert one(outlook(folder, TEXT)).stays


def test_a_change_of_meaning_is_why_an_output_is_built(folder: Path) -> None:
    before = build(folder, TEXT).outputs[0].semantic_hash
    found = outlook(folder, TEXT.replace("a + b", "a - b"))
    assert one(found).why == f"its meaning has changed: {before[:12]}… is there"
    assert one(outlook(folder, TEXT.replace("a + b", "b + a"))).stays


def test_only_what_is_not_there_counts(folder: Path) -> None:
    build(folder, TEXT)
    found = outlook(folder, TEXT + 'save a - b to "out/y"\n')
    assert [one.stays for one in found.outputs] == [True, False]
    assert found.written == found.outputs[1].size


def test_a_directory_that_is_not_ours_is_refused_as_by_a_build(folder: Path) -> None:
    lora(folder / "out/x", 5)
    with pytest.raises(pemlang.PemError, match="PEM0510"):
        outlook(folder, TEXT)
    with pytest.raises(pemlang.PemError, match="PEM0511"):
        outlook(folder, DECLARED + 'save b to "a"')


def test_a_plan_for_another_folder_looks_there(folder: Path) -> None:
    build(folder, TEXT)
    elsewhere = pemlang.load(recipe(folder, TEXT)).outlook(folder / "there")
    assert not one(elsewhere).stays


def test_no_number_of_a_tensor_is_looked_at(folder: Path) -> None:
    data = bytearray((folder / "a" / WEIGHTS).read_bytes())
    data[-4:] = np.float32("nan").tobytes()
    (folder / "a" / WEIGHTS).write_bytes(data)
    assert outlook(folder, DECLARED + 'save cosine(a, b) * a + b to "out/x"').read > 0


def test_a_recipe_that_saves_nothing_has_a_plan(folder: Path) -> None:
    found = outlook(folder, DECLARED + "let x = a + b\n")
    assert (found.outputs, found.read, found.written) == ([], 0, 0)
    shown = as_text(found)
    assert "x  LoRA, rank 8, 4 sites  = 1·a + 1·b" in shown
    assert "outputs\n  none\n\nnothing to build: the recipe saves nothing" in shown
    assert outlook(folder, "let x = 1\n").inputs == []


def test_a_wrong_recipe_has_none(folder: Path) -> None:
    recipe(folder, DECLARED + "save a + c to 'x'\n")
    done = CliRunner().invoke(cli, ["plan", str(folder / "recipe.pem")], standalone_mode=False)
    assert (done.return_value, "error[PEM" in done.output) == (1, True)


def test_warnings_are_told(folder: Path) -> None:
    recipe(folder, DECLARED + 'save a + b to "out/x" with rank=1\n')
    done = CliRunner().invoke(cli, ["plan", str(folder / "recipe.pem")], standalone_mode=False)
    assert done.return_value == 0


# --- shown ---------------------------------------------------------------------------------

HOSTILE = "a|b`c``<img src=x onerror=y>[l](javascript:z)*_~\\"


@pytest.fixture
def hostile(folder: Path) -> Outlook:
    (folder / "a").rename(folder / HOSTILE)
    written = HOSTILE.replace("\\", "\\\\")
    text = f'adapter a = "{written}"\nadapter b = "b"\nsave a + b to "out/{written}"\n'
    return outlook(folder, text)


def cells(row: str) -> int:
    """The cells of a row of a Markdown table."""
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) - 1


def test_a_table_holds_whatever_names_say(hostile: Outlook) -> None:
    shown = as_markdown(hostile)
    tables = [block.splitlines() for block in shown.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for rows in tables:
        assert {cells(row) for row in rows} == {5}
    bare = re.sub(r"(`+)(?:(?!`).)*?\1(?!`)", "", shown)
    assert "<img" not in bare.replace("\\<", "")
    assert "](" not in bare.replace("\\]", "")


def test_the_plan_as_json_is_all_of_it(hostile: Outlook) -> None:
    found = json.loads(json.dumps(as_json(hostile)))
    assert found["outputs"][0]["path"] == f"out/{HOSTILE}"
    assert found["inputs"][0]["path"] == HOSTILE
    assert found["outputs"][0]["semantic_hash"] == one(hostile).semantic_hash
    assert found["locked"] is False


def test_a_name_stays_on_its_line(folder: Path) -> None:
    (folder / "a").rename(folder / "a\nb")
    found = outlook(folder, 'adapter a = "a\\nb"\nsave a to "out/x"\n')
    assert found.inputs[0].path == "a\nb"
    assert "a\\u000ab" in as_text(found).splitlines()[1]


def test_an_adapter_of_the_hub_is_planned_before_it_is_fetched(tmp_path: Path) -> None:
    lora(tmp_path / "source", 1, {f"m.layers.{i}.q": (64, 64) for i in range(9)}, rank=64)
    recipe(tmp_path / "home", 'adapter a = "hf://org/a"\nsave a to "out/x"\n')
    with serving({"org/a": {"main": tmp_path / "source"}}) as hub:
        env = os.environ | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "pemlang", "plan", "recipe.pem", "--format", "json"],
            cwd=tmp_path / "home", env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        found = json.loads(done.stdout)
        assert hub.bytes_of(WEIGHTS) < (tmp_path / "source" / WEIGHTS).stat().st_size
    assert found["outputs"][0]["semantic_hash"] is None
    assert found["inputs"][0]["content"] is None
    assert found["outputs"][0]["why"] == "the tensors of an input are not here yet"
