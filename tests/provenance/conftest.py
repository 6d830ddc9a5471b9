"""A recipe with all that an output can be made from, and its output."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import build, lora, recipe
from support.outputs import TEXT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    lora(home / "a", 1)
    lora(home / "b", 2)
    recipe(home / "lib", "let half = 0.5\n", "w.pem")
    return home


@pytest.fixture
def output(folder: Path) -> Path:
    return build(folder, TEXT).outputs[0].path
