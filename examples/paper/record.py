"""results.json: every number that was measured, from which results.md is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from settings import RESULTS

Results = dict[str, Any]


def read(path: Path = RESULTS) -> Results:
    """What has been measured so far."""
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    return {"found": {}, "seconds": {}}


def note(results: Results, step: str, found: Any, seconds: float, path: Path = RESULTS) -> None:
    """Write down what a step found, whole or not at all."""
    if found is not None:
        results["found"][step] = found
    results["seconds"].setdefault(step, round(seconds, 1))  # a build made again stays as timed
    new = path.with_name(".results.json")
    text = json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False)
    new.write_text(text + "\n", encoding="utf-8")
    new.replace(path)


def curve(results: Results, name: str, method: str, seed: str) -> dict[str, dict[str, float]]:
    """λ to what was measured on validation sentences, by text."""
    return results["found"][f"validation/{name}/{method}/{seed}"]["curve"]


def chosen(results: Results, name: str, method: str, seed: str) -> str:
    """The λ that validation chose."""
    return results["found"][f"validation/{name}/{method}/{seed}"]["chosen"]


def test(results: Results, name: str, method: str, seed: str) -> dict[str, float]:
    """What was measured on the test sentences at the chosen λ."""
    return results["found"][f"test/{name}/{method}/{seed}"]


def part(results: Results, name: str, method: str, seed: str) -> dict[str, float]:
    """What one module measures on the test sentences; "base" is no module."""
    return results["found"][f"parts/{seed}"][name if name == "base" else f"{name}-{method}"]
