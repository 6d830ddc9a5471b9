"""Train what is missing, build every composition, measure it, and write results.md.

Each step is written down in results.json once it is done: run again after an interruption, and
it goes on from there. Modules that are there are not trained again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import record
from settings import (
    COMPOSITIONS,
    GRID,
    HERE,
    MODULES,
    OUT,
    SEEDS,
    TRAINED,
    Composition,
    module_directory,
)

os.environ["OMP_NUM_THREADS"] = "1"  # a step a core: small matrices gain little from two

DATA = HERE.parent.parent.parent / "shared" / "data"
CORPORA = ("sentence_polarity", "pros_cons", "subjectivity")


@dataclass(frozen=True)
class Step:
    """One piece of work that runs by itself.

    Attributes:
        name: what results.json calls it.
        work: a function of tasks.py, and what it is given beside the folder of the data.
        there: whether what it makes is there; of a step that only finds numbers, None, and it is
            done once they are written down.
    """

    name: str
    work: tuple[str, ...]
    there: Callable[[], bool] | None = None

    def done(self, results: record.Results) -> bool:
        """Whether it need not be done."""
        return self.name in results["seconds"] if self.there is None else self.there()


def stages(only: tuple[str, ...]) -> list[list[Step]]:
    """The steps, in stages: those of one stage need only the stages before. The test sentences
    are looked at when every λ has been chosen."""
    composed = [
        (one.name, method, seed) for seed in SEEDS for one in COMPOSITIONS for method in one.methods
    ]
    answering, filling_in = training(False), training(True)
    head = MODULES / "lm_head.safetensors"
    found = [
        [Step("prepare/embeddings", ("embeddings",), train_is_done(answering))],
        [Step("prepare/lm_head", ("language_head",), head.is_file), *answering],
        filling_in,
        [Step("overlap", ("overlap",))],
        [Step(f"build/{one.name}", ("build", one.name), built(one)) for one in distinct_recipes()],
        [Step(f"base/{seed}", ("measure_base", seed)) for seed in SEEDS],
        [Step("/".join(("validation", *at)), ("validate", *at)) for at in composed],
        [Step(f"parts/{seed}", ("measure_parts", seed)) for seed in SEEDS],
        [Step("/".join(("test", *at)), ("test", *at)) for at in composed],
        [Step("sample", ("sample",))],
    ]
    return [[step for step in stage if not only or step.name.startswith(only)] for stage in found]


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
    places = [one.directory(s, m, w) for s in SEEDS for m in one.methods for w in GRID]
    return lambda: all(place.is_dir() for place in places)


def distinct_recipes() -> list[Composition]:
    """The compositions that need a build of their own: two of one recipe and params share one."""
    first = {(one.recipe, tuple(one.params.items())): one.name for one in reversed(COMPOSITIONS)}
    return [one for one in COMPOSITIONS if one.name in first.values()]


def run(stages: list[list[Step]], data: Path, workers: int) -> None:
    """Do what is not done yet."""
    results = record.read()
    left = [[step for step in stage if not step.done(results)] for stage in stages]
    told = Told(sum(map(len, left)))
    with ProcessPoolExecutor(workers) as pool:
        for stage in left:
            waiting = {pool.submit(work, step.work, data): step for step in stage}
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    step = waiting.pop(future)
                    found, seconds = future.result()
                    record.note(results, step.name, found, seconds)
                    told(step.name, seconds)


def work(what: tuple[str, ...], data: Path) -> tuple[Any, float]:
    """One step, in a process of its own: what it found, and how long it took."""
    import tasks

    start = time.monotonic()
    found = getattr(tasks, what[0])(data, *what[1:])
    return found, time.monotonic() - start


class Told:
    """Says what is done, and about how long the rest will take."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._start = total, 0, time.monotonic()

    def __call__(self, name: str, seconds: float) -> None:
        self._done += 1
        passed = time.monotonic() - self._start
        left = passed / self._done * (self._total - self._done)
        print(
            f"[{self._done}/{self._total}] {name}  {seconds:.0f} s"
            + (f"  about {left / 60:.0f} min left" if left else ""),
            flush=True,
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train what is missing, build, measure, and write results.md.",
        epilog="From nothing it takes about 45 minutes on two cores; from the modules in the "
        "repository about a quarter of that. It goes on where it was interrupted.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        help="the folder with NLTK's corpora sentence_polarity.zip, pros_cons.zip and "
        "subjectivity.zip (nltk.download fetches them into corpora/)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="STEP",
        help="do the steps that start so, such as train/0 or validation/transfer",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument(
        "--render", action="store_true", help="only write results.md and plots from results.json"
    )
    options = parser.parse_args()
    if not options.render and (
        missing := [name for name in CORPORA if not (options.data / f"{name}.zip").is_file()]
    ):
        parser.error(f"there is no {missing[0]}.zip in {options.data}; see --data in --help")
    return options


def main() -> None:
    options = arguments()
    if not options.render:
        run(stages(tuple(options.only)), options.data, options.workers)
    results = record.read()
    if record.whole(results):
        import pages
        import plots

        plots.draw(results)
        pages.write(results)
    else:
        sys.exit("Some steps are left: run this again.")


if __name__ == "__main__":
    main()
