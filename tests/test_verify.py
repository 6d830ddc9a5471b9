"""An output and where it came from: what stays, what is named when it differs, and the same bytes
once more."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import PREFIX, build, edit, lora, recipe

import pemlang
from pemlang.artifact import staging as place
from pemlang.artifact import write as finish
from pemlang.artifact.verify import Verified, rebuild, verify
from pemlang.cli.main import cli
from pemlang.pipeline.build import How, Sweep
from pemlang.tensorfiles import digests

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PROVENANCE = "provenance.json"
DECLARED = 'adapter a = "a"\nadapter b = "b"\n'
LIBRARY = 'import "lib/w.pem" (half)\nimport std.paper (merge)\n'
TEXT = LIBRARY + DECLARED + 'save half * a + b to "out/x"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "home"
    lora(found / "a", 1)
    lora(found / "b", 2)
    recipe(found / "lib", "let half = 0.5\n", "w.pem")
    return found


@pytest.fixture
def output(folder: Path) -> Path:
    return build(folder, TEXT).outputs[0].path


def run(*words: str | Path) -> tuple[int, str]:
    """Exit code and all that is said, in this process; what would be a traceback is raised."""
    done = CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.return_value or 0, done.output


def statement(output: Path) -> Any:
    return json.loads((output / PROVENANCE).read_text())


def asked(said: Any) -> Any:
    return said["predicate"]["buildDefinition"]["externalParameters"]


def unlike(found: Verified) -> dict[str, tuple[str, ...]]:
    """What differs or is missing, with the details of each."""
    every = [*found.outputs, *found.materials, *(found.rebuilt or [])]
    fine = ("same", "unchecked")
    return {one.what: (one.state, *one.details) for one in every if one.state not in fine}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# --- the statement -------------------------------------------------------------------------


def test_the_statement_is_one_of_in_toto(output: Path) -> None:
    said = statement(output)
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    files = {one["name"]: one for one in said["subject"]}
    assert files.keys() == {path.name for path in output.iterdir()} - {PROVENANCE}
    for name, one in files.items():
        data = (output / name).read_bytes()
        assert one["digest"] == {
            "sha256": hashlib.sha256(data).hexdigest(),
            "blake3": blake3(data).hexdigest(),
        }
    assert files[CONFIG]["annotations"]["parts"] == json.loads((output / CONFIG).read_text())
    tensors = load_file(output / WEIGHTS)
    assert files[WEIGHTS]["annotations"]["parts"] == {
        key: blake3(f"F32 {list(value.shape)}\n".encode() + value.numpy().tobytes()).hexdigest()
        for key, value in tensors.items()
    }
    assert asked(said)["recipe"] == {"name": "recipe.pem", "text": TEXT}
    folder = output.parent.parent
    for one in said["predicate"]["buildDefinition"]["resolvedDependencies"]:
        if one["uri"] != "std.paper":
            data = (folder / one["uri"]).read_bytes()
            assert one["digest"]["blake3"] == blake3(data).hexdigest()


def test_the_statement_names_no_machine_and_no_time(folder: Path, tmp_path: Path) -> None:
    build(folder, TEXT)
    first = (folder / "out/x" / PROVENANCE).read_bytes()
    assert str(tmp_path).encode() not in first
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere/deep")
    pemlang.load(elsewhere / "recipe.pem").build(how=How(force=True, threads=1))
    assert (elsewhere / "out/x" / PROVENANCE).read_bytes() == first


def test_where_an_output_came_from_is_told(output: Path) -> None:
    status, said = run("explain-output", output)
    assert status == 0
    for wanted in ("half * a + b = 0.5·a + 1·b", "LoRA, rank 8, 4 sites", "a/adapter_config.json"):
        assert wanted in said
    assert all(f"  {line}" in said.splitlines() for line in TEXT.splitlines())


# --- what stays ----------------------------------------------------------------------------


def traces(output: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in output.iterdir()}


def test_what_is_up_to_date_is_not_touched(folder: Path, output: Path) -> None:
    before = traces(output)
    [built] = build(folder, TEXT).outputs
    assert (built.was_there, traces(output)) == (True, before)
    [forced] = pemlang.load(folder / "recipe.pem").build(how=How(force=True)).outputs
    assert not forced.was_there
    assert traces(output).keys() == before.keys()
    assert traces(output)[WEIGHTS][0] != before[WEIGHTS][0]


def test_a_refactoring_keeps_the_tensors_and_brings_the_rest(folder: Path, output: Path) -> None:
    before = traces(output)
    text = (
        'adapter second = "b"\nadapter first = "a"\nlet y = first / 2\nsave second + y to "out/x"\n'
    )
    [built] = build(folder, text).outputs
    after = traces(output)
    assert built.was_there
    for name in (WEIGHTS, CONFIG):
        assert after[name] == before[name]
    assert asked(statement(output))["recipe"]["text"] == text
    assert "`second + y`" in (output / "README.md").read_text()
    assert verify(output).holds
    assert [p.name for p in output.parent.iterdir()] == ["x"]


def test_a_card_that_was_changed_is_brought_back(folder: Path, output: Path) -> None:
    card = (output / "README.md").read_text()
    (output / "README.md").write_text(card + "more")
    before = traces(output)
    [built] = build(folder, TEXT).outputs
    assert built.was_there
    assert (output / "README.md").read_text() == card
    assert traces(output)[WEIGHTS] == before[WEIGHTS]
    assert verify(output).holds


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
@pytest.mark.parametrize("change", ["flip", "remove"])
def test_what_is_not_whole_is_made_again(
    folder: Path, output: Path, name: str, change: str
) -> None:
    before = (output / name).read_bytes()
    if change == "flip":
        flip(output / name, -3)
    else:
        (output / name).unlink()
    [built] = build(folder, TEXT).outputs
    assert not built.was_there
    assert (output / name).read_bytes() == before
    assert verify(output).holds


def test_warnings_and_losses_are_told_again(folder: Path) -> None:
    text = DECLARED + 'save a + b to "out/x" with rank=1\n'
    first, second = build(folder, text), build(folder, text)
    assert [one.was_there for one in (*first.outputs, *second.outputs)] == [False, True]
    assert [one.code for one in first.warnings] == ["PEM0702"]
    one, two = ([w.as_json() for w in found.warnings] for found in (first, second))
    assert one == two
    assert first.outputs[0].loss == second.outputs[0].loss is not None


def test_a_failed_assertion_fails_though_all_is_up_to_date(folder: Path, output: Path) -> None:
    with pytest.raises(pemlang.PemError, match="PEM0501"):
        build(folder, TEXT + "assert norm(a) < 0.5\n")


def test_a_sweep_makes_only_what_is_new(folder: Path) -> None:
    text = DECLARED + 'param w: number = 0.5\nsave w * a + b to "out/{w}"\n'
    path = recipe(folder, text)
    pemlang.load(path).build(sweep=Sweep("w", ("0.1", "0.2")))
    before = traces(folder / "out/0.2")
    found = pemlang.load(path).build(sweep=Sweep("w", ("0.2", "0.3")))
    assert [one.was_there for one in found.outputs] == [True, False]
    assert traces(folder / "out/0.2") == before
    for name in ("0.1", "0.2", "0.3"):
        found_one = verify(folder / "out" / name)
        rebuild(folder / "out" / name, found_one, None, How(threads=1))
        assert found_one.holds


REFACTORED = TEXT.replace("half * a + b", "b + half * a")


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["flush", "_share", "flush_entry"])
def test_a_refresh_that_fails_leaves_the_output_whole(
    folder: Path, output: Path, error: BaseException, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(place if where == "flush_entry" else finish, where, fails)
    with pytest.raises((pemlang.PemError, KeyboardInterrupt)):
        build(folder, REFACTORED)
    monkeypatch.undo()
    assert [path.name for path in output.parent.iterdir()] == ["x"]
    assert all(one.state == "same" for one in verify(output).outputs)
    if where != "flush_entry":
        assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_a_disk_without_links_gets_copies(
    folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    before = (output / WEIGHTS).read_bytes()
    build(folder, REFACTORED)
    assert (output / WEIGHTS).read_bytes() == before
    assert verify(output).holds


def test_another_build_that_comes_between_is_noticed(
    folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was up to date is something else by the time it is linked."""
    share = finish._share

    def late(old: Path, new: Path) -> None:
        if old.name == WEIGHTS:
            flip(old, -1)
        share(old, new)

    monkeypatch.setattr(finish, "_share", late)
    with pytest.raises(pemlang.PemError, match="PEM0412"):
        build(folder, REFACTORED)


def test_refreshes_at_the_same_time_leave_one_whole_output(folder: Path, output: Path) -> None:
    texts = [REFACTORED + f"# {n}\n" for n in range(4)]
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "pemlang", "build", recipe(folder, text, f"r{n}.pem")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for n, text in enumerate(texts)
    ]  # fmt: skip
    said = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, said
    assert verify(output).holds
    assert [path.name for path in output.parent.iterdir()] == ["x"]


# --- what differs is named -----------------------------------------------------------------


def test_an_output_that_was_not_touched_holds(output: Path) -> None:
    found = verify(output)
    assert found.holds
    assert {one.state for one in (*found.outputs, *found.materials)} == {"same"}
    assert run("verify", output)[0] == 0
    as_json = json.loads(run("verify", output, "--format", "json")[1])
    assert (as_json["holds"], as_json["rebuilt"], as_json["signature"]) == (True, None, None)


def test_every_field_of_a_config_is_named(output: Path) -> None:
    config = json.loads((output / CONFIG).read_text())
    for field, value in config.items():
        for changed in (f"x{value}", None, [value], ...):
            said = {key: one for key, one in config.items() if key != field or changed is not ...}
            if changed is not ...:
                said[field] = changed
            if said == config:
                continue
            (output / CONFIG).write_text(json.dumps(said))
            state, *details = unlike(verify(output))[CONFIG]
            assert (state, len(details)) == ("differs", 1)
            assert details[0].startswith(f"`{field}` is ")
            assert ("not there" in details[0]) == (changed is ...)


@pytest.mark.parametrize(
    "text", ["[]", "7", "{", "", "[" * 99_999, '{"a": ' + "[" * 999 + "]" * 999 + "}", '"\\ud800"']
)
def test_a_config_that_is_none_is_told(output: Path, text: str) -> None:
    (output / CONFIG).write_text(text)
    assert unlike(verify(output))[CONFIG][0] == "differs"
    assert run("verify", output)[0] == 1


def test_every_tensor_is_named(output: Path) -> None:
    whole = (output / WEIGHTS).read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    start = 8 + int.from_bytes(whole[:8], "little")
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        for at in (entry["data_offsets"][0], entry["data_offsets"][1] - 1):
            (output / WEIGHTS).write_bytes(whole)
            flip(output / WEIGHTS, start + at)
            assert unlike(verify(output)) == {WEIGHTS: ("differs", f"the numbers of {key}")}
    assert run("verify", output)[0] == 1
    assert f"the numbers of {key}" in run("verify", output)[1]


def test_tensors_that_are_gone_or_new_are_named(output: Path) -> None:
    tensors = load_file(output / WEIGHTS)
    first, *rest = sorted(tensors)
    renamed = {f"{PREFIX}new.lora_A.weight": tensors[first]} | {key: tensors[key] for key in rest}
    with safe_open(output / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    save_file(renamed, output / WEIGHTS, metadata=metadata)
    assert unlike(verify(output)) == {
        WEIGHTS: ("differs", f"missing: {first}", f"new: {PREFIX}new.lora_A.weight")
    }


def test_a_header_alone_is_named(output: Path) -> None:
    data = (output / WEIGHTS).read_bytes()
    (output / WEIGHTS).write_bytes(data.replace(b'"format":"pt"', b'"format":"tf"'))
    assert unlike(verify(output)) == {WEIGHTS: ("differs", "its header, and no tensor")}
    (output / WEIGHTS).write_bytes(data.replace(b"pemlang_semantic_hash", b"pemlang_semantic_hasx"))
    assert unlike(verify(output)).keys() == {WEIGHTS, PROVENANCE}


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_truncated_file_is_told(output: Path, size: int) -> None:
    (output / WEIGHTS).write_bytes((output / WEIGHTS).read_bytes()[:size])
    state, why = unlike(verify(output))[WEIGHTS]
    assert (state, why.startswith("it cannot be read")) == ("differs", True)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "README.md"])
def test_a_file_that_is_gone_is_missing(output: Path, name: str) -> None:
    (output / name).unlink()
    assert unlike(verify(output)) == {name: ("missing",)}
    (output / name).mkdir()
    assert unlike(verify(output)) == {name: ("missing",)}


def test_a_pipe_is_not_waited_for(output: Path) -> None:
    (output / "README.md").unlink()
    os.mkfifo(output / "README.md")
    assert unlike(verify(output)) == {"README.md": ("missing",)}


def test_a_file_that_was_added_is_named(output: Path) -> None:
    (output / "x\x1b[31m.bin").write_text("x")
    assert list(unlike(verify(output))) == ["x\\u001b[31m.bin"]
    assert "\x1b[31m" not in run("verify", output)[1]


def test_what_it_was_made_from_is_named(folder: Path, output: Path) -> None:
    flip(folder / "a" / WEIGHTS, -1)
    (folder / "b" / CONFIG).unlink()
    (folder / "lib/w.pem").write_text("let half = 0.25\n")
    (folder / "recipe.pem").write_text(TEXT + "# more\n")
    found = unlike(verify(output))
    assert {name: one[0] for name, one in found.items()} == {
        f"a/{WEIGHTS}": "differs",
        f"b/{CONFIG}": "missing",
        "lib/w.pem": "differs",
        "recipe.pem": "differs",
    }
    assert all(one.state == "same" for one in verify(output).outputs)
    assert run("verify", output)[0] == 1


def test_a_swapped_input_is_named(folder: Path, output: Path) -> None:
    for one, two in (("a", "t"), ("b", "a"), ("t", "b")):
        (folder / one).rename(folder / two)
    assert unlike(verify(output)).keys() == {f"a/{WEIGHTS}", f"b/{WEIGHTS}"}
    found = verify(output)
    with pytest.raises(pemlang.PemError, match=r"is not what provenance\.json has"):
        rebuild(output, found, None, How())


# --- moved, and once more ------------------------------------------------------------------


def test_a_moved_output_is_told_where_its_recipe_is(folder: Path, output: Path) -> None:
    moved = folder.parent / "moved"
    output.rename(moved)
    found = verify(moved)
    assert found.holds
    states = {one.state for one in found.materials if one.what != "std.paper"}
    assert states == {"unchecked"}
    assert run("verify", moved, "--rebuild")[0] == 1
    assert {one.state for one in verify(moved, folder).materials} == {"same"}
    assert run("verify", moved, "--from", folder, "--rebuild")[0] == 0
    flip(folder / "a" / WEIGHTS, -1)
    assert run("verify", moved, "--from", folder)[0] == 1


REBUILT: dict[str, tuple[str, dict[str, Any]]] = {
    "a sum": (TEXT, {}),
    "a cut": (DECLARED + 'save a + b to "out/x" with rank=3', {}),
    "by energy": (DECLARED + 'save a + b to "out/x" with energy=0.9, dtype=bf16', {}),
    "a merge": (DECLARED + 'save ties([a, b], density=0.5, rank=4) to "out/x"', {}),
    "a measure": (DECLARED + 'save cosine(a, b) * a + b to "out/x"', {}),
    "a third": (DECLARED + 'param w: number = 1 / 3\nsave w * a + b to "out/x"', {}),
    "set": (DECLARED + 'param w: number = 1\nsave w * a + b to "out/x"', {"w": "0.333"}),
    "set by Python": (
        DECLARED + 'param w: number = 1\nparam s: string = "b"\nparam t: bool = false\n'
        'assert t\nadapter c = "{s}"\nsave w * a + c to "out/{s}"',
        {"w": 1e-07, "s": "a", "t": True},
    ),
    "two outputs": (DECLARED + 'save a - b to "out/x"\nsave a to "out/y"', {}),
    "from a library": ('import "lib/own.pem" (own)\nsave own to "out/x"', {}),
}


@pytest.mark.parametrize("name", REBUILT)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_rebuild_gives_the_same_bytes(
    folder: Path, name: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe(folder / "lib", 'adapter own = "../a"\n', "own.pem")
    text, params = REBUILT[name]
    for built in build(folder, text, **params).outputs:
        monkeypatch.chdir(folder.parent)
        found = verify(built.path)
        rebuild(built.path, found, None, How(threads=threads))
        assert found.holds, unlike(found)
        assert found.rebuilt is not None
        assert {one.what for one in found.rebuilt} == {p.name for p in built.path.iterdir()}
    assert {path.name for path in folder.parent.iterdir()} == {"home"}


def test_a_rebuild_tells_what_it_does_not_give(folder: Path, output: Path) -> None:
    """The output and its provenance were both changed, so that they agree."""
    flip(output / WEIGHTS, -1)
    data = (output / WEIGHTS).read_bytes()
    assert list(unlike(verify(output))) == [WEIGHTS]

    def agree(said: Any) -> None:
        [one] = [one for one in said["subject"] if one["name"] == WEIGHTS]
        one["digest"] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "blake3": blake3(data).hexdigest(),
        }

    edit(output, agree)
    found = verify(output)
    assert found.holds
    rebuild(output, found, None, How())
    differs = unlike(found)
    assert differs.keys() == {WEIGHTS, PROVENANCE}
    assert differs[WEIGHTS][1].startswith("the numbers of ")


def test_a_rebuild_goes_by_the_recipe_as_it_was(folder: Path, output: Path) -> None:
    (folder / "recipe.pem").write_text("let x = nowhere\n")
    found = verify(output)
    rebuild(output, found, None, How())
    assert unlike(found).keys() == {"recipe.pem"}
    (folder / "lib/w.pem").write_text("let half = 0.75\n")
    status, said = run("verify", output, "--rebuild")
    assert (status, "lib/w.pem is not what provenance.json has" in said) == (1, True)


def test_an_adapter_that_is_declared_and_not_there_is_told(folder: Path) -> None:
    lora(folder / "c", 3)
    [built] = build(folder, 'adapter c = "c"\n' + TEXT).outputs
    shutil.rmtree(folder / "c")
    assert verify(built.path).holds
    status, said = run("verify", built.path, "--rebuild")
    assert (status, "error[PEM0410]" in said) == (1, True)


# --- a provenance that was changed ---------------------------------------------------------


def set_hash(said: Any) -> None:
    said["predicate"]["buildDefinition"]["internalParameters"]["semanticHash"] = "0" * 64


def test_a_hash_that_the_tensors_do_not_say_is_told(output: Path) -> None:
    edit(output, set_hash)
    assert unlike(verify(output)).keys() == {PROVENANCE}


def test_settings_that_were_changed_are_told_by_a_rebuild(folder: Path) -> None:
    text = DECLARED + 'param w: number = 1\nsave w * a + b to "out/x"\n'
    [built] = build(folder, text, w="0.5").outputs
    edit(built.path, lambda said: asked(said).update(settings={"w": "0.25"}))
    found = verify(built.path)
    rebuild(built.path, found, None, How())
    assert WEIGHTS in unlike(found)
    edit(built.path, lambda said: asked(said).update(settings={"v": "0.25"}))
    assert run("verify", built.path, "--rebuild")[0] in (1, 2)


@pytest.mark.parametrize(
    "where", ["../x", "/etc", "", ".", "..", "out/../../x", "a\0b", "out/y", "x" * 5000]
)
def test_an_output_of_another_place_leads_nowhere(folder: Path, output: Path, where: str) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    edit(output, lambda said: asked(said).update(output=where))
    before[output / PROVENANCE] = (output / PROVENANCE).read_bytes()
    for words in (["verify"], ["verify", "--rebuild"], ["verify", "--rebuild", "--from", folder]):
        assert run(*words, output)[0] in (0, 1)
    assert run("verify", "--rebuild", "--from", folder, output)[0] == 1
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_a_recipe_in_a_provenance_writes_nowhere_else(folder: Path, output: Path) -> None:
    text = DECLARED + 'save a to "../../outside"\nsave b to "out/x"\n'
    edit(output, lambda said: asked(said)["recipe"].update(text=text))
    before = sorted(folder.parent.rglob("*"))
    assert run("verify", output, "--rebuild")[0] == 1
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["../recipe.pem", "/etc/passwd", "a\0b", "no.txt", "", "..", "x\x1b[31m"]
)
def test_subjects_of_any_name_are_no_crash(output: Path, name: str) -> None:
    edit(output, lambda said: said["subject"][1].update(name=name))
    status, said = run("verify", output, "--rebuild")
    assert (status, "\x1b[31m" in said) == (1, False)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [at] if at else []
    items = dict(enumerate(value)) if isinstance(value, list) else value
    for key, inner in items.items() if isinstance(items, dict) else ():
        found += paths(inner, (*at, key))
    return found


JUNK = [None, True, -1, 10**400, 1e999, "\ud800", "a\0b\x1b[31m", [], [[1, 2]], {"a": {"b": [1]}}]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:12])
def test_junk_anywhere_in_a_provenance_is_no_crash(folder: Path, output: Path, junk: Any) -> None:
    good = (output / PROVENANCE).read_text()
    said = json.loads(good)
    for path in paths(said):
        changed = json.loads(good)
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = junk
        (output / PROVENANCE).write_text(json.dumps(changed))
        for words in (["verify"], ["explain-output"], ["verify", "--format", "json"]):
            status, shown = run(*words, output)
            assert status in (0, 1)
            assert "\x1b[31m" not in shown
            shown.encode()
    (output / PROVENANCE).write_text(good)
    assert verify(output).holds


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:12])
def test_a_build_makes_good_what_junk_says(folder: Path, output: Path, junk: Any) -> None:
    """Above all where the junk is in what is taken from it: what came out, and the parts."""
    good = (output / PROVENANCE).read_text()
    said = json.loads(good)
    places = [p for p in paths(said) if {"byproducts", "annotations"} & set(p)]
    for path in places[:: max(1, len(places) // 12)]:
        changed = json.loads(good)
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = junk
        (output / PROVENANCE).write_text(json.dumps(changed))
        assert run("build", folder / "recipe.pem")[0] == 0
        assert run("plan", folder / "recipe.pem")[0] == 0


DAMAGED = [
    b"",
    b"{",
    b"\xff",
    b"[]",
    b"[" * 99_999,
    b"9" * 5000,
    b'{"a":' * 500 + b"1" + b"}" * 500,
]


@pytest.mark.parametrize("data", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_provenance_is_told(folder: Path, output: Path, data: bytes) -> None:
    (output / PROVENANCE).write_bytes(data)
    for words in (["verify"], ["verify", "--rebuild"], ["explain-output"]):
        status, said = run(*words, output)
        assert (status, "error[PEM0810]" in said) == (1, True)
    assert not build(folder, TEXT).outputs[0].was_there
    assert verify(output).holds


def test_what_is_no_output_is_told(folder: Path) -> None:
    for other in (folder / "a", folder / "nowhere", folder / "recipe.pem"):
        for words in (["verify"], ["explain-output"]):
            status, said = run(*words, other)
            assert (status, "error[PEM0810]" in said) == (1, True)


# --- signatures ----------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with two pairs of keys."""
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("one", "two"):
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
        public = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
        (folder / name).write_bytes(private)
        (folder / f"{name}.pub").write_bytes(public)
    return folder


def holds(output: Path, key: Path) -> tuple[bool, str]:
    status, said = run("verify", output, "--key", key)
    return status == 0, said.partition("signature\n")[2]


def test_a_signature_holds_for_its_key_alone(output: Path, keys: Path) -> None:
    assert "there is no model.sig" in holds(output, keys / "one.pub")[1]
    assert run("sign", output, "--key", keys / "one")[0] == 0
    assert sorted(p.name for p in output.parent.iterdir()) == ["x"]
    assert holds(output, keys / "one.pub")[0]
    assert not holds(output, keys / "two.pub")[0]
    assert not holds(output, keys / "one")[0]  # a private key is no public one
    found = json.loads(run("verify", output, "--key", keys / "two.pub", "--format", "json")[1])
    assert (found["holds"], found["signature"] == "holds") == (False, False)


def test_the_package_itself_verifies_it(output: Path, keys: Path) -> None:
    from model_signing import hashing, verifying

    assert run("sign", output, "--key", keys / "one")[0] == 0
    ignored = hashing.Config().set_ignored_paths(paths=[output / "model.sig"])
    config = verifying.Config().use_elliptic_key_verifier(public_key=keys / "one.pub")
    config.set_hashing_config(ignored).verify(output, output / "model.sig")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "README.md", PROVENANCE])
def test_a_file_changed_after_signing_is_told(output: Path, keys: Path, name: str) -> None:
    assert run("sign", output, "--key", keys / "one")[0] == 0
    if name == PROVENANCE:
        edit(output, lambda said: asked(said).update(expression="b"))
    else:
        flip(output / name, -2)
    held, said = holds(output, keys / "one.pub")
    assert (held, "✗" in said) == (False, True)


def test_a_file_added_after_signing_is_told(output: Path, keys: Path) -> None:
    assert run("sign", output, "--key", keys / "one")[0] == 0
    (output / ".gitattributes").write_text("x")
    assert not holds(output, keys / "one.pub")[0]


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 99_999, b"{}", b"\xff"])
def test_a_damaged_signature_is_told(output: Path, keys: Path, data: bytes) -> None:
    (output / "model.sig").write_bytes(data)
    assert not holds(output, keys / "one.pub")[0]


def test_a_signed_output_stays_signed_while_it_stays(
    folder: Path, output: Path, keys: Path
) -> None:
    assert run("sign", output, "--key", keys / "one")[0] == 0
    build(folder, TEXT)
    assert holds(output, keys / "one.pub")[0]
    build(folder, REFACTORED)  # its provenance is another: what was signed is not there any more
    assert not (output / "model.sig").exists()


def test_signing_inside_the_directory(
    output: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(output)
    assert run("sign", ".", "--key", keys / "one")[0] == 0
    assert holds(Path(), keys / "one.pub")[0]
    assert [p.name for p in output.parent.iterdir()] == ["x"]


def test_a_key_that_is_none_is_told(output: Path, keys: Path) -> None:
    for key in (output / CONFIG, keys / "one.pub"):
        status, said = run("sign", output, "--key", key)
        assert (status, "error[PEM0813]" in said) == (1, True)
    assert not (output / "model.sig").exists()
    assert [p.name for p in output.parent.iterdir()] == ["x"]
    status, said = run("sign", output.parent.parent / "a", "--key", keys / "one")
    assert (status, "error[PEM0810]" in said) == (1, True)


# --- what a review found -------------------------------------------------------------------


def test_one_byte_of_the_provenance_is_told_wherever_it_is(output: Path) -> None:
    path = output / PROVENANCE
    whole = path.read_bytes()
    for place_ in range(0, len(whole), 97):
        path.write_bytes(whole[:place_] + bytes([whole[place_] ^ 1]) + whole[place_ + 1 :])
        code, said = run("verify", output)
        assert (code, "PEM0810" in said) == (1, True), place_
    path.write_bytes(whole)
    assert run("verify", output)[0] == 0


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "README.md"])
def test_a_file_cannot_be_left_out(output: Path, name: str) -> None:
    def without(said: Any) -> None:
        said["subject"] = [one for one in said["subject"] if one["name"] != name]

    edit(output, without)
    (output / name).unlink()
    assert run("verify", output)[0] == 1


def test_inputs_cannot_be_left_out(output: Path) -> None:
    def without(said: Any) -> None:
        definition = said["predicate"]["buildDefinition"]
        definition["resolvedDependencies"] = []

    edit(output, without)
    assert unlike(verify(output)) == {
        PROVENANCE: ("differs", f"{WEIGHTS} says it was made from other adapters")
    }


def test_a_hidden_file_and_a_link_are_told(output: Path) -> None:
    (output / ".gitevil.bin").write_bytes(b"x")
    moved = (output / "README.md").rename(output.parent / "card.md")
    (output / "README.md").symlink_to(moved)
    assert unlike(verify(output)) == {
        ".gitevil.bin": ("differs", "the build did not write it"),
        "README.md": ("differs", "it is a link"),
    }


def test_an_output_that_stays_under_another_name_rebuilds(folder: Path) -> None:
    """What it is called is no part of what it means, nor of what is remembered of it."""
    text = DECLARED + 'let one = a + b\nsave one to "out/x" with rank=2\n'
    build(folder, text)
    result = build(folder, text.replace("one", "other"))
    [built], [warning] = result.outputs, result.warnings
    assert built.was_there
    assert "`other`" in warning.message
    code, said = run("verify", built.path, "--rebuild")
    assert (code, "✗" in said) == (0, False)


def test_a_remembered_digest_is_not_taken_for_the_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "WORTH_REMEMBERING", 0)
    [built] = build(folder, TEXT).outputs
    weights = folder / "a" / WEIGHTS
    before = digests.file_digest(weights)
    flip(weights, -1)
    digests._HERE.clear()
    monkeypatch.setattr(
        digests._Memory, "_loaded", {digests._name(digests.identity(weights)): before}
    )
    assert digests.file_digest(weights) == before  # what is remembered is wrong
    assert list(unlike(verify(built.path))) == [f"a/{WEIGHTS}"]


@pytest.mark.parametrize("name", ["r\0.pem", "../r.pem", "r\n.pem", ""])
def test_a_recipe_of_no_plain_name_is_refused(output: Path, name: str) -> None:
    edit(output, lambda said: asked(said)["recipe"].update(name=name))
    code, said = run("verify", output, "--rebuild")
    assert (code, "PEM0810" in said) == (1, True)
