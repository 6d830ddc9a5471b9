"""What the steps of run.py do, each in a process of its own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import models
import numpy as np
import torch
from composing import overlaps, pem_build
from record import chosen, read
from settings import (
    BY_NAME,
    COMPOSITIONS,
    GRID,
    LOSSES,
    OUT,
    SEEDS,
    TRAINED,
    best,
    choose,
    module_directory,
)
from table import Sentence, accuracy, quiet
from texts import Texts, read_sample, write_sample

quiet()
torch.set_num_threads(1)

EMBEDDINGS = OUT / "embeddings.npz"


@cache
def texts(data: Path) -> Texts:
    """The sentences; the embeddings of those that are clustered come from a file."""
    return Texts(data, embedded)


def embedded(some: list[str]) -> np.ndarray:
    with np.load(EMBEDDINGS) as file:
        known = dict(zip(file["texts"].tolist(), file["embeddings"], strict=True))
    return np.stack([known[text] for text in some])


def embeddings(data: Path) -> None:
    """Embed what may be clustered, once for all seeds."""
    some = [text for _, text in texts(data).movies]
    EMBEDDINGS.parent.mkdir(exist_ok=True)
    np.savez(EMBEDDINGS, texts=np.array(some), embeddings=models.embed(some))


def language_head(data: Path) -> None:
    """Train the head that fills in words, of all language modelling."""
    models.train_language_head(texts(data).general())


def train(data: Path, name: str, method: str, seed: str) -> None:
    """Train one module."""
    [module] = [one for one in TRAINED if one.name == name]
    sentences = texts(data).training(module.examples, seed, module.models_language)
    models.train_module(module, method, seed, sentences)


# --- composing: recipes and `pem build`, nothing else ---------------------------------------------


def build(data: Path, name: str) -> dict[str, Any]:
    """Build a composition's recipe at every λ, for each seed and method; what was said of it."""
    one = BY_NAME[name]
    return {
        f"{method}/{seed}": pem_build(one, method, seed, "--sweep", "weight=0:1:0.1")
        for seed in SEEDS
        for method in one.methods
    }


def overlap(data: Path) -> dict[str, dict[str, float]]:
    """How alike the first factors of the modules of setting 5 are."""
    return {
        second: {
            seed: overlaps(
                module_directory("subset_a", seed, "lora"), module_directory(second, seed, "lora")
            )
            for seed in SEEDS
        }
        for second in ("subset_b", "subset_b_elsewhere")
    }


# --- measuring ------------------------------------------------------------------------------------


def measured(
    directory: Path | None, names: tuple[str, ...], sentences: dict[str, list[Sentence]]
) -> dict[str, float]:
    """What plain PEFT makes of a module on some texts: percent right, or the loss of a word."""
    found = {}
    losses = [name for name in names if name in LOSSES]
    if losses:
        model = models.open_filling_in(directory)
        found |= {name: round(models.word_loss(model, sentences[name]), 4) for name in losses}
    if rest := [name for name in names if name not in LOSSES]:
        model = models.open_answering(directory)
        found |= {name: round(accuracy(model, sentences[name]), 3) for name in rest}
    return found


def measure_base(data: Path, seed: str) -> dict[str, float]:
    """The losses of the encoder without a module, on validation sentences."""
    return measured(None, LOSSES, texts(data).validation(seed))


def validate(data: Path, name: str, method: str, seed: str) -> dict[str, Any]:
    """Measure a composition at every λ on validation sentences, and choose one."""
    one, sentences = BY_NAME[name], texts(data).validation(seed)
    found = {w: measured(one.directory(seed, method, w), one.texts, sentences) for w in GRID}
    said = {"curve": found, "chosen": choose(name, found, read()["found"][f"base/{seed}"])}
    if name == "transfer":  # without a label of the target domain
        said["chosen_on_movies"] = best(found, ("movies",))
    return said


def test(data: Path, name: str, method: str, seed: str) -> dict[str, Any]:
    """Measure a composition at its λ on the test sentences."""
    one, results = BY_NAME[name], read()
    weight = chosen(results, name, method, seed)
    found: dict[str, Any] = measured(
        one.directory(seed, method, weight), one.texts, texts(data).test
    )
    if name == "transfer":
        other = results["found"][f"validation/{name}/{method}/{seed}"]["chosen_on_movies"]
        found["on_movies"] = measured(
            one.directory(seed, method, other), one.texts, texts(data).test
        )
    return found


def measure_parts(data: Path, seed: str) -> dict[str, dict[str, float]]:
    """Measure each module that a composition is made of or held to, on the test sentences."""
    wanted: dict[str, set[str]] = {}
    for one in COMPOSITIONS:
        for part in one.parts:
            for method in one.methods if part != "base" else ("",):
                key = f"{part}-{method}" if method else part
                wanted.setdefault(key, set()).update(one.texts)
    found = {}
    for key, names in sorted(wanted.items()):
        part, _, method = key.rpartition("-")
        at = None if key == "base" else module_directory(part, seed, method)
        found[key] = measured(at, tuple(sorted(names)), texts(data).test)
    return found


# --- the shipped sample ---------------------------------------------------------------------------


def sample(data: Path) -> dict[str, dict[str, float]]:
    """Write the shipped sample, and measure every composition on it at its λ."""
    write_sample(texts(data).test)
    return {key: measured(at, names, read_sample()) for key, at, names in composed(read())}


def composed(results: dict[str, Any]) -> list[tuple[str, Path, tuple[str, ...]]]:
    """Every composition at its λ: its key in results.json, its folder, what it is measured on."""
    return [
        (
            f"{one.name}/{method}/{seed}",
            one.directory(seed, method, chosen(results, one.name, method, seed)),
            one.texts,
        )
        for seed in SEEDS
        for one in COMPOSITIONS
        for method in one.methods
    ]
