"""Steps, each written down once it is done, so that an interruption costs one."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import record

os.environ["OMP_NUM_THREADS"] = "1"  # a step a core: small matrices gain little from two


@dataclass(frozen=True)
class Step:
    """One piece of work that runs by itself.

    Attributes:
        name: what results.json calls it.
        work: a function of a module of tasks, and what it is given beside the folder of the data.
        there: whether what it makes is there; of a step that only finds numbers, None, and it is
            done once they are written down.
    """

    name: str
    work: tuple[str, ...]
    there: Callable[[], bool] | None = None

    def done(self, results: record.Results) -> bool:
        """Whether it need not be done."""
        return self.name in results["seconds"] if self.there is None else self.there()


@dataclass(frozen=True)
class Plan:
    """All steps on one base.

    Attributes:
        stages: the steps of one stage need only the stages before.
        tasks: the module whose functions do them.
        results: the file with what they found.
        write: what makes pages and plots of them.
        in_parts: whether it can do so before all has been found.
    """

    stages: list[list[Step]]
    tasks: str
    results: Path
    write: Callable[[record.Results], None]
    in_parts: bool = False

    def run(self, only: tuple[str, ...], data: Path, workers: int) -> None:
        """Do what is not done yet."""
        results = record.read(self.results)
        left = [
            [
                step
                for step in stage
                if (not only or step.name.startswith(only)) and not step.done(results)
            ]
            for stage in self.stages
        ]
        told = Told(sum(map(len, left)))
        with ProcessPoolExecutor(workers) as pool:
            for stage in left:
                waiting = {pool.submit(work, self.tasks, step.work, data): step for step in stage}
                while waiting:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        step = waiting.pop(future)
                        found, seconds = future.result()
                        record.note(results, step.name, found, seconds, self.results)
                        told(step.name, seconds)

    def render(self) -> bool:
        """Write pages and plots, if they can be; whether every number has been found."""
        results = record.read(self.results)
        finding = [step for stage in self.stages for step in stage if step.there is None]
        whole = all(step.done(results) for step in finding)
        if whole or self.in_parts:
            self.write(results)
        return whole


def work(tasks: str, what: tuple[str, ...], data: Path) -> tuple[Any, float]:
    """One step, in a process of its own: what it found, and how long it took."""
    module = importlib.import_module(tasks)
    start = time.monotonic()
    found = getattr(module, what[0])(data, *what[1:])
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
