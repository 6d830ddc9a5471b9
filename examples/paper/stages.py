"""The steps on the encoder, all-MiniLM-L6-v2."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import record
from settings import (
    COMPOSITIONS,
    MODULES,
    OUT,
    RESULTS,
    SEEDS,
    TRAINED,
    Composition,
    module_directory,
)
from steps import Plan, Step


def stages() -> list[list[Step]]:
    """The steps, in stages: those of one stage need only the stages before. The test sentences
    are looked at when every λ has been chosen."""
    composed = [
        (one.name, method, seed) for seed in SEEDS for one in COMPOSITIONS for method in one.methods
    ]
    answering, filling_in = training(False), training(True)
    head = MODULES / "lm_head.safetensors"
    return [
        [Step("prepare/embeddings", ("embeddings",), train_is_done(answering))],
        [Step("prepare/lm_head", ("language_head",), head.is_file), *answering],
        filling_in,
        [Step("overlap", ("overlap",))],
        building(COMPOSITIONS),
        [Step(f"base/{seed}", ("measure_base", seed)) for seed in SEEDS],
        [Step("/".join(("validation", *at)), ("validate", *at)) for at in composed],
        [Step(f"parts/{seed}", ("measure_parts", seed)) for seed in SEEDS],
        [Step("/".join(("test", *at)), ("test", *at)) for at in composed],
        [Step("sample", ("sample",))],
    ]


def training(language: bool) -> list[Step]:
    """The modules that model language, or those that do not."""
    return [
        Step(
            f"train/{seed}/{module.name}-{method}",
            ("train", module.name, method, seed),
            (module_directory(module.name, seed, method) / "adapter_config.json").is_file,
        )
        for seed in SEEDS
        for module in TRAINED
        for method in module.methods
        if module.models_language == language
    ]


def train_is_done(train: list[Step]) -> Callable[[], bool]:
    """Whether all modules are there, so that nothing that only training needs is."""
    return lambda: (OUT / "embeddings.npz").is_file() or all(step.done({}) for step in train)


def built(one: Composition) -> Callable[[], bool]:
    """Whether a composition has been built at every λ."""
    places = [one.directory(s, m, w) for s in SEEDS for m in one.methods for w in one.grid]
    return lambda: all(place.is_dir() for place in places)


def building(compositions: Sequence[Composition]) -> list[Step]:
    """The builds, one for those of one recipe and the same params."""
    first = {
        (one.recipe, tuple(one.set(SEEDS[0], one.methods[0]).items())): one
        for one in reversed(compositions)
    }
    return [
        Step(f"build/{one.name}", ("build", one.name), built(one))
        for one in compositions
        if one in first.values()
    ]


def write(results: record.Results) -> None:
    """Write results.md and the plots."""
    import pages
    import plots

    plots.draw(results)
    pages.write(results)


PLAN = Plan(stages(), "tasks", RESULTS, write)
