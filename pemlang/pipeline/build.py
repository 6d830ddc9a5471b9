"""Build: check, identify by content, assert, plan, stream, write; nothing takes its place before
all of it is known to be right."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from pemlang.artifact.existing import standing
from pemlang.artifact.provenance import Outcome, Provenance, Subject
from pemlang.artifact.staging import (
    Stage,
    check_target,
    flush,
    new_stage,
    placed,
    staging,
    take_place,
)
from pemlang.artifact.subjects import subject
from pemlang.artifact.write import Built, built, finish, is_outdated, refresh
from pemlang.check.checked import Checked
from pemlang.diagnostics import Diagnostic
from pemlang.execute import elementwise
from pemlang.execute.local import Device, FileTarget, MemoryTarget, Report, Target, run
from pemlang.execute.machine import default_budget, default_threads
from pemlang.formats.peft import WEIGHTS
from pemlang.inputs.lock import Lock
from pemlang.lower.plan import Failed, Plan
from pemlang.pipeline.jobs import (
    Job,
    checked_recipes,
    inputs_of,
    jobs_of,
    planned,
    refuse_models,
    told,
)
from pemlang.pipeline.sweep import Point, Setting, Sweep, points
from pemlang.pipeline.warnings import noticed, outcome_of
from pemlang.source import Source
from pemlang.tensorfiles.digests import anew
from pemlang.tensorfiles.reader import Files, make_room

Tick = Callable[[str, int, int], None]
"""Called with what is being made, the steps done and the steps in all."""


@dataclass(frozen=True)
class How:
    """How to build, none of which changes a byte of what is built.

    Attributes:
        threads: at most so many at work; the machine's own number when None.
        memory: bytes of working memory; a part of the machine's when None.
        device: `cpu`, or `cuda` where elementwise programs are to run on a GPU.
        force: make again what is up to date.
        lock: what everything the recipe is made from is held to.
        only: the one output to build, by its path as written.
    """

    threads: int | None = None
    memory: int | None = None
    device: str = "cpu"
    force: bool = False
    lock: Lock | None = None
    only: str | None = None


@dataclass(frozen=True)
class Result:
    """What a build made, and the warnings on the way.

    Attributes:
        seconds: what took how long: `work` from the first tensor read to the last byte written,
            `flush` until the bytes were on the disk.
    """

    outputs: tuple[Built, ...]
    warnings: tuple[Diagnostic, ...]
    seconds: Mapping[str, float]


@cache
def get_ready() -> None:
    """Have another processor make LLVM ready, while this one reads the recipe and the headers."""
    threading.Thread(target=elementwise.prepare).start()


def build(
    path: Path,
    source: Source,
    settings: Mapping[str, Setting],
    root: Path | None = None,
    tick: Tick = lambda what, done, total: None,
    sweep: Sweep | None = None,
    how: How | None = None,
) -> Result:
    """Build every `save` of a recipe.

    An output that is there, whole and of the same meaning, stays as it is.

    Args:
        path, source: the recipe.
        settings: values for its params.
        root: the folder its outputs lie in; the recipe's own when not given.
        tick: told of progress.
        sweep: build the recipe at each of these values; the inputs are read once for all.
        how: threads and memory, and what to hold to.

    Raises:
        PemError: with everything wrong; nothing has been written then.
    """
    how = how or How()
    get_ready()
    at = points(settings, sweep)
    # What is held to a lock is held to it by its bytes, not by what is remembered of them.
    with nullcontext() if how.lock is None else anew():
        recipes = checked_recipes(path, source, at, root, sweep, how.lock)
    for checked in recipes:
        if how.only is not None:
            checked.outputs = [one for one in checked.outputs if one.path == how.only]
    inputs = inputs_of(recipes)
    for checked in recipes:
        for output in checked.outputs:
            with placed(output.span):
                check_target(output.target, inputs)
    # One thread in the linear algebra: the same bytes whatever the machine.
    with threadpool_limits(1), Files() as files, staging() as stage:
        began = time.perf_counter()
        budget = default_budget() if how.memory is None else how.memory
        jobs, warnings = jobs_of(recipes, at, files, budget, lambda: tick("measuring", 0, 1))
        there = {} if how.force else {job: old for job in jobs if (old := _standing(job))}
        todo = [job for job in jobs if job not in there]
        made = _made(todo, files, stage, tick, how, began) if todo else _Made({}, {})
        results = []
        for job in jobs:
            with job.placed():
                old = there.get(job)
                outcome = made.outcomes[job] if old is None else old.outcome
                if old is not None:
                    _refresh(job, old, stage)
                warnings += job.point.noted(noticed(job.checked, job.output, outcome))
                results.append(built(job.output, job.digest, outcome, old is not None))
        by_target = {job.output.target: job for job in jobs}
        for staged in stage.directories:
            with by_target[staged.target].placed():
                take_place(staged, inputs)
    return Result(tuple(results), tuple(warnings), made.seconds)


def _standing(job: Job) -> Provenance | None:
    return standing(job.output.target, job.digest).provenance


def _refresh(job: Job, old: Provenance, stage: Stage) -> None:
    """Bring the card and the provenance of an output that stays up to date."""
    if is_outdated(job.checked, job.output, job.digest, old):
        refresh(job.checked, job.output, job.digest, old, new_stage(job.output.target, stage))


@dataclass(frozen=True)
class _Made:
    """What was made: what came out of each job, and what took how long."""

    outcomes: Mapping[Job, Outcome]
    seconds: Mapping[str, float]


def _made(
    jobs: Sequence[Job], files: Files, stage: Stage, tick: Tick, how: How, began: float
) -> _Made:
    """Make outputs, each in a directory of the stage."""
    plan = planned(jobs)
    places = []
    for job in jobs:
        with job.placed():
            places.append(new_stage(job.output.target, stage))
    reports, subjects, seconds = _stream(plan, jobs, files, places, tick, how, began)
    outcomes = {}
    for index, job in enumerate(jobs):
        one, report = plan.outputs[index], reports[index]
        with job.placed():
            layout = one.layout
            outcome = outcome_of(job.output, layout.ranks, one.size, report, layout.idle)
            outcomes[job] = outcome
            finish(
                job.checked, job.output, job.digest, outcome, layout.config, subjects[index],
                places[index],
            )  # fmt: skip
    return _Made(outcomes, seconds)


def plan_of(
    path: Path,
    source: Source,
    settings: Mapping[str, Setting],
    root: Path | None = None,
    sweep: Sweep | None = None,
) -> tuple[Plan, list[str]]:
    """What a build would do, and the paths of its outputs; raises as build does until then.

    Tensors are read where a number or a rank is measured, and nothing is written.
    """
    at = points(settings, sweep)
    recipes = checked_recipes(path, source, at, root, sweep)
    with threadpool_limits(1), Files() as files:
        jobs, _ = jobs_of(recipes, at, files, default_budget(), lambda: None)
        return planned(jobs), [job.output.path for job in jobs]


def _stream(
    plan: Plan,
    jobs: Sequence[Job],
    files: Files,
    places: Sequence[Path],
    tick: Tick,
    how: How,
    began: float,
) -> tuple[list[Report], list[Subject], dict[str, float]]:
    """Write the tensors of all outputs, to disk, and take their digests while the disk works."""
    what = jobs[0].output.path + f" and {len(jobs) - 1} more" * (len(jobs) > 1)
    make_room(len(jobs))
    with ExitStack() as open_files:
        targets: list[Target] = []
        for job, one, at in zip(jobs, plan.outputs, places, strict=True):
            with job.placed():
                file = open_files.enter_context((at / WEIGHTS).open("wb"))
                file.truncate(one.size)
                targets.append(FileTarget(file.fileno()))
        reports = _run(plan, jobs, files, targets, lambda done, all: tick(what, done, all), how)
        written = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            taken = [pool.submit(subject, at / WEIGHTS) for at in places]
            for job, at in zip(jobs, places, strict=True):
                with job.placed():
                    flush(at)
            with placed(None):
                subjects = [one.result() for one in taken]
    now = time.perf_counter()
    return reports, subjects, {"work": written - began, "flush": now - written}


def _run(
    plan: Plan,
    jobs: Sequence[Job],
    files: Files,
    targets: Sequence[Target],
    tick: Callable[[int, int], None],
    how: How,
) -> list[Report]:
    threads = default_threads() if how.threads is None else how.threads
    budget = default_budget() if how.memory is None else how.memory
    try:
        with placed(None):
            device = None if how.device == "cpu" else _gpu(how.device)
            reports = run(plan, files, targets, threads, budget, tick, device)
            files.unchanged()
            return reports
    except Failed as failed:
        raise told(failed, jobs) from None


def _gpu(name: str) -> Device:
    from pemlang.execute.cuda import open_gpu  # it knows stream.py, and is seldom wanted

    return open_gpu(name)


@dataclass(frozen=True)
class InMemory:
    """An adapter that was not written to a file.

    Attributes:
        config: its adapter_config.json.
        tensors: key, dtype, shape and little-endian bytes of each.
    """

    config: Mapping[str, Any]
    tensors: Sequence[tuple[str, str, tuple[int, ...], memoryview]]


def in_memory(checked: Checked) -> tuple[InMemory, list[Diagnostic]]:
    """The one output of a recipe, and the warnings on the way; raises PemError."""
    refuse_models(checked)
    with threadpool_limits(1), Files() as files:
        jobs, warnings = jobs_of([checked], [Point({})], files, default_budget(), lambda: None)
        plan = planned(jobs)
        [job], [one] = jobs, plan.outputs
        data = bytearray(one.size)
        [report] = _run(plan, jobs, files, [MemoryTarget(data)], lambda done, all: None, How())
    outcome = outcome_of(job.output, one.layout.ranks, one.size, report, one.layout.idle)
    warnings += noticed(checked, job.output, outcome)
    ends = [*one.starts[1:], one.size]
    tensors = [
        (tensor.key, tensor.dtype, tensor.shape, memoryview(data)[start:end])
        for tensor, start, end in zip(one.layout.tensors, one.starts, ends, strict=True)
    ]
    return InMemory(one.layout.config, tensors), warnings
