"""An input that is changed at any moment of a build: what the provenance names is what the output
was made from, or the build says so and writes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import lora, recipe

HERE = Path(__file__).parent
SITES = {"layers.0.q": (16, 24), "layers.0.v": (16, 24)}


@pytest.mark.parametrize("how", ["replaced", "written to"])
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_the_provenance_is_true(name: str, how: str, tmp_path: Path) -> None:
    lora(tmp_path / "a", 1, SITES)
    lora(tmp_path / "b", 2, SITES)
    lora(tmp_path / "other", 3, SITES, alpha=32)
    recipe(tmp_path, 'adapter a = "a"\nadapter b = "b"\nsave a + 0.5 * b to "out/x"\n')
    script, new = str(HERE / "change_at.py"), str(tmp_path / "other" / name)
    done = subprocess.run(
        [sys.executable, script, str(tmp_path), str(tmp_path / "a" / name), new, how],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    points, wrong = json.loads(done.stdout)
    assert not wrong
    assert points > 20
