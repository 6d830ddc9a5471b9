"""Files that are no recipe, and recipes that are too much."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import pem, recipe
from support.refusals import refused

RECIPES: dict[str, tuple[bytes, str]] = {
    "a certificate": (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "PEM0103"),
    "a key after a blank line": (b"\n -----BEGIN PRIVATE KEY-----\n", "PEM0103"),
    "an empty file": (b"", "PEM0104"),
    "white space": (b" \n\t\n", "PEM0104"),
    "ten megabytes in one line": (b"let x = " + b"1 + " * 2_500_000 + b"1", "PEM0101"),
    "Latin-1": ("let é = 1".encode("latin-1"), "PEM0102"),
    "UTF-16": ("let x = 1".encode("utf-16"), "PEM0102"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "PEM0102"),
    "zeros": (bytes(1000), "PEM0105"),
    "a configuration of mergekit": (b"slices:\n- sources:\n  - model: a/b\n", "PEM0115"),
    "a Python program": (b"import torch\nx = {'a': [1,\n", "PEM0115"),
    "JSON": (b'{"r": 8, "peft_type": "LORA"}', "PEM0115"),
    "a web page": (b"<!DOCTYPE html>\n<html>\n", "PEM0115"),
    "tensors": (b"\x08" + bytes(7) + b'{"a":{}}' + b"\xff" * 8, "PEM0115"),
    "nothing but comments": (b"# to do\n", "PEM0114"),
}


@pytest.mark.parametrize("what", RECIPES)
def test_a_file_that_is_no_recipe(folder: Path, what: str) -> None:
    data, code = RECIPES[what]
    (folder / "x.pem").write_bytes(data)
    message = refused(folder, code, "x.pem")
    assert len(message) < 2000


def test_a_file_of_another_language_is_one_error(folder: Path) -> None:
    """A mergekit config, Python and JSON; and no recipe that parses is taken for one of them."""
    for what in ("a configuration of mergekit", "a Python program", "JSON"):
        (folder / "x.pem").write_bytes(RECIPES[what][0])
        assert pem("check", "x.pem", folder=folder).err.count("error[") == 1
    text = (folder / "recipe.pem").read_text()
    recipe(folder, text + "def f(\nmerge_method: adapter) -> adapter = 2 * merge_method\n")
    assert pem("check", "recipe.pem", folder=folder).code == 0


def test_a_recipe_that_is_not_there(folder: Path) -> None:
    assert "No such file" in refused(folder, "PEM0100", "nowhere.pem")
    (folder / "dir.pem").mkdir()
    refused(folder, "PEM0100", "dir.pem")


def test_the_largest_recipe_is_read(folder: Path) -> None:
    """The bound on a recipe's size is one that its reader stands."""
    text = (folder / "recipe.pem").read_text()
    recipe(folder, text + "let n = " + "1 + " * 64_000 + "1\n")
    assert pem("check", "recipe.pem", folder=folder).code == 0


def test_a_file_full_of_mistakes_is_said_briefly(folder: Path) -> None:
    recipe(folder, "let = 1\n" * 30_000)
    done = pem("check", "recipe.pem", folder=folder)
    assert done.code == 1
    assert len(done.err) < 100_000
