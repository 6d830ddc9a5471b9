"""Recipes over adapters made for tests, checked and built."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

import pemlang
from pemlang.pipeline import BuildResult


def recipe(folder: Path, text: str, name: str = "recipe.pem") -> Path:
    """A recipe file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def build(folder: Path, text: str, **params: Any) -> BuildResult:
    """Build a recipe in a folder."""
    return pemlang.load(recipe(folder, text), params).build()


def codes(folder: Path, text: str, **params: Any) -> list[str]:
    """The codes of what a check says of a recipe, in order."""
    return [d.code for d in pemlang.load(recipe(folder, text), params).check()]


def error(folder: Path, text: str, **params: Any) -> pemlang.Diagnostic:
    """The one error that building a recipe gives."""
    try:
        build(folder, text, **params)
    except pemlang.PemError as wrong:
        [found] = [d for d in wrong.diagnostics if d.severity == "error"]
        return found
    raise AssertionError("it built")


def edit(output: Path, change: Callable[[Any], object]) -> None:
    """Change the provenance of an output, and its own digest with it, as one who means to deceive
    would."""
    path = output / "provenance.json"
    said = json.loads(path.read_text())
    byproducts = said["predicate"]["runDetails"]["byproducts"]
    own = byproducts.pop()
    change(said)
    own["digest"]["blake3"] = blake3(json.dumps(said).encode()).hexdigest()
    byproducts.append(own)
    path.write_text(json.dumps(said, indent=1) + "\n")
