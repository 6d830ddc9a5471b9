"""`pem verify`: what differs from the provenance of an output is named, file by file and part by
part."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import PREFIX, build, edit, lora, pem, recipe
from support.outputs import CARD, CONFIG, DECLARED, PROVENANCE, TEXT, WEIGHTS, flip, verified

from pemlang.artifact import read_provenance
from pemlang.tensorfiles import file_digest


def test_an_output_that_was_not_touched_holds(output: Path) -> None:
    whole = verified(output)
    assert whole.holds
    assert {verdict.state for verdict in (*whole.outputs, *whole.materials)} == {"same"}
    assert pem("verify", output).code == 0
    told = json.loads(pem("verify", output, "--format", "json", process=True).out)
    assert (told["holds"], told["rebuilt"]) == (True, None)


# --- the files of the output ---------------------------------------------------------------


def test_every_field_of_a_config_is_named(output: Path) -> None:
    config = json.loads((output / CONFIG).read_text())
    for field, value in config.items():
        for new in (f"x{value}", None, [value], ...):
            edited = {key: kept for key, kept in config.items() if key != field or new is not ...}
            if new is not ...:
                edited[field] = new
            if edited == config:
                continue
            (output / CONFIG).write_text(json.dumps(edited))
            state, *details = verified(output).differing[CONFIG]
            assert (state, len(details)) == ("differs", 1)
            assert details[0].startswith(f"`{field}` is ")
            assert ("not there" in details[0]) == (new is ...)


@pytest.mark.parametrize(
    "text", ["[]", "7", "{", "", "[" * 99_999, '{"a": ' + "[" * 999 + "]" * 999 + "}", '"\\ud800"']
)
def test_a_config_that_is_none_is_told(output: Path, text: str) -> None:
    (output / CONFIG).write_text(text)
    assert verified(output).differing[CONFIG][0] == "differs"
    assert pem("verify", output).code == 1


def test_every_tensor_is_named(output: Path) -> None:
    whole = (output / WEIGHTS).read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:start])
    keys = [key for key in header if key != "__metadata__"]
    for key in keys:
        first, end = header[key]["data_offsets"]
        for at in (first, end - 1):
            (output / WEIGHTS).write_bytes(whole)
            flip(output / WEIGHTS, start + at)
            assert verified(output).differing == {WEIGHTS: ("differs", f"the numbers of {key}")}
    done = pem("verify", output)
    assert (done.code, f"the numbers of {keys[-1]}" in done.out) == (1, True)


def test_tensors_that_are_gone_or_new_are_named(output: Path) -> None:
    tensors = load_file(output / WEIGHTS)
    first, *rest = sorted(tensors)
    renamed = {f"{PREFIX}new.lora_A.weight": tensors[first]} | {key: tensors[key] for key in rest}
    with safe_open(output / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    save_file(renamed, output / WEIGHTS, metadata=metadata)
    assert verified(output).differing == {
        WEIGHTS: ("differs", f"missing: {first}", f"new: {PREFIX}new.lora_A.weight")
    }


def test_a_header_alone_is_named(output: Path) -> None:
    data = (output / WEIGHTS).read_bytes()
    (output / WEIGHTS).write_bytes(data.replace(b'"format":"pt"', b'"format":"tf"'))
    assert verified(output).differing == {WEIGHTS: ("differs", "its header, and no tensor")}
    (output / WEIGHTS).write_bytes(data.replace(b"pemlang_semantic_hash", b"pemlang_semantic_hasx"))
    assert verified(output).differing.keys() == {WEIGHTS, PROVENANCE}


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_truncated_file_is_told(output: Path, size: int) -> None:
    (output / WEIGHTS).write_bytes((output / WEIGHTS).read_bytes()[:size])
    state, why = verified(output).differing[WEIGHTS]
    assert (state, why.startswith("it cannot be read")) == ("differs", True)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, CARD])
def test_a_file_that_is_gone_is_missing(output: Path, name: str) -> None:
    (output / name).unlink()
    assert verified(output).differing == {name: ("missing",)}
    (output / name).mkdir()
    assert verified(output).differing == {name: ("missing",)}


def test_a_pipe_is_not_waited_for(output: Path) -> None:
    (output / CARD).unlink()
    os.mkfifo(output / CARD)
    assert verified(output).differing == {CARD: ("missing",)}


def test_a_file_that_was_added_is_named(output: Path) -> None:
    (output / "x\x1b[31m.bin").write_text("x")
    assert list(verified(output).differing) == ["x\\u001b[31m.bin"]
    assert "\x1b[31m" not in pem("verify", output).text


def test_a_hidden_file_and_a_link_are_told(output: Path) -> None:
    (output / ".gitevil.bin").write_bytes(b"x")
    moved = (output / CARD).rename(output.parent / "card.md")
    (output / CARD).symlink_to(moved)
    assert verified(output).differing == {
        ".gitevil.bin": ("differs", "the build did not write it"),
        CARD: ("differs", "it is a link"),
    }


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, CARD])
def test_a_file_cannot_be_left_out(output: Path, name: str) -> None:
    def without(statement: Any) -> None:
        subjects = [subject for subject in statement["subject"] if subject["name"] != name]
        statement["subject"] = subjects

    edit(output, without)
    (output / name).unlink()
    assert pem("verify", output).code == 1


# --- what it was made from -----------------------------------------------------------------


def test_what_it_was_made_from_is_named(folder: Path, output: Path) -> None:
    flip(folder / "a" / WEIGHTS, -1)
    (folder / "b" / CONFIG).unlink()
    (folder / "lib/w.pem").write_text("let half = 0.25\n")
    (folder / "recipe.pem").write_text(TEXT + "# more\n")
    differing = verified(output).differing
    assert {name: state for name, (state, *_) in differing.items()} == {
        f"a/{WEIGHTS}": "differs",
        f"b/{CONFIG}": "missing",
        "lib/w.pem": "differs",
        "recipe.pem": "differs",
    }
    assert all(verdict.state == "same" for verdict in verified(output).outputs)
    assert pem("verify", output).code == 1


def test_a_swapped_input_is_named(folder: Path, output: Path) -> None:
    for old, new in (("a", "t"), ("b", "a"), ("t", "b")):
        (folder / old).rename(folder / new)
    assert verified(output).differing.keys() == {f"a/{WEIGHTS}", f"b/{WEIGHTS}"}
    done = pem("verify", output, "--rebuild")
    assert (done.code, "is not what provenance.json has" in done.err) == (1, True)


def test_inputs_cannot_be_left_out(output: Path) -> None:
    def without(statement: Any) -> None:
        statement["predicate"]["buildDefinition"]["resolvedDependencies"] = []

    edit(output, without)
    assert verified(output).differing == {
        PROVENANCE: ("differs", f"{WEIGHTS} says it was made from other adapters")
    }


def test_a_remembered_digest_is_not_taken_for_the_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = "pemlang.tensorfiles.digests"
    monkeypatch.setattr(f"{digests}.WORTH_REMEMBERING", 0)
    [built] = build(folder, TEXT).outputs
    weights = folder / "a" / WEIGHTS
    before = file_digest(weights)
    flip(weights, -1)
    stat = weights.stat()
    identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    remembered = {f"blake3 {' '.join(map(str, identity))}": before}
    monkeypatch.setattr(f"{digests}._HERE", {})
    monkeypatch.setattr(f"{digests}._DigestCache._loaded", remembered)
    assert file_digest(weights) == before  # what is remembered is wrong
    assert list(verified(built.path).differing) == [f"a/{WEIGHTS}"]


# --- moved ---------------------------------------------------------------------------------


def test_a_moved_output_is_told_where_its_recipe_is(folder: Path, output: Path) -> None:
    moved = folder.parent / "moved"
    output.rename(moved)
    alone = verified(moved)
    assert alone.holds
    states = {verdict.state for verdict in alone.materials if verdict.what != "std.paper"}
    assert states == {"unchecked"}
    told = pem("verify", moved).out.splitlines()
    assert told[-1] == "4 of 10 hold, 6 were not checked", told
    assert pem("verify", moved, "--rebuild").code == 1
    assert {verdict.state for verdict in verified(moved, "--from", folder).materials} == {"same"}
    assert pem("verify", moved, "--from", folder, "--rebuild").code == 0
    assert pem("verify", moved, "--from", folder).out.endswith("\n10 of 10 hold\n")
    flip(folder / "a" / WEIGHTS, -1)
    wrong = pem("verify", moved, "--from", folder)
    assert (wrong.code, wrong.out.splitlines()[-1]) == (1, "9 of 10 hold, 1 does not")


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="these are names of x86 processors"
)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_another_processor_rebuilds_within_the_tolerance(tmp_path: Path, dtype: str) -> None:
    """What is cut has other last digits there, and the provenance says by what."""
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed, {"layers.0.q": (600, 700)}, rank=16)
    call = "ties([a, b], density=0.4, rank=8)"
    recipe(tmp_path, f'{DECLARED}save {call} to "out/x" with dtype={dtype}\n')
    environment = {"OPENBLAS_CORETYPE": "Haswell", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert pem("build", "recipe.pem", folder=tmp_path, process=True, **environment).code == 0
    output = tmp_path / "out" / "x"
    assert "Haswell" in read_provenance(output).outcome.algebra
    there = pem("verify", "--rebuild", output, process=True, **environment)
    assert (there.code, "within" in there.out) == (0, False)
    here = pem("verify", "--rebuild", output, process=True, OPENBLAS_CORETYPE="Nehalem")
    assert (here.code, "within 0.001 of its norm" in here.out) == (0, True), here.text
    assert "Haswell; here it is openblas" in here.out
    flip(output / WEIGHTS, -2)
    assert pem("verify", "--rebuild", output, process=True, OPENBLAS_CORETYPE="Nehalem").code == 1


def test_what_no_library_computes_names_none(folder: Path, output: Path) -> None:
    assert read_provenance(output).outcome.algebra == ""
    assert "algebra" not in (output / PROVENANCE).read_text()


def test_a_forged_name_of_a_library_excuses_nothing(folder: Path, output: Path) -> None:
    """Nothing of this output goes by linear algebra, whatever its provenance says."""
    weights = output / WEIGHTS
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(weights)
    save_file({key: 1.0001 * x for key, x in tensors.items()}, weights, metadata=metadata)

    def forge(statement: Any) -> None:
        [subject] = [x for x in statement["subject"] if x["name"] == WEIGHTS]
        subject["digest"] = {
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "blake3": file_digest(weights),
        }
        [outcome] = [
            x for x in statement["predicate"]["runDetails"]["byproducts"] if x["name"] == "outcome"
        ]
        outcome["annotations"]["algebra"] = "openblas 0.0.0 Elsewhere"

    edit(output, forge)
    done = pem("verify", "--rebuild", output)
    assert (done.code, "within" in done.out) == (1, False)


@pytest.mark.parametrize("command", ["verify", "explain-output"])
def test_an_adapter_that_pem_never_made_is_told_as_no_output(folder: Path, command: str) -> None:
    for place, told in (("a", "a is no output of pem"), ("nowhere", "there is no folder nowhere")):
        done = pem(command, place, folder=folder)
        assert (done.code, told in done.err, "again" in done.err) == (1, True, False)
