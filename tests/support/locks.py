"""Locks in the folder where a test runs: written, edited, and gone by without the adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import pemlang
from support.adapters import SITES, tensors_of
from support.command import Done, pem
from support.outputs import WEIGHTS
from support.recipes import recipe

DECLARED = 'adapter a = "adapters/a"\nadapter b = "adapters/b"\n'
SUM = DECLARED + 'save a + 0.5 * b to "out/x"\n'
RIGHT = Done(0, "", "")
"""What a check of a recipe leaves in which nothing is wrong."""


def lock(*recipes: str) -> dict[str, Any]:
    """What a lock says once some recipes are locked."""
    assert pem("lock", *(recipes or ("recipe.pem",))).code == 0
    locked: dict[str, Any] = json.loads(Path("pem.lock").read_text())
    return locked


def edit_lock(change: Callable[[Any], object]) -> None:
    """Change a lock by hand."""
    locked = json.loads(Path("pem.lock").read_text())
    change(locked)
    Path("pem.lock").write_text(json.dumps(locked))


def built_hash(name: str = "recipe.pem", **params: Any) -> str:
    """The semantic hash of the one output of a recipe, which is built."""
    [built] = pemlang.load(name, params).build().outputs
    return built.semantic_hash


def planned(name: str = "recipe.pem", **params: Any) -> list[str | None]:
    """The semantic hashes of a plan that goes by the lock alone."""
    forecast = pemlang.load(name, params).plan(locked=True)
    return [output.semantic_hash for output in forecast.outputs]


def pickled(folder: Path) -> None:
    """Make a pickle of the tensors of an adapter."""
    place = folder / "adapters/a"
    torch.save(tensors_of(place), place / "adapter_model.bin")
    (place / WEIGHTS).unlink()


def collected(folder: Path) -> None:
    """Put statistics beside the adapters, and have the recipe use them."""
    grams = {f"{site}.gram": torch.eye(shape[1]) for site, shape in SITES.items()}
    for name in "ab":
        save_file(grams, folder / "adapters" / name / "statistics.safetensors")
    recipe(folder, DECLARED + 'save regmean([a, b]) to "out/x" with rank=8\n')
