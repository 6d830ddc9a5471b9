"""`pem plan`: what it says a build would do, held to what the build then does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from support import SITES, build, config_of, edit, lora, pem, recipe
from support.hub_server import serving
from support.outputs import CONFIG, DECLARED, PROVENANCE, WEIGHTS, flip

import pemlang
from pemlang.pipeline import Forecast, OutputForecast


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2)
    return tmp_path


def planned(folder: Path, text: str, **params: Any) -> Forecast:
    return pemlang.load(recipe(folder, text), params).plan()


def only(forecast: Forecast) -> OutputForecast:
    """The one output of a plan."""
    [output] = forecast.outputs
    return output


def shown(folder: Path, text: str, *words: str) -> str:
    """What the command line writes of a plan."""
    done = pem("plan", recipe(folder, text), *words)
    assert (done.code, done.err) == (0, "")
    return done.out


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
    forecast = planned(folder, DECLARED + text)
    output = only(forecast)
    assert not (folder / "out").exists()
    [built] = build(folder, DECLARED + text).outputs
    file = built.path / WEIGHTS
    assert output.size == forecast.written == file.stat().st_size
    assert output.semantic_hash == built.semantic_hash
    with safe_open(file, "np") as opened:
        assert opened.metadata()["pemlang_semantic_hash"] == output.semantic_hash
        keys = list(opened.keys())
        dtypes = {str(opened.get_slice(key).get_dtype()) for key in keys}
        ranks = {opened.get_slice(k).get_shape()[0] for k in keys if "lora_A" in k}
    assert dtypes == {output.dtype}
    assert output.ranks is not None
    least, most = output.ranks
    assert ranks == set(range(least, most + 1)) or most == 0
    assert not output.at_most
    assert (output.stays, output.why) == (False, "not built yet")


def test_each_byte_of_an_input_is_read_once(folder: Path) -> None:
    forecast = planned(folder, DECLARED + 'let x = a + b\nsave x - 0.5 * a to "out/x"')
    assert forecast.read == tensor_bytes(folder / "a") + tensor_bytes(folder / "b")
    assert forecast.written == only(forecast).size
    part = planned(folder, DECLARED + 'save a["*.query"] to "out/x"')
    assert part.read == tensor_bytes(folder / "a") // 2


def test_a_sum_of_the_parameters_takes_two_operations_an_element(folder: Path) -> None:
    forecast = planned(folder, DECLARED + 'save a ⊕ 0.7 ⊗ b to "out/x"')
    elements = tensor_bytes(folder / "a") // 4
    assert elements <= forecast.flops <= 3 * elements
    twice = planned(folder, DECLARED + 'save a ⊕ 0.7 ⊗ b to "x"\nsave a ⊕ 0.6 ⊗ b to "y"')
    assert twice.flops == 2 * forecast.flops


def test_a_cut_takes_more_than_a_sum(folder: Path) -> None:
    whole = planned(folder, DECLARED + 'save a + b to "out/x"')
    cut = planned(folder, DECLARED + 'save a + b to "out/x" with rank=3')
    # Two QR decompositions at least: 2·(out + in)·R² at each site.
    assert cut.flops - whole.flops > sum(2 * (o + i) * 8**2 for o, i in SITES.values())


def test_the_memory_it_names_is_enough(folder: Path) -> None:
    sites = {f"layers.{i}.q_proj": (300, 200) for i in range(3)}
    for seed, name in enumerate("ab"):
        lora(folder / name, seed, sites, rank=40)
    text = DECLARED + 'save a + b to "out/x" with rank=30\nsave a ⊕ b to "out/y"\n'
    forecast = planned(folder, text)
    enough = pemlang.BuildOptions(threads=forecast.threads, memory=forecast.memory)
    pemlang.load(recipe(folder, text)).build(options=enough)
    scarce = pemlang.BuildOptions(threads=1, memory=1000, force=True)
    with pytest.raises(pemlang.PemError, match="PEM0521"):
        pemlang.load(recipe(folder, text)).build(options=scarce)


def test_a_rank_by_energy_is_a_bound(folder: Path) -> None:
    text = DECLARED + 'save a + b to "out/x" with energy=0.7'
    output = only(planned(folder, text))
    assert output.at_most
    assert "rank 8, 4 sites at most" in shown(folder, text)
    [built] = build(folder, text).outputs
    assert built.size <= output.size
    assert config_of(built.path)["r"] < 8
    assert built.semantic_hash == output.semantic_hash
    inside = planned(folder, DECLARED + 'save compress(a + b, energy=0.7) + a to "out/y"')
    assert only(inside).at_most


def test_numbers_that_are_measured_are_named(folder: Path) -> None:
    text = DECLARED + 'assert norm(b) > 0\nsave cosine(a, b) * a + b to "out/x"'
    cosine, norm = planned(folder, text).measured
    assert (cosine in ("cosine(a, b)", "cosine(b, a)"), norm) == (True, "norm(b)")
    assert f"measured from weights first\n  {cosine}\n  {norm}" in shown(folder, text)


def test_adapters_and_names_are_told(folder: Path) -> None:
    lora(folder / "c", 3, rank=8, alpha=16)
    text = DECLARED + 'adapter c = "c"\nlet mid = (a + b) / 2\nsave mid to "out/x"'
    forecast = planned(folder, text)
    assert [(adapter.name, adapter.path, adapter.used) for adapter in forecast.inputs] == [
        ("a", "a", True), ("b", "b", True), ("c", "c", False),
    ]  # fmt: skip
    assert [adapter.size for adapter in forecast.inputs] == [
        tensor_bytes(folder / name) for name in "abc"
    ]
    assert [(x.name, x.value) for x in forecast.bindings] == [("mid", "0.5·a + 0.5·b")]
    lines = shown(folder, text)
    assert "c  (not used)" in lines
    assert "LoRA, rank 8, 4 sites" in lines


# --- what is there already -----------------------------------------------------------------

TEXT = DECLARED + 'save a + b to "out/x"\n'


def nothing(place: Path) -> None:
    pass


def flipped(place: Path) -> None:
    flip(place / WEIGHTS, -1)


def other_field(place: Path) -> None:
    path = place / CONFIG
    path.write_text(path.read_text().replace('"lora_alpha": ', '"lora_alpha": 1'))


def no_tensors(place: Path) -> None:
    (place / WEIGHTS).unlink()


def no_provenance(place: Path) -> None:
    (place / PROVENANCE).unlink()


def junk_provenance(place: Path) -> None:
    (place / PROVENANCE).write_text("[" * 9999)


def other_version(place: Path) -> None:
    def older(statement: Any) -> None:
        builder = statement["predicate"]["runDetails"]["builder"]
        builder["version"]["pemlang"] = "0.0.1"

    edit(place, older)


STATES = {
    nothing: "",
    no_tensors: f"its {WEIGHTS} cannot be read",
    other_version: "pemlang 0.0.1 built it",
}
CHANGED = {
    flipped: f"its {WEIGHTS} is not what was built",
    other_field: f"its {CONFIG} is not what was built",
    no_provenance: "it has no provenance.json",
    junk_provenance: "its provenance.json is not what a build wrote",
}


@pytest.mark.parametrize("change", STATES, ids=lambda change: change.__name__)
def test_whether_an_output_stays_is_what_the_build_does(
    folder: Path, change: Callable[[Path], None]
) -> None:
    build(folder, TEXT)
    change(folder / "out/x")
    forecast = planned(folder, TEXT)
    output = only(forecast)
    assert (output.stays, output.why) == (not STATES[change], STATES[change])
    assert (forecast.written == 0) == output.stays
    assert (forecast.kernels == (0, 0)) == output.stays
    assert ("nothing to build" in shown(folder, TEXT)) == output.stays
    [built] = build(folder, TEXT).outputs
    assert built.was_there == output.stays
    assert only(planned(folder, TEXT)).stays


@pytest.mark.parametrize("change", CHANGED, ids=lambda change: change.__name__)
def test_what_a_build_would_not_replace_is_said(
    folder: Path, change: Callable[[Path], None]
) -> None:
    build(folder, TEXT)
    change(folder / "out/x")
    for way in (planned, build):
        with pytest.raises(pemlang.PemError, match=f"PEM0510.*{CHANGED[change]}"):
            way(folder, TEXT)


def test_a_change_of_meaning_is_why_an_output_is_built(folder: Path) -> None:
    before = build(folder, TEXT).outputs[0].semantic_hash
    output = only(planned(folder, TEXT.replace("a + b", "a - b")))
    assert output.why == f"its meaning has changed: {before[:12]}… is there"
    assert only(planned(folder, TEXT.replace("a + b", "b + a"))).stays


def test_only_what_is_not_there_counts(folder: Path) -> None:
    build(folder, TEXT)
    forecast = planned(folder, TEXT + 'save a - b to "out/y"\n')
    assert [output.stays for output in forecast.outputs] == [True, False]
    assert forecast.written == forecast.outputs[1].size


def test_a_directory_that_is_not_ours_is_refused_as_by_a_build(folder: Path) -> None:
    lora(folder / "out/x", 5)
    with pytest.raises(pemlang.PemError, match="PEM0510"):
        planned(folder, TEXT)
    with pytest.raises(pemlang.PemError, match="PEM0511"):
        planned(folder, DECLARED + 'save b to "a"')


def test_a_plan_for_another_folder_looks_there(folder: Path) -> None:
    build(folder, TEXT)
    elsewhere = pemlang.load(recipe(folder, TEXT)).plan(folder / "there")
    assert not only(elsewhere).stays


def test_no_number_of_a_tensor_is_looked_at(folder: Path) -> None:
    data = bytearray((folder / "a" / WEIGHTS).read_bytes())
    data[-4:] = np.float32("nan").tobytes()
    (folder / "a" / WEIGHTS).write_bytes(data)
    assert planned(folder, DECLARED + 'save cosine(a, b) * a + b to "out/x"').read > 0


def test_a_recipe_that_saves_nothing_has_a_plan(folder: Path) -> None:
    text = DECLARED + "let x = a + b\n"
    forecast = planned(folder, text)
    assert (forecast.outputs, forecast.read, forecast.written) == ([], 0, 0)
    lines = shown(folder, text)
    assert "x  LoRA, rank 8, 4 sites  = 1·a + 1·b" in lines
    assert "outputs\n  none\n\nnothing to build: the recipe saves nothing" in lines
    assert planned(folder, "let x = 1\n").inputs == []


def test_a_wrong_recipe_has_none(folder: Path) -> None:
    done = pem("plan", recipe(folder, DECLARED + "save a + c to 'x'\n"))
    assert (done.code, "error[PEM" in done.err) == (1, True)


def test_warnings_are_told(folder: Path) -> None:
    text = DECLARED + 'save a + b to "out/x" with rank=1\n'
    assert pem("plan", recipe(folder, text)).code == 0


# --- shown ---------------------------------------------------------------------------------

HOSTILE = "a|b`c``<img src=x onerror=y>[l](javascript:z)*_~\\"


@pytest.fixture
def hostile(folder: Path) -> str:
    """A recipe with a name that says something in Markdown, HTML and JSON."""
    (folder / "a").rename(folder / HOSTILE)
    written = HOSTILE.replace("\\", "\\\\")
    return f'adapter a = "{written}"\nadapter b = "b"\nsave a + b to "out/{written}"\n'


def cells(row: str) -> int:
    """The cells of a row of a Markdown table."""
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) - 1


def test_a_table_holds_whatever_names_say(folder: Path, hostile: str) -> None:
    text = shown(folder, hostile, "--format", "markdown")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for rows in tables:
        assert {cells(row) for row in rows} == {5}
    bare = re.sub(r"(`+)(?:(?!`).)*?\1(?!`)", "", text)
    assert "<img" not in bare.replace("\\<", "")
    assert "](" not in bare.replace("\\]", "")


def test_the_plan_as_json_is_all_of_it(folder: Path, hostile: str) -> None:
    told = json.loads(shown(folder, hostile, "--format", "json"))
    assert told["outputs"][0]["path"] == f"out/{HOSTILE}"
    assert told["inputs"][0]["path"] == HOSTILE
    assert told["outputs"][0]["semantic_hash"] == only(planned(folder, hostile)).semantic_hash
    assert told["locked"] is False


def test_a_name_stays_on_its_line(folder: Path) -> None:
    (folder / "a").rename(folder / "a\nb")
    text = 'adapter a = "a\\nb"\nsave a to "out/x"\n'
    assert planned(folder, text).inputs[0].path == "a\nb"
    assert "a\\u000ab" in shown(folder, text).splitlines()[1]


def test_an_adapter_of_the_hub_is_planned_before_it_is_fetched(tmp_path: Path) -> None:
    source = lora(tmp_path / "source", 1, {f"m.layers.{i}.q": (64, 64) for i in range(9)}, rank=64)
    path = recipe(tmp_path / "home", 'adapter a = "hf://org/a"\nsave a to "out/x"\n')
    with serving({"org/a": {"main": source}}) as hub:
        env = hub.env(tmp_path / "cache")
        done = pem("plan", path, "--format", "json", process=True, **env)
        assert (done.code, done.err) == (0, "")
        told = json.loads(done.out)
        assert hub.bytes_of(WEIGHTS) < (source / WEIGHTS).stat().st_size
    assert told["outputs"][0]["semantic_hash"] is None
    assert told["inputs"][0]["content"] is None
    assert told["outputs"][0]["why"] == "the tensors of an input are not here yet"
