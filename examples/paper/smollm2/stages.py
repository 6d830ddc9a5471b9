"""The steps on SmolLM2."""

from __future__ import annotations

import record
from stages import building
from steps import Plan, Step

from smollm2.settings import (
    COMPOSITIONS,
    RESULTS,
    SEEDS,
    TRAINED,
    module_directory,
)


def stages() -> list[list[Step]]:
    """The steps, in stages, as on the first base; a seed's are done before the next one's."""
    composed = [
        (one.name, method, seed) for seed in SEEDS for one in COMPOSITIONS for method in one.methods
    ]
    return [
        training(after=False),
        training(after=True),
        [Step("overlap", ("overlap",))],
        building(COMPOSITIONS),
        [Step(f"base/{seed}", ("measure_base", seed)) for seed in SEEDS],
        [Step("/".join(("validation", *at)), ("validate", *at)) for at in composed],
        [Step("/".join(("parts", *at)), ("measure_parts", *at)) for at in parts()],
        [Step("/".join(("test", *at)), ("test", *at)) for at in composed],
        [Step("/".join(("sample", *at)), ("sample", *at)) for at in composed],
    ]


def training(after: bool) -> list[Step]:
    """The modules that start from nothing, or those that go on from another."""
    return [
        Step(
            f"train/{seed}/{module.name}-{method}",
            ("train", module.name, method, seed),
            (module_directory(module.name, seed, method) / "adapter_config.json").is_file,
        )
        for seed in SEEDS
        for module in TRAINED
        for method in module.methods
        if (module.after is not None) == after
    ]


def parts() -> list[tuple[str, str, str]]:
    """What compositions are measured beside: a module, its method, its seed; the base once."""
    found = [("base", "none", "0")]
    for seed in SEEDS:
        for one in COMPOSITIONS:
            found += [(p, m, seed) for p in one.parts if p != "base" for m in one.methods]
    return list(dict.fromkeys(found))


def write(results: record.Results) -> None:
    """Write results.md and the plots."""
    from smollm2 import drawing, pages

    drawing.draw(results)
    pages.write(results)


PLAN = Plan(stages(), "smollm2.tasks", RESULTS, write, in_parts=True)
