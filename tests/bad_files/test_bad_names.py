"""Names that are hostile or too long, and what is no file where one should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import lora, pem, recipe
from support.gguf_made import gguf_lora
from support.refusals import WEIGHTS, refused


def test_a_hostile_name_is_shown_and_not_obeyed(folder: Path) -> None:
    hostile = "evil\x1b[2J\u202e\n# <script>"
    lora(folder / hostile.replace("\n", ""), 1)
    lora(folder / "a", 1, sites={hostile.replace("\n", ""): (3, 5)})
    lora(folder / "b", 2, sites={"plain": (3, 5)})
    done = pem("check", "recipe.pem", folder=folder)
    assert done.code == 1
    assert "\x1b" not in done.err
    assert "\u202e" not in done.err
    assert "\\u001b[2J\\u202e" in done.err


def test_a_directory_that_is_none(folder: Path) -> None:
    for path in ("nowhere", "recipe.pem", "a/adapter_config.json", ""):
        recipe(folder, f'adapter a = "{path}"\nsave a to "out/x"\n')
        assert pem("build", "recipe.pem", folder=folder).code == 1


def test_a_name_that_is_too_long_for_any_pattern(folder: Path) -> None:
    lora(folder / "a", 1, sites={"a" * 3000: (3, 5)}, rank_pattern={".*a.*a.*b": 4})
    refused(folder, "PEM0416")


@pytest.mark.parametrize("name", ["adapter_config.json", WEIGHTS, "adapter_model.bin"])
def test_a_pipe_in_place_of_a_file(folder: Path, name: str) -> None:
    if name == "adapter_model.bin":
        (folder / "a" / WEIGHTS).unlink()
    (folder / "a" / name).unlink(missing_ok=True)
    os.mkfifo(folder / "a" / name)
    assert pem("build", "recipe.pem", folder=folder).code == 1


@pytest.mark.parametrize(
    "text",
    [
        'import "{}.pem" as x',
        'base m = "{}"\nadapter a = "a"\nlet x = m + a',
        'model q = "{}"',
        'adapter q = "{}"',
        'adapter q = "x/{}"',
        'adapter a = "a"\nsave a to "{}"',
    ],
)
def test_a_name_that_is_too_long_for_the_disk(folder: Path, text: str) -> None:
    recipe(folder, text.format("y" * 300) + "\n")
    assert pem("build", "recipe.pem", folder=folder).code == 1


def test_an_unreadable_file(folder: Path) -> None:
    (folder / "a" / WEIGHTS).unlink()
    (folder / "a" / WEIGHTS).mkdir()
    refused(folder, "PEM0411")


def test_the_name_of_a_file_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    gguf_lora(tmp_path / "a\x1b[31m\nb.gguf", 1)
    seen = pem("inspect", tmp_path / "a\x1b[31m\nb.gguf").out
    assert "\x1b" not in seen and r"a\u001b[31m\u000ab.gguf" in seen


def test_a_module_by_the_name_of_the_bias_of_another(folder: Path) -> None:
    lora(folder / "a", 1, {"layers.0.q": (4, 6), "layers.0.v": (4, 6)})
    rule = '{ "*.v": "*.q.bias" }'
    recipe(folder, f'adapter a = "a" with names={rule}\nsave 2 * a to "out/x"\n')
    assert "layers.0.q.bias" in refused(folder, "PEM0421")
