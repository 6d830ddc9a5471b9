"""What the steps of run.py do on SmolLM2, each in a process of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from composing import overlaps, pem_build
from record import chosen, read
from settings import FULL, best
from table import quiet
from texts import Texts

from smollm2 import models, speaking
from smollm2.settings import (
    BASE_MODEL,
    BY_NAME,
    COMPOSITIONS,
    LOSSES,
    RESULTS,
    SEEDS,
    TRAINED,
    SmolComposition,
    choose,
    module_directory,
)
from smollm2.texts import NEW_TOPICS, TASKS, TOPICS, Example, Examples, read_sample

quiet()
torch.set_num_threads(1)

SPOKEN = {
    "complaints": speaking.complaints,
    "opinions": lambda: speaking.opinions(TOPICS),
    "new_opinions": lambda: speaking.opinions(NEW_TOPICS),
}


@cache
def examples(data: Path) -> Examples:
    """What is trained and measured; no sentence is clustered."""
    return Examples(Texts(data, embed=lambda _: None))


@cache
def states(exact: bool) -> models.States:
    """What the layers below all modules make of texts."""
    return models.States(exact)


def train(data: Path, name: str, method: str, seed: str) -> None:
    """Train one module."""
    [module] = [one for one in TRAINED if one.name == name]
    train = models.fine_tune if method == FULL else models.train_module
    train(module, method, seed, examples(data).training(name, seed), states(False))


def write_base(data: Path) -> None:
    """Write the base as a model, from which fine-tunes are taken away."""
    models.write_model(BASE_MODEL)


# --- composing: recipes and `pem build`, nothing else ---------------------------------------------


def build(data: Path, name: str) -> dict[str, Any]:
    """Build a composition's recipe at every λ, for each seed and method; what was said of it."""
    one = BY_NAME[name]
    sweep = ("--sweep", f"weight={','.join(one.grid)}")
    return {
        f"{method}/{seed}": pem_build(one, method, seed, *sweep)
        for seed in SEEDS
        for method in one.methods
    }


@contextmanager
def composed(one: SmolComposition, method: str, seed: str, weight: str) -> Iterator[Path]:
    """A composition at some λ. A model, of 270 MB, is there for as long as it is measured."""
    directory = one.by(method).directory(seed, method, weight)
    if method != FULL:
        yield directory
        return
    pem_build(one.by(method), method, seed, f"--set=weight={weight}")
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def overlap(data: Path) -> dict[str, dict[str, float]]:
    """How alike the first factors of the two subsets' modules are, of one seed and of two."""
    found: dict[str, dict[str, float]] = {}
    for name in ("shared_function", "apart_function"):
        one = BY_NAME[name]
        pairs = {seed: (seed, one.set(seed, "lora")["other"]) for seed in SEEDS}
        found[name] = {
            seed: overlaps(
                module_directory("subset_a", a, "lora"), module_directory("subset_b", b, "lora")
            )
            for seed, (a, b) in pairs.items()
        }
    return found


# --- measuring ------------------------------------------------------------------------------------


def measured(
    directory: Path | None,
    names: tuple[str, ...],
    examples: dict[str, list[Example]],
    exact: bool = False,
) -> dict[str, float]:
    """What plain PEFT makes of a module: percent right, the loss of a token, how much it says is
    blame."""
    found: dict[str, float] = {}
    with models.with_module(directory):
        for name in names:
            if name in SPOKEN:
                found |= SPOKEN[name]()
            elif name in LOSSES:
                found[name] = states(exact).token_loss(examples[name])
            else:
                words = TASKS[name].answers
                found[name], found[f"{name}_loss"] = states(exact).judged(examples[name], words)
    return {name: round(number, 4) for name, number in found.items()}


def measure_base(data: Path, seed: str) -> dict[str, float]:
    """The losses of the model without a module, on validation sentences."""
    return measured(None, LOSSES, examples(data).validation(seed))


def validate(data: Path, name: str, method: str, seed: str) -> dict[str, Any]:
    """Measure a composition at every λ on validation sentences, and choose one."""
    one, sentences = BY_NAME[name], examples(data).validation(seed)
    found = {}
    for weight in one.grid:
        with composed(one, method, seed, weight) as directory:
            found[weight] = measured(directory, one.texts, sentences)
    base = read(RESULTS)["found"][f"base/{seed}"]
    said = {"curve": found, "chosen": choose(name, found, base)}
    if name == "transfer":  # without a label of the target domain
        said["chosen_on_movies"] = best(found, ("movies",))
    return said


def test(data: Path, name: str, method: str, seed: str) -> dict[str, Any]:
    """Measure a composition at its λ on the test sentences."""
    one, results = BY_NAME[name], read(RESULTS)

    def at(weight: str) -> dict[str, float]:
        with composed(one, method, seed, weight) as directory:
            return measured(directory, one.tested, examples(data).test)

    found: dict[str, Any] = at(chosen(results, name, method, seed))
    if name == "transfer":
        found["on_movies"] = at(
            results["found"][f"validation/{name}/{method}/{seed}"]["chosen_on_movies"]
        )
    return found | {weight: at(weight) for weight in one.also_at}


def measure_parts(data: Path, part: str, method: str, seed: str) -> dict[str, float]:
    """Measure a module, or the base, as the compositions are that it is a part of."""
    names = {
        name
        for one in COMPOSITIONS
        if part in one.parts and (method in one.measured_by or part == "base")
        for name in one.tested
    }
    at = None if part == "base" else module_directory(part, seed, method)
    return measured(at, tuple(sorted(names)), examples(data).test)


def sample(data: Path, name: str, method: str, seed: str) -> dict[str, float]:
    """Measure a composition at its λ on the shipped sentences."""
    one, weight = BY_NAME[name], chosen(read(RESULTS), name, method, seed)
    return on_sample(one, one.directory(seed, method, weight))


def on_sample(one: SmolComposition, directory: Path) -> dict[str, float]:
    """What a composition makes of the shipped sentences, in float32; it says nothing there, since
    what is drawn is another on another processor."""
    names = tuple(name for name in one.texts if name not in SPOKEN)
    return measured(directory, names, read_sample(), exact=True)
