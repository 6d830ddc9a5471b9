"""Composing: recipes and `pem build`, and what the language says of two modules."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from settings import Composition

import pemlang


def pem_build(one: Composition, method: str, seed: str, *more: str) -> dict[str, str]:
    """Run `pem build`; the warnings by code, one of each."""
    params = [f"--set={name}={value}" for name, value in one.set(seed, method).items()]
    command = [sys.executable, "-m", "pemlang", "build", one.recipe, *params, *more]
    done = subprocess.run(
        [*command, "--format", "json"], cwd=one.home, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return {said["code"]: said["message"] for said in json.loads(done.stdout)["messages"]}


OVERLAP = """
adapter a = "{a}"
adapter b = "{b}"
assert init_overlap(a, b) > 1
save a to "never"
"""


def overlaps(a: Path, b: Path) -> float:
    """What `init_overlap` says of two modules: the number in a failed assertion."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "overlap.pem"
        recipe.write_text(OVERLAP.format(a=a, b=b), encoding="utf-8")
        try:
            pemlang.load(recipe).build()
        except pemlang.PemError as error:
            [said] = error.diagnostics
            return float(re.search(r" is ([\d.]+)$", said.notes[0])[1])
    raise AssertionError("no overlap is more than 1")
