"""Outputs that are one file: what stands beside it, what is kept, verified, signed and locked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import pem, recipe
from support.image_loras import factors, image_lora, metadata_of
from support.outputs import flip, key_pair, verified

SITES = {f"lora_unet_down_blocks_{i}_to_{x}": ((8,), (6,)) for i in range(2) for x in "qkv"}
DECLARED = 'adapter a = "a.safetensors"\nadapter b = "b.safetensors"\n'
TEXT = f'{DECLARED}save 0.5 * a + b to "out/x.safetensors"\n'
NAME, PROVENANCE = "x.safetensors", "x.safetensors.provenance.json"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output of two kohya files, in out/ of a folder with its recipe."""
    for seed, name in enumerate("ab"):
        image_lora(tmp_path / f"{name}.safetensors", factors(SITES, seed))
    assert pem("build", recipe(tmp_path, TEXT)).code == 0
    return tmp_path / "out" / NAME


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_file_and_its_provenance(output: Path) -> None:
    assert names(output.parent) == [NAME, PROVENANCE]
    told = verified(output, "--rebuild")
    assert told.holds and told.rebuilt is not None
    assert {x.what for x in [*told.outputs, *told.rebuilt]} == {NAME, PROVENANCE}
    done = pem("explain-output", output, "--format", "json")
    assert json.loads(done.out)["outcome"]["format"] == "kohya"


def test_what_is_up_to_date_stays(output: Path) -> None:
    before = output.stat().st_ino
    done = pem("build", output.parents[1] / "recipe.pem")
    assert "up to date" in done.out
    recipe(output.parents[1], TEXT.replace("0.5 * a + b", "b + a / 2"))
    assert "up to date" in pem("build", output.parents[1] / "recipe.pem").out
    assert output.stat().st_ino == before
    statement = json.loads((output.parent / PROVENANCE).read_text())
    asked = statement["predicate"]["buildDefinition"]["externalParameters"]
    assert asked["expression"] == "b + a / 2"
    assert verified(output, "--rebuild").holds
    assert names(output.parent) == [NAME, PROVENANCE]


def test_what_was_changed_is_replaced_by_force_alone(output: Path) -> None:
    whole = output.read_bytes()
    flip(output, -1)
    done = pem("build", output.parents[1] / "recipe.pem")
    assert (done.code, "PEM0510" in done.err) == (1, True)
    assert verified(output).differing.keys() == {NAME}
    assert pem("build", "--force", output.parents[1] / "recipe.pem").code == 0
    assert output.read_bytes() == whole


@pytest.mark.parametrize("name", [NAME, PROVENANCE])
def test_what_stands_there_of_others_is_left_alone(output: Path, name: str) -> None:
    (output.parent / PROVENANCE).unlink()
    output.unlink()
    (output.parent / name).write_text("mine")
    done = pem("build", output.parents[1] / "recipe.pem")
    assert (done.code, "PEM0510" in done.err) == (1, True)
    assert (output.parent / name).read_text() == "mine"
    assert names(output.parent) == [name]


def test_a_damaged_tensor_is_named(output: Path) -> None:
    tensors = load_file(output)
    key = next(key for key in tensors if key.endswith(".lora_up.weight"))
    tensors[key][0, 0] += 1
    save_file(tensors, output, metadata_of(output))
    [told] = verified(output).differing.values()
    assert told == ("differs", f"the numbers of {key}")


def test_a_renamed_output_is_not_there(output: Path) -> None:
    other = output.with_name("y.safetensors")
    output.rename(other)
    done = pem("verify", other)
    assert (done.code, "PEM0810" in done.err) == (1, True)
    (output.parent / PROVENANCE).rename(output.with_name("y.safetensors.provenance.json"))
    assert NAME in verified(other).differing


def test_a_signature_is_of_the_provenance(output: Path, tmp_path: Path) -> None:
    pytest.importorskip("model_signing")
    for name in ("one", "two"):
        key_pair(tmp_path / name)
    assert pem("sign", output, "--key", tmp_path / "one").code == 0
    assert names(output.parent) == [NAME, PROVENANCE, f"{NAME}.sig"]
    assert verified(output, "--key", tmp_path / "one.pub").holds
    assert verified(output, "--key", tmp_path / "two.pub").differing.keys() == {f"{NAME}.sig"}
    recipe(output.parents[1], TEXT.replace("0.5", "0.25"))
    assert pem("build", output.parents[1] / "recipe.pem").code == 0
    assert names(output.parent) == [NAME, PROVENANCE]


def test_a_lock_knows_alphas_and_holds_to_the_file(output: Path) -> None:
    folder = output.parents[1]
    assert pem("lock", folder / "recipe.pem").code == 0
    lock = json.loads((folder / "pem.lock").read_text())["adapters"]["a.safetensors"]
    assert set(lock["alphas"].values()) == {2.0}
    shutil.move(folder / "a.safetensors", folder / "away.safetensors")
    assert pem("check", "--locked", folder / "recipe.pem").code == 0
    planned = pem("plan", "--locked", folder / "recipe.pem", "--format", "json")
    shutil.move(folder / "away.safetensors", folder / "a.safetensors")
    here = pem("plan", folder / "recipe.pem", "--format", "json")
    hashes = [json.loads(x.out)["outputs"][0]["semantic_hash"] for x in (planned, here)]
    assert hashes[0] == hashes[1]
    tensors = load_file(folder / "a.safetensors")
    for key in tensors:
        if key.endswith(".alpha"):
            tensors[key] = np.array(4.0, "f4")
    save_file(tensors, folder / "a.safetensors")
    done = pem("build", "--locked", folder / "recipe.pem")
    assert (done.code, "PEM0803" in done.err) == (1, True)


@pytest.mark.parametrize("alphas", [{}, {"lora_unet_down_blocks_{0}_to_q": "2"}, [1], {"a": 1.0}])
def test_a_lock_of_other_alphas_is_refused(output: Path, alphas: object) -> None:
    folder = output.parents[1]
    assert pem("lock", folder / "recipe.pem").code == 0
    lock = json.loads((folder / "pem.lock").read_text())
    lock["adapters"]["a.safetensors"]["alphas"] = alphas
    (folder / "pem.lock").write_text(json.dumps(lock))
    done = pem("check", "--locked", folder / "recipe.pem")
    assert (done.code, "PEM0801" in done.err) == (1, True)


@pytest.mark.parametrize("module", ["networks.lora_flux", "lycoris.kohya"])
def test_what_a_file_says_of_itself_is_kept_where_all_inputs_say_it(
    module: str, tmp_path: Path
) -> None:
    shared = {"ss_base_model_version": "sdxl_base_v1-0", "modelspec.architecture": "sdxl/lora"}
    hashes = {"sshs_model_hash": "0" * 64, "modelspec.hash_sha256": "0x0", "ss_network_dim": "8"}
    hashes |= {"sshs_legacy_hash": "0" * 8, "ss_network_module": module}
    for seed, name in enumerate("ab"):
        told = {**shared, **hashes, "ss_output_name": name}
        image_lora(tmp_path / f"{name}.safetensors", factors(SITES, seed), 3.0, metadata=told)
    assert pem("build", recipe(tmp_path, TEXT)).code == 0
    told = metadata_of(tmp_path / "out" / NAME)
    kept = told.pop("ss_network_module", None)  # what was made is a LoRA
    assert kept == (None if module == "lycoris.kohya" else module)
    assert {key: told[key] for key in told if not key.startswith("pemlang_")} == {
        **shared, "format": "pt", "ss_network_dim": "8", "ss_network_alpha": "6",
    }  # fmt: skip


def test_diff_inspect_report_and_init_take_files(output: Path, tmp_path: Path) -> None:
    done = pem("diff", tmp_path / "a.safetensors", output, "--format", "json")
    assert (done.code, json.loads(done.out)["method"]) == (0, "lora")
    assert "built from" in pem("inspect", output).out
    assert pem("report", output, "-o", tmp_path / "page.html").code == 0
    first = tmp_path / "first.pem"
    assert pem("init", tmp_path, "-o", first).code == 0
    assert '"out/merged.safetensors"' in first.read_text()
    assert pem("build", first).code == 0


def test_zero_is_a_file_as_what_it_is_a_zero_of(output: Path) -> None:
    folder = output.parents[1]
    text = 'param w: number = 1\nadapter a = "a.safetensors"\nsave w * a to "out/{w}.safetensors"\n'
    place = recipe(folder, text)
    assert pem("build", place, "--sweep", "w=0:1:1").code == 0
    assert load_file(output.parent / "0.safetensors").keys() >= {f"{x}.alpha" for x in SITES}
    assert verified(output.parent / "0.safetensors", "--rebuild").holds
    assert pem("lock", place, "--set", "w=0").code == 0
    assert "up to date" in pem("build", place, "--set", "w=0", "--locked").out
    recipe(folder, text.replace('{w}.safetensors"', '{w}" with format=peft'))
    assert "PEM0354" in pem("check", place, "--set", "w=0").err
