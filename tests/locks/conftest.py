"""A folder with a recipe and its adapters, which is where commands are run."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import lora, recipe
from support.locks import SUM


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    for seed, name in enumerate("ab"):
        lora(home / "adapters" / name, seed)
    recipe(home, SUM)
    monkeypatch.chdir(home)
    return home
