"""The steps on SmolLM2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import record
from settings import FULL
from stages import building
from steps import Plan, Step

from smollm2.settings import (
    BASE_MODEL,
    COMPOSITIONS,
    RESULTS,
    SEEDS,
    TRAINED,
    module_directory,
)


def stages() -> list[list[Step]]:
    """The steps, in stages, as on the first base; a seed's are done before the next one's."""
    composed = [
        (one.name, method, seed)
        for seed in SEEDS
        for one in COMPOSITIONS
        for method in one.measured_by
    ]
    full = {step for seed in SEEDS for one in TRAINED for step in needing(one.name, seed)}
    base = there_or_unneeded(BASE_MODEL, full)
    return [
        [Step("train/base", ("write_base",), base), *training(after=False)],
        training(after=True),
        [Step("overlap", ("overlap",))],
        building(COMPOSITIONS),
        [Step(f"base/{seed}", ("measure_base", seed)) for seed in SEEDS],
        [Step("/".join(("validation", *at)), ("validate", *at)) for at in composed],
        [Step("/".join(("parts", *at)), ("measure_parts", *at)) for at in parts()],
        [Step("/".join(("test", *at)), ("test", *at)) for at in composed],
        [Step("/".join(("sample", *at)), ("sample", *at)) for at in composed if FULL not in at],
    ]


def training(after: bool) -> list[Step]:
    """The modules that start from nothing, or those that go on from another."""
    return [
        Step(
            f"train/{seed}/{module.name}-{method}",
            ("train", module.name, method, seed),
            trained(module.name, method, seed),
        )
        for seed in SEEDS
        for module in TRAINED
        for method in module.methods
        if (module.after is not None) == after
    ]


def trained(module: str, method: str, seed: str) -> Callable[[], bool]:
    """Whether a module is there, or a fine-tune need not be."""
    directory = module_directory(module, seed, method)
    if method == FULL:
        return there_or_unneeded(directory, needing(module, seed))
    return (directory / "adapter_config.json").is_file


def there_or_unneeded(model: Path, steps: set[str]) -> Callable[[], bool]:
    """Whether a model is there, or all that it is for has been measured: it is not shipped."""
    return lambda: (
        (model / "config.json").is_file() or record.read(RESULTS)["found"].keys() >= steps
    )


def needing(module: str, seed: str) -> set[str]:
    """The steps that measure a fine-tune, or what is composed of it."""
    composed = [one.name for one in COMPOSITIONS if module in one.fine_tunes]
    steps = {f"{step}/{name}/{FULL}/{seed}" for step in ("validation", "test") for name in composed}
    return steps | {"/".join(("parts", *at)) for at in parts() if at == (module, FULL, seed)}


def parts() -> list[tuple[str, str, str]]:
    """What compositions are measured beside: a module, its method, its seed; the base once."""
    found = [("base", "none", "0")]
    for seed in SEEDS:
        for one in COMPOSITIONS:
            found += [(p, m, seed) for p in one.parts if p != "base" for m in one.measured_by]
    return list(dict.fromkeys(found))


def write(results: record.Results) -> None:
    """Write results.md and the plots."""
    from smollm2 import drawing, pages

    drawing.draw(results)
    pages.write(results)


PLAN = Plan(stages(), "smollm2.tasks", RESULTS, write, in_parts=True)
