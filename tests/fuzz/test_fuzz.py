"""Bytes that nobody wrote, for some seconds a target, the same each time; `make fuzz` draws
others, for as long as you like. And all that ever crashed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE))

from targets import TARGETS, hold  # noqa: E402

LIMITS = ("-max_total_time=3", "-runs=10000", "-seed=1")
CRASHES = sorted((HERE / "crashes").glob("*-*"))


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_found(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "run.py"), name, str(tmp_path), *LIMITS],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]


@pytest.mark.parametrize("crash", CRASHES, ids=lambda path: path.name)
def test_what_crashed_does_not_again(crash: Path) -> None:
    hold(crash.name.partition("-")[0], crash.read_bytes())
