"""`pem new`: what it writes passes its own checks, and nothing is lost."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from support import lora, pem
from support.git import git


@pytest.mark.parametrize("kind", ["library", "recipe"])
def test_what_is_begun_passes_its_own_checks(tmp_path: Path, kind: str) -> None:
    done = pem("new", kind, "house", folder=tmp_path)
    assert (done.code, done.err) == (0, "")
    folder = tmp_path / "house"
    written = sorted(str(p.relative_to(tmp_path)) for p in folder.rglob("*") if p.is_file())
    assert done.out.split() == written
    workflow = yaml.safe_load((folder / ".github/workflows/recipes.yml").read_text())
    commands = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    checks = [words for words in map(str.split, commands) if words[0] == "pem"]
    assert [words[1] for words in checks] == ["fmt", "check", "test"]
    for words in checks:
        assert pem(*words[1:], folder=folder).code == 0
    assert "1 passed" in pem("test", folder=folder).out


@pytest.mark.parametrize("kind", ["library", "recipe"])
def test_the_hooks_run(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pre_commit")
    pem("new", kind, "house", folder=tmp_path)
    folder = tmp_path / "house"
    config = folder / ".pre-commit-config.yaml"
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config", str(config)], check=True)
    [repository] = yaml.safe_load(config.read_text())["repos"]
    [recipe] = folder.rglob("*.pem")
    for hook in repository["hooks"]:
        python, *entry = hook["entry"].split()
        assert python == "python"
        subprocess.run([sys.executable, *entry, str(recipe)], check=True, capture_output=True)


def test_the_recipe_is_what_a_user_makes_of_it(tmp_path: Path) -> None:
    """The lines that are comments, as they stand, once there are adapters."""
    pem("new", "recipe", "mine", folder=tmp_path)
    for seed, name in enumerate(("first", "second")):
        lora(tmp_path / "mine/adapters" / name, seed)
    path = tmp_path / "mine/mine.pem"
    path.write_text(re.sub("(?m)^# (?=adapter|save)", "", path.read_text()))
    assert pem("build", path).code == 0
    assert (tmp_path / "mine/out/mixed/adapter_model.safetensors").exists()
    assert pem("fmt", "--check", path).code == 0


def test_recipes_are_not_ignored_and_wheels_are(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("*.pem\n")
    pem("new", "library", "house", folder=tmp_path)
    git(tmp_path, "check-ignore", "-q", "house/src/house/merges.pem", code=1)
    git(tmp_path, "check-ignore", "-q", "house/house-0.1.0-py3-none-any.whl")


def test_a_library_is_a_distribution(tmp_path: Path) -> None:
    pem("new", "library", "house", folder=tmp_path)
    project = tomllib.loads((tmp_path / "house/pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pemlang.libraries"] == {"house": "house"}


@pytest.mark.parametrize(
    "name",
    ["House", "ho-use", "../house", "a_", "", "std", "import", "test", "9", "a" * 300, "-x", "a/b"],
)
def test_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    done = pem("new", "library", "--", name, folder=tmp_path)
    assert done.code == 2
    assert "Traceback" not in done.text
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    for name in ("file", "folder", "link"):
        assert pem("new", "recipe", name, folder=tmp_path).code == 2
    assert sorted(tmp_path.rglob("*")) == before
