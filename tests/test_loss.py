"""What a build reports of a truncation, against the dense adapters it read and wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import build, delta, lora

SITES = {"layers.0.q": (24, 32), "layers.1.q": (24, 32), "layers.2.q": (24, 32)}


def test_the_error_in_all_is_relative_to_all_sites(tmp_path: Path) -> None:
    """Sites that a rank does not cut count in the norm, and are not listed as cut."""
    lora(tmp_path / "a", 1, SITES, rank={"layers.0.q": 2, "layers.1.q": 8, "layers.2.q": 3})
    [built] = build(tmp_path, 'adapter a = "a"\nsave a to "x" with rank=4, dtype=f64\n').outputs
    whole, kept = delta(tmp_path / "a"), delta(tmp_path / "x")
    lost = {site: np.linalg.norm(whole[site] - kept[site]) for site in SITES}
    norm = {site: np.linalg.norm(whole[site]) for site in SITES}
    assert built.loss is not None
    total = np.linalg.norm(list(lost.values())) / np.linalg.norm(list(norm.values()))
    assert built.loss.total == pytest.approx(total, rel=1e-6)
    assert built.loss.sites == {
        "layers.1.q": pytest.approx(lost["layers.1.q"] / norm["layers.1.q"], rel=1e-6)
    }


def test_nothing_is_reported_where_nothing_is_cut(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1, SITES, rank=4)
    for text in ("a", "compress(a, rank=4)", "2 * a + a"):
        [built] = build(tmp_path, f'adapter a = "a"\nsave {text} to "x" with rank=4\n').outputs
        assert built.loss is None
