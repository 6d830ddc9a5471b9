"""A recipe over two adapters, to be damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import lora, recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2)
    recipe(tmp_path, 'adapter a = "a"\nadapter b = "b"\nsave a + b to "out/x"\n')
    return tmp_path
