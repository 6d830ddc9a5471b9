"""Neovim with the files of editors/neovim, where one is installed that has what they need."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import lora
from support.editor_files import EDITORS

INIT = """\
vim.lsp.config("pem", {{ cmd = {{ {python}, "-m", "pemlang", "lsp" }} }})
vim.lsp.enable("pem")
"""
TEXT = 'adapter a = "a"\nlet x = ties([a], density=2)\nlet y = a ⊕\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The files as they are copied, and init.lua."""
    config = tmp_path / "config" / "nvim"
    shutil.copytree(EDITORS / "neovim", config)
    (config / "init.lua").write_text(INIT.format(python=json.dumps(sys.executable)), "utf-8")
    return config


def neovim(folder: Path, config: Path, *words: str | Path) -> str:
    """What Neovim prints; it has to be of a version that reads lsp/pem.lua."""
    program = shutil.which("nvim")
    if program is None:
        pytest.skip("there is no Neovim")
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    version = re.match(r"NVIM v(\d+)\.(\d+)", told.stdout)
    if version is None or (int(version[1]), int(version[2])) < (0, 11):
        pytest.skip("this Neovim is older than 0.11")
    folders = {f"XDG_{x}_HOME": str(config.parents[1] / x.lower()) for x in ("DATA", "STATE")}
    done = subprocess.run(
        [program, "--headless", "-n", *words],
        cwd=folder, env={**os.environ, **folders, "XDG_CONFIG_HOME": str(config.parent)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_recipe_in_neovim(tmp_path: Path, config: Path, parser_library: Path) -> None:
    root = tmp_path / "open"
    lora(root / "a", 1)
    (root / ".git").mkdir()
    (root / "recipe.pem").write_text(TEXT, encoding="utf-8")
    (root / "plain.pem").write_text("-----BEGIN CERTIFICATE-----\nMII\n", encoding="utf-8")
    (config / "parser").mkdir()
    shutil.copy(parser_library, config / "parser" / "pem.so")
    script = Path(__file__).with_name("neovim.lua")
    told = json.loads(neovim(root, config, "recipe.pem", "-S", script))
    assert (told["filetype"], told["commentstring"]) == ("pem", "# %s")
    assert (told["clients"], told["root"]) == (["pem"], str(root.resolve()))
    assert told["diagnostics"] == [["PEM0326", 1], ["PEM0108", 2]]
    assert "Trims each adapter to its largest entries" in told["hover"]
    assert told["coloured"] == ["keyword", "function.builtin", "variable.parameter", "string"]
    assert "treesitter" in told["folds"]
    assert (told["certificate"], told["attached"]) == ("", 0)


def test_without_a_parser_vims_syntax_colours(tmp_path: Path, config: Path) -> None:
    (tmp_path / "recipe.pem").write_text(TEXT, encoding="utf-8")
    name = 'lua io.stdout:write(vim.fn.synIDattr(vim.fn.synID(1, 1, 1), "name"))'
    assert neovim(tmp_path, config, "recipe.pem", "-c", name, "-c", "qall!") == "pemKeyword"
