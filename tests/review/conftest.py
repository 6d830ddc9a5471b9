"""Adapters to compare recipes over, and a repository that keeps a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support import ia3, lora, recipe
from support.comparing import SUM
from support.git import commit, git

HEAD = {"base_model.model.classifier.weight": torch.ones(2, 3)}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapters of support.comparing.DECLARED, some more, and two models."""
    folder = tmp_path_factory.mktemp("shelf")
    for seed, name in enumerate("abc"):
        lora(folder / name, seed)
    for seed, name in enumerate("hk"):
        lora(folder / name, 10 + seed, extra=HEAD, modules_to_save=["classifier"])
    for seed, name in enumerate("ij"):
        ia3(folder / name, seed)
    lora(folder / "nameless", 9, base_model_name_or_path=...)
    lora(folder / "lib/a", 7)
    recipe(folder / "lib", 'adapter a = "a"\n', "l.pem")
    for name in ("base", "chat"):
        (folder / name).mkdir()
        save_file({"w": torch.zeros(4, 4)}, folder / name / "model.safetensors")
    return folder


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a recipe, r.pem, of two adapters that it does not keep; it is where
    commands run."""
    folder = tmp_path / "repo"
    for seed, name in enumerate("ab"):
        lora(folder / "adapters" / name, seed)
    recipe(folder, SUM, "r.pem")
    (folder / ".gitignore").write_text("adapters\n")
    git(folder, "init", "-qb", "main")
    commit(folder)
    monkeypatch.chdir(folder)
    return folder
