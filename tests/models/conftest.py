"""Models made for tests: a base and fine-tunes of it, in one file or in shards."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.models import model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base `b`, and two fine-tunes of it, `m` in one file and `n` in shards."""
    model(tmp_path / "b")
    model(tmp_path / "m", tuned=1)
    model(tmp_path / "n", tuned=2, shards=3)
    return tmp_path
