"""The hooks for pre-commit."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import lora, pem, recipe

from pemlang.cli.main import PLUMBING, command_names

ROOT = Path(__file__).parents[2]
FILE = ROOT / ".pre-commit-hooks.yaml"
HOOKS: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lora(tmp_path / "a", 1)
    recipe(tmp_path, 'adapter a = "a"\nsave a to "out"\n', "right.pem")
    recipe(tmp_path, "let x = nothing\n", "wrong.pem")
    recipe(tmp_path, "-----BEGIN CERTIFICATE-----\nMIIB\n", "cert.pem")
    recipe(tmp_path, "# roots\n\nA root\n======\n-----BEGIN CERTIFICATE-----\n", "bundle.pem")
    return tmp_path


def hook(folder: Path, name: str, *files: str) -> subprocess.CompletedProcess[str]:
    """Run a hook on files, as pre-commit does."""
    [chosen] = [hook for hook in HOOKS if hook["id"] == name]
    python, *entry = shlex.split(chosen["entry"])
    assert python == "python"
    return subprocess.run(
        [sys.executable, *entry, *files], cwd=folder, capture_output=True, text=True, check=False
    )


def test_pre_commit_takes_the_file() -> None:
    pytest.importorskip("pre_commit")
    command = [sys.executable, "-m", "pre_commit", "validate-manifest", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_hooks_run_commands_that_exist() -> None:
    assert [hook["id"] for hook in HOOKS] == ["pem-check", "pem-check-locked", "pem-fmt"]
    for hook in HOOKS:
        words = shlex.split(hook["entry"])
        assert words[:4] == ["python", "-P", "-m", "pemlang.cli.hook"]
        assert words[4] in set(command_names()) - set(PLUMBING)
        assert (hook["files"], hook["types"], hook["language"]) == (r"\.pem$", ["text"], "python")


def test_recipes_are_checked(folder: Path) -> None:
    assert hook(folder, "pem-check", "right.pem").returncode == 0
    done = hook(folder, "pem-check", "right.pem", "wrong.pem", "cert.pem")
    assert done.returncode == 1
    assert "wrong.pem:1:9" in done.stderr
    assert "PEM0103" not in done.stderr


@pytest.mark.parametrize("name", [hook["id"] for hook in HOOKS])
def test_certificates_are_left_out(folder: Path, name: str) -> None:
    before = (folder / "cert.pem").read_text()
    done = hook(folder, name, "cert.pem", "bundle.pem")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (folder / "cert.pem").read_text() == before


def test_a_file_that_is_not_there_is_still_a_mistake(folder: Path) -> None:
    assert hook(folder, "pem-check", "nowhere.pem").returncode == 1


def test_the_lock_is_what_a_locked_check_goes_by(folder: Path) -> None:
    done = hook(folder, "pem-check-locked", "right.pem")
    assert "PEM0801" in done.stderr
    assert pem("lock", "right.pem", folder=folder).code == 0
    (folder / "a" / "adapter_model.safetensors").unlink()
    assert hook(folder, "pem-check-locked", "right.pem").returncode == 0
    assert hook(folder, "pem-check", "right.pem").returncode == 1
