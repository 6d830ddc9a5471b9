"""Adapters to report on."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import ia3, lora
from support.reports import SITES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The adapters of support.reports.TEXT."""
    for seed, name in enumerate("abc"):
        lora(tmp_path / name, seed, SITES, rank=4)
    for seed, name in enumerate("ij"):
        ia3(tmp_path / name, seed)
    return tmp_path
