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
    return [
        [Step("train/base", ("write_base",), unneeded_or(BASE_MODEL, *SEEDS)), *training(False)],
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
            trained(module_directory(module.name, seed, method), method, seed),
        )
        for seed in SEEDS
        for module in TRAINED
        for method in module.methods
        if (module.after is not None) == after
    ]


def trained(directory: Path, method: str, seed: str) -> Callable[[], bool]:
    """Whether a module is there, or a fine-tune need not be."""
    if method == FULL:
        return unneeded_or(directory, seed)
    return (directory / "adapter_config.json").is_file


def unneeded_or(model: Path, *seeds: str) -> Callable[[], bool]:
    """Whether a model is there, or all that it is for has been measured: it is not shipped."""
    full = [one.name for one in COMPOSITIONS if one.full]
    needing = [f"test/{name}/{FULL}/{seed}" for name in full for seed in seeds]
    needing += ["/".join(("parts", *at)) for at in parts() if at[1] == FULL and at[2] in seeds]
    return lambda: (
        (model / "config.json").is_file() or record.read(RESULTS)["found"].keys() >= {*needing}
    )


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
