"""Build: check, identify by content, assert, plan, stream, write; nothing takes its place before
all of it is known to be right."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from pemlang.build.digests import adapter_digest, take_digests
from pemlang.build.evaluate import Evaluator
from pemlang.build.evaluate import Known as Measured
from pemlang.build.existing import WEIGHTS, standing
from pemlang.build.finish import (
    Built,
    built,
    finish,
    metadata,
    outcome_of,
    refresh,
    warnings_of,
)
from pemlang.build.lock import Lock
from pemlang.build.locked import held, hold_imports, hold_version
from pemlang.build.machine import default_budget, default_threads
from pemlang.build.notices import loss_of, noticed, verify
from pemlang.build.peft import adapters_of
from pemlang.build.place import Stage, check_target, flush, new_stage, placed, staging, take_place
from pemlang.build.plan import Failed, Plan, Wanted, make_plan
from pemlang.build.provenance import Outcome, Provenance, Subject
from pemlang.build.stream import Device, FileTarget, MemoryTarget, Report, Target, run
from pemlang.build.subjects import subject
from pemlang.build.sweep import Point, Setting, Sweep, points, saved_apart
from pemlang.build.tensors import Files, make_room
from pemlang.check.check import check
from pemlang.check.checked import Checked
from pemlang.check.elaborate import Loaders
from pemlang.check.load import loaders
from pemlang.check.options import Output, heads_agree, semantic_hash
from pemlang.diagnostics import Diagnostic, Fault, PemError
from pemlang.formats.disk import is_file
from pemlang.kernels import elementwise
from pemlang.source import Source, Span

WHOLE_MODELS = ("model", "bake", "task_vector")

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
    """

    threads: int | None = None
    memory: int | None = None
    device: str = "cpu"
    force: bool = False
    lock: Lock | None = None


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


@dataclass(frozen=True, eq=False)
class _Job:
    """An output of a recipe, at one value of a sweep."""

    checked: Checked
    point: Point
    output: Output
    wanted: Wanted
    digest: str

    @contextmanager
    def placed(self) -> Iterator[None]:
        """What goes wrong inside is told at the `save`, with the value of the sweep."""
        with self.point.telling(), placed(self.output.span):
            yield


@cache
def get_ready() -> None:
    """Have another processor make LLVM ready, while this one reads the recipe and the headers."""
    threading.Thread(target=elementwise.prepare).start()


def identified(
    path: Path,
    source: Source,
    points: Sequence[Point],
    root: Path | None = None,
    lock: Lock | None = None,
) -> list[Checked]:
    """A recipe checked at one or several settings of its params, its adapters known by content.

    It is checked from headers first, so that no tensor is fetched for a recipe that is wrong.
    With a lock all of it is held to that.

    Raises:
        PemError: everything wrong with it.
    """

    def at_all(how: Loaders) -> list[Checked]:
        found = []
        for point in points:
            with point.telling():
                found.append(check(path, source, how, point.settings, root))
                if lock is not None:
                    hold_imports(found[-1], lock)
                found[-1].report.raise_errors()
        return found

    def by_lock(how: Loaders, whole: bool) -> Loaders:
        return how if lock is None else held(lock, how, whole)

    with placed(None):
        if lock is not None:
            hold_version(lock)
    known = at_all(by_lock(loaders(), whole=False))
    with placed(None):
        take_digests(_on_disk(known), default_threads())
    return at_all(by_lock(loaders(whole=True, identify=adapter_digest), whole=True))


def _on_disk(recipes: Sequence[Checked]) -> list[Path]:
    """The tensors' files of the inputs, as far as they have been fetched."""
    leaves = (leaf for checked in recipes for leaf in checked.graph.all_leaves())
    files = dict.fromkeys(adapter.weights for adapter in adapters_of(list(leaves)))
    return [file for file in files if is_file(file)]


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
    recipes = _recipes(path, source, at, root, sweep, how.lock)
    inputs = _inputs(recipes)
    for checked in recipes:
        for output in checked.outputs:
            with placed(output.span):
                check_target(output.target, inputs)
    # One thread in the linear algebra: the same bytes whatever the machine.
    with threadpool_limits(1), Files() as files, staging() as stage:
        began = time.perf_counter()
        budget = default_budget() if how.memory is None else how.memory
        jobs, warnings = _jobs(recipes, at, files, budget, lambda: tick("measuring", 0, 1))
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
                warnings += job.point.noted(warnings_of(job.output, outcome))
                results.append(built(job.output, job.digest, outcome, old is not None))
        by_target = {job.output.target: job for job in jobs}
        for staged in stage.directories:
            with by_target[staged.target].placed():
                take_place(staged, inputs)
    return Result(tuple(results), tuple(warnings), made.seconds)


def _standing(job: _Job) -> Provenance | None:
    return standing(job.output.target, job.digest).provenance


def _refresh(job: _Job, old: Provenance, stage: Stage) -> None:
    """Bring the card and the provenance of an output that stays up to date."""
    if refresh(job.checked, job.output, job.digest, old, None):
        refresh(job.checked, job.output, job.digest, old, new_stage(job.output.target, stage))


@dataclass(frozen=True)
class _Made:
    """What was made: what came out of each job, and what took how long."""

    outcomes: Mapping[_Job, Outcome]
    seconds: Mapping[str, float]


def _made(
    jobs: Sequence[_Job], files: Files, stage: Stage, tick: Tick, how: How, began: float
) -> _Made:
    """Make outputs, each in a directory of the stage."""
    plan = _planned(jobs)
    places = []
    for job in jobs:
        with job.placed():
            places.append(new_stage(job.output.target, stage))
    reports, subjects, seconds = _stream(plan, jobs, files, places, tick, how, began)
    outcomes = {}
    for index, job in enumerate(jobs):
        one, report = plan.outputs[index], reports[index]
        with job.placed():
            told = noticed(job.checked, job.output, report, one.layout.idle)
            loss = loss_of(report, job.output.node)
            outcome = outcome_of(job.output, one.layout.ranks, one.size, loss, told)
            outcomes[job] = outcome
            finish(
                job.checked, job.output, job.digest, outcome, one.layout.config, subjects[index],
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
    recipes = _recipes(path, source, at, root, sweep)
    with threadpool_limits(1), Files() as files:
        jobs, _ = _jobs(recipes, at, files, default_budget(), lambda: None)
        return _planned(jobs), [job.output.path for job in jobs]


def _recipes(
    path: Path,
    source: Source,
    at: Sequence[Point],
    root: Path | None,
    sweep: Sweep | None,
    lock: Lock | None = None,
) -> list[Checked]:
    """The recipe at each value of a sweep, fit to be built."""
    recipes = identified(path, source, at, root, lock)
    first = recipes[0]
    if not first.outputs:
        fault = Fault("PEM0114", "the recipe saves nothing", 'save x to "out/x"')
        raise PemError([fault.at(Span(first.source, 0, 0))])
    saved_apart(recipes, sweep)
    for checked in recipes:
        refuse_models(checked)
    return recipes


def _inputs(recipes: Sequence[Checked]) -> set[Path]:
    return {
        node.adapter.directory.resolve()
        for checked in recipes
        for node in checked.graph.all_leaves()
        if node.adapter
    }


def _jobs(
    recipes: Sequence[Checked],
    at: Sequence[Point],
    files: Files,
    budget: int,
    progress: Callable[[], None],
) -> tuple[list[_Job], list[Diagnostic]]:
    """Everything to make, with the warnings of what it is made from."""
    known = Measured()
    jobs: list[_Job] = []
    warnings: list[Diagnostic] = []
    for checked, point in zip(recipes, at, strict=True):
        evaluator = Evaluator(checked.graph, files, budget, progress, known)
        with point.telling():
            warnings += point.noted([*checked.report, *verify(checked, evaluator)])
            jobs += [_job(checked, point, evaluator, output) for output in checked.outputs]
    return jobs, warnings


def _job(checked: Checked, point: Point, evaluator: Evaluator, output: Output) -> _Job:
    graph = checked.graph
    with placed(output.span):
        heads = heads_agree(graph, output.node, output.heads, checked.leaf_name)
    digest = semantic_hash(output)
    said = metadata(checked, output, digest)
    leaves = graph.parts(output.node)
    wanted = Wanted(evaluator, output.node, leaves, heads, output.dtype, said)
    return _Job(checked, point, output, wanted, digest)


def _planned(jobs: Sequence[_Job]) -> Plan:
    try:
        return make_plan([job.wanted for job in jobs])
    except Failed as failed:
        raise _told(failed, jobs) from None


def _told(failed: Failed, jobs: Sequence[_Job]) -> Exception:
    """What went wrong with an output, as a diagnostic of its place in the recipe."""
    try:
        with jobs[failed.output].placed():
            raise failed.error
    except Exception as error:
        return error


def _stream(
    plan: Plan,
    jobs: Sequence[_Job],
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
    jobs: Sequence[_Job],
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
        raise _told(failed, jobs) from None


def _gpu(name: str) -> Device:
    from pemlang.build.gpu import open_gpu  # it knows stream.py, and is seldom wanted

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
        jobs, warnings = _jobs([checked], [Point({})], files, default_budget(), lambda: None)
        plan = _planned(jobs)
        [job], [one] = jobs, plan.outputs
        data = bytearray(one.size)
        [report] = _run(plan, jobs, files, [MemoryTarget(data)], lambda done, all: None, How())
    warnings += noticed(checked, job.output, report, one.layout.idle)
    ends = [*one.starts[1:], one.size]
    tensors = [
        (tensor.key, tensor.dtype, tensor.shape, memoryview(data)[start:end])
        for tensor, start, end in zip(one.layout.tensors, one.starts, ends, strict=True)
    ]
    return InMemory(one.layout.config, tensors), warnings


def refuse_models(checked: Checked) -> None:
    """Raise PEM0601 for what needs whole models, which are checked but not computed with yet."""
    wanted = [(f"`{output.label}`", [output.node], output.span) for output in checked.outputs]
    wanted += [
        ("this assertion", assertion.condition.measured(), assertion.span)
        for assertion in checked.assertions
    ]
    found = []
    for what, nodes, span in wanted:
        if any(node.op in WHOLE_MODELS for node in checked.graph.order(nodes)):
            fault = Fault(
                "PEM0601",
                f"{what} needs whole models: this version checks them, it does not compute with "
                "them yet",
                "use adapters made from adapters",
            )
            found.append(fault.at(span))
    if found:
        raise PemError(found)
