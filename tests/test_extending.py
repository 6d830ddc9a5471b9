"""What is added in one file of its own works from end to end: a merge method, a file format, a
parametrisation, a command."""

from __future__ import annotations

import configparser
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import delta, lora, recipe
from support.messages.from_formats import TENSORS, Mixed
from support.processes import with_extensions

import pemlang
from pemlang.formats import FORMATS

EXTENSIONS = Path(__file__).parent / "extensions"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of adapters, with the extensions in one beside it."""
    shutil.copytree(EXTENSIONS, tmp_path / "extensions")
    return tmp_path


def right(folder: Path, extensions: str, *commands: str) -> list[str]:
    """What some commands write that all succeed."""
    done = with_extensions(folder, extensions, *commands)
    assert [code for code, _ in done] == [0] * len(commands), done
    return [text for _, text in done]


# --- a merge method --------------------------------------------------------------------------


def test_a_merge_method(folder: Path) -> None:
    for seed, name in enumerate("ab"):
        lora(folder / name, seed)
    text = 'adapter a = "a"\nadapter b = "b"\nsave largest([a, b], weights=[1, 2]) to "out"'
    text += " with rank=full"
    recipe(folder, f"{text}, dtype=f32\n")
    checked, planned, _, told, listed, verified = right(
        folder, "largest",
        "check recipe.pem", "plan recipe.pem", "build recipe.pem", "ops largest", "ops",
        "verify --rebuild out",
    )  # fmt: skip
    assert checked == ""
    assert "largest([a, b], weights=[1, 2])" in planned
    assert "largest([x, …]" in told
    assert "Mine" in listed
    assert "built once more" in verified
    merged, a, b = delta(folder / "out"), delta(folder / "a"), delta(folder / "b")
    for site, found in merged.items():
        stack = np.array([a[site], 2 * b[site]])
        wanted = np.take_along_axis(stack, np.abs(stack).argmax(axis=0)[None], axis=0)[0]
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    [(code, text)] = with_extensions(folder, "", "check recipe.pem")
    assert (code, "PEM0206" in text) == (1, True)


# --- a file format ---------------------------------------------------------------------------

SITES = {"m.layers.0.q": (6, 8), "m.layers.1.q": (4, 8)}


def ini(folder: Path, seed: int, bias: bool = False, shift: bool = False) -> dict[str, np.ndarray]:
    """An adapter of the made-up format, and its tensors."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    tensors = {}
    for site, (out, in_) in SITES.items():
        tensors[f"{site}/down"] = random.normal(size=(2, in_)).astype("f4")
        tensors[f"{site}/up"] = random.normal(size=(out, 2)).astype("f4")
    if bias:
        tensors["m.layers.2.q/bias"] = random.normal(size=5).astype("f4")
    for part in ("gamma", "beta") if shift else ():
        tensors[f"m.layers.3.q/{part}"] = random.normal(size=5).astype("f4")
    save_file(tensors, folder / "factors.safetensors")
    (folder / "adapter.ini").write_text("[adapter]\nbase = some/base\nscale = 0.5\n")
    return tensors


def dense(tensors: dict[str, np.ndarray], scale: float = 0.5) -> dict[str, np.ndarray]:
    """Δ by site."""
    return {site: scale * tensors[f"{site}/up"] @ tensors[f"{site}/down"] for site in SITES}


def test_a_file_format(folder: Path) -> None:
    x, y = (ini(folder / name, seed) for seed, name in enumerate("xy"))
    text = 'adapter x: lora(rank=2) = "x"\nadapter y = "y"\n'
    recipe(folder, text + 'save x - 2 * y to "sum"\nsave 0.5 ⊗ x ⊕ y to "mix"\n')
    assert right(folder, "ini", "check recipe.pem", "build recipe.pem")[0] == ""
    assert sorted(path.name for path in (folder / "sum").iterdir()) == [
        "README.md", "adapter.ini", "factors.safetensors", "provenance.json",
    ]  # fmt: skip
    config = configparser.ConfigParser()
    config.read(folder / "sum" / "adapter.ini")
    assert dict(config["adapter"]) == {"base": "some/base", "scale": "0.5"}
    built = dense(load_file(folder / "sum" / "factors.safetensors"))
    for site, found in built.items():
        np.testing.assert_allclose(found, dense(x)[site] - 2 * dense(y)[site], atol=1e-5)
    mixed = load_file(folder / "mix" / "factors.safetensors")
    for key, found in mixed.items():
        np.testing.assert_allclose(found, 0.5 * x[key] + y[key], atol=1e-6)


def test_an_output_of_a_file_format_is_kept_held_and_locked(folder: Path) -> None:
    for seed, name in enumerate("xy"):
        ini(folder / name, seed)
    recipe(folder, 'adapter x = "x"\nadapter y = "y"\nsave x + y to "sum"\n')
    _, again, verified, _ = right(
        folder, "ini",
        "build recipe.pem", "build recipe.pem", "verify --rebuild sum", "lock recipe.pem",
    )  # fmt: skip
    assert "up to date" in again
    assert "✗" not in verified
    shutil.rmtree(folder / "x")
    (folder / "sum" / "adapter.ini").write_text("[adapter]\nbase = other\nscale = 1\n")
    by_lock, missing, changed = with_extensions(
        folder, "ini", "check --locked recipe.pem", "check recipe.pem", "verify sum"
    )
    assert by_lock == (0, "")
    assert (missing[0], "PEM0410" in missing[1]) == (1, True)
    assert (changed[0], "✗ adapter.ini differs" in changed[1]) == (1, True)


def test_a_place_of_no_format_is_told_with_what_each_saw(folder: Path) -> None:
    (folder / "x").mkdir()
    recipe(folder, 'adapter x = "x"\nsave x to "out"\n')
    [(code, text)] = with_extensions(folder, "ini", "check recipe.pem")
    assert (code, "PEM0410" in text) == (1, True)
    assert "note: as ini: no adapter.ini" in text


def test_adapters_of_two_formats_become_the_one_that_all_read(folder: Path) -> None:
    tensors = ini(folder / "x", 1)
    lora(folder / "a", 1, SITES, rank=2)
    recipe(folder, 'adapter x = "x"\nadapter a = "a"\nsave x + a to "sum" with dtype=f32\n')
    right(folder, "ini", "build recipe.pem")
    a, built = delta(folder / "a"), delta(folder / "sum")
    for site, found in built.items():
        np.testing.assert_allclose(found, dense(tensors)[site] + a[site], atol=1e-5)


# --- a parametrisation -----------------------------------------------------------------------


def test_a_parametrisation_beside_another_in_one_file(folder: Path) -> None:
    x, y = (ini(folder / name, seed, bias=True) for seed, name in enumerate("xy"))
    text = 'adapter x = "x"\nadapter y = "y"\nlet biases: bias = x["*.2.q"]\n'
    text += "assert norm(biases) > 0 and cosine(x, x) == 1\n"
    recipe(folder, text + 'save x - 2 * y to "sum"\nsave 3 * biases to "biases"\n')
    checked, planned, _, inspected, difference, _ = right(
        folder, "bias ini",
        "check recipe.pem", "plan recipe.pem", "build recipe.pem", "inspect x", "diff x y",
        "report recipe.pem",
    )  # fmt: skip
    assert checked == ""
    assert "LoRA and bias, rank" in planned
    assert "LoRA and bias" in inspected
    assert "changed" in difference
    built = load_file(folder / "sum" / "factors.safetensors")
    key = "m.layers.2.q/bias"
    np.testing.assert_allclose(built[key], x[key] - 2 * y[key], atol=1e-6)
    for site, found in dense(built).items():
        np.testing.assert_allclose(found, dense(x)[site] - 2 * dense(y)[site], atol=1e-5)
    [alone] = load_file(folder / "biases" / "factors.safetensors").values()
    np.testing.assert_allclose(alone, 3 * x[key], atol=1e-6)


def test_what_is_not_defined_for_a_parametrisation_is_told(folder: Path) -> None:
    for seed, name in enumerate("xy"):
        ini(folder / name, seed, bias=True)
    lora(folder / "a", 1, SITES, rank=2)
    text = 'adapter x = "x"\nadapter y = "y"\nadapter a = "a"\n'
    wrong = {
        "x + a": "PEM0306",
        'x["*.2.q"] + a["*.0.q"]': "PEM0304",
        "ties([x, y], density=0.5, over=factors)": "PEM0311",
        'compress(x["*.2.q"], rank=1)': "PEM0311",
    }
    for number, value in enumerate(wrong):
        recipe(folder, f'{text}save {value} to "out"\n', f"{number}.pem")
    checks = [f"check {number}.pem" for number in range(len(wrong))]
    for (code, text), wanted in zip(
        with_extensions(folder, "bias ini", *checks), wrong.values(), strict=True
    ):
        assert (code, wanted in text) == (1, True), text
    [(code, text)] = with_extensions(folder, "ini", "check 0.pem")
    assert (code, "PEM0417" in text) == (1, True)


def test_beside_a_lora_it_is_combined_by_its_own_laws(folder: Path) -> None:
    x, y = (ini(folder / name, seed, bias=True) for seed, name in enumerate("xy"))
    text = (
        'adapter x = "x"\nadapter y = "y"\nsave x ⊖ y to "mix"\nsave compress(x, rank=1) to "cut"\n'
    )
    recipe(folder, text)
    right(folder, "bias ini", "build recipe.pem")
    mixed, cut = (load_file(folder / name / "factors.safetensors") for name in ("mix", "cut"))
    key = "m.layers.2.q/bias"
    np.testing.assert_allclose(mixed[key], x[key] - y[key], atol=1e-6)
    np.testing.assert_array_equal(cut[key], x[key])
    assert {len(a) for name, a in cut.items() if name.endswith("/down")} == {1}


def test_a_parametrisation_of_several_tensors(folder: Path) -> None:
    x, y = (ini(folder / name, seed, shift=True) for seed, name in enumerate("xy"))
    text = 'adapter x = "x"\nadapter y = "y"\nlet xs = x["*.3.q"]\nlet ys = y["*.3.q"]\n'
    recipe(folder, text + 'assert cosine(xs, ys) < 1\nsave xs - 2 * ys to "sum"\n')
    recipe(folder, text + 'save ties([xs, ys], density=0.5) to "out"\n', "merged.pem")
    [(code, told), *built] = with_extensions(
        folder, "shift ini", "check merged.pem", "build recipe.pem", "report recipe.pem"
    )
    assert (code, "ties is defined for LoRA; `xs` is scale and shift" in told) == (1, True), told
    assert [code for code, _ in built] == [0, 0], built
    total = load_file(folder / "sum" / "factors.safetensors")
    gamma, beta = "m.layers.3.q/gamma", "m.layers.3.q/beta"
    np.testing.assert_allclose(total[gamma] - 1, x[gamma] - 1 - 2 * (y[gamma] - 1), atol=1e-6)
    np.testing.assert_allclose(total[beta], x[beta] - 2 * y[beta], atol=1e-6)


def test_what_peft_cannot_hold_is_no_adapter_of_a_live_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "mine", Mixed("mine"))
    (tmp_path / "x").mkdir()
    save_file({key: np.ones(shape, "f4") for key, shape in TENSORS.items()},
              tmp_path / "x" / "mine.safetensors")  # fmt: skip
    loaded = pemlang.load(recipe(tmp_path, 'adapter x = "x"\nlet z = 2 * x\n'))
    assert [told.code for told in loaded.check()] == ["PEM0114"]
    with pytest.raises(pemlang.PemError) as wrong:
        loaded.evaluate("z")
    assert [diagnostic.code for diagnostic in wrong.value.diagnostics] == ["PEM0421"]


# --- a command -------------------------------------------------------------------------------


def test_a_command(folder: Path) -> None:
    lora(folder / "a", 1, {"m.layers.0.q": (6, 8)})
    listed, told = right(folder, "sites", "sites a", "--help")
    assert listed == "m.layers.0.q: lora, linear 6×8\n"
    assert "List what an adapter changes." in told
    [(code, text)] = with_extensions(folder, "sites", "sitse a")
    assert (code, "Did you mean `pem sites`?" in text) == (2, True)
    [(code, text)] = with_extensions(folder, "", "sites a")
    assert (code, "There is no command" in text) == (2, True)
