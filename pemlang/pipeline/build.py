"""Build: check, identify by content, assert, plan, run, write; nothing takes its place before
all of it is known to be right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from pemlang.artifact.existing import standing
from pemlang.artifact.provenance import Outcome, Provenance, Subject
from pemlang.artifact.staging import Stage, clean_up, flush, new_stage, staging, take_place
from pemlang.artifact.subjects import subject
from pemlang.artifact.target import check_target
from pemlang.artifact.write import Built, Description
from pemlang.check.checked import Checked
from pemlang.check.outputs import same_place
from pemlang.check.values import Params
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, Fault, PemError, placed, visible
from pemlang.disk import turn
from pemlang.execute.backends import open_backend
from pemlang.execute.cpu import CpuExecutor
from pemlang.execute.elementwise import BLOCK, get_ready
from pemlang.execute.executor import TURN, ExecutionOptions, Executor, Progress, no_progress
from pemlang.execute.machine import algebra_name, one_algebra_thread
from pemlang.execute.result import (
    ExecutionResult,
    FileTarget,
    MemoryTarget,
    OutputFailed,
    Target,
    together,
)
from pemlang.formats import PEFT, Format
from pemlang.inputs.lock import Lock
from pemlang.kernels.plan import Plan, TensorSink
from pemlang.lower.plan import BuildPlan
from pemlang.pipeline.faults import worded
from pemlang.pipeline.jobs import (
    OutputJob,
    checked_recipes,
    error_of,
    jobs_of,
    least_memory,
    measuring_with,
    planned,
)
from pemlang.pipeline.refusals import adapters_of, inputs_of
from pemlang.pipeline.sweep import Sweep, SweepPoint, sweep_points, told_once
from pemlang.pipeline.warnings import noticed, outcome_of, truncations
from pemlang.source import Source
from pemlang.tensorfiles.digests import anew, hold_unchanged
from pemlang.tensorfiles.reader import TensorReader, make_room

Tick = Callable[[str, int, int], None]
"""Called with what is being made, the steps done and the steps in all."""


def no_tick(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class BuildOptions:
    """How to build, none of which changes a byte of what is built but `block`.

    Attributes:
        threads: at most so many at work; the machine's own number when None.
        memory: bytes of working memory; a part of the machine's when None.
        device: the backend: `cpu`, or `cuda` where elementwise programs are to run on a GPU.
        force: make again what is up to date, and replace what has been changed since it was built.
        lock: what everything the recipe is made from is held to.
        only: the one output to build, by its path as written.
        taken: the outputs of other recipes that are built beside this one, which it leaves alone.
        block, turn: see ExecutionOptions.
    """

    threads: int | None = None
    memory: int | None = None
    device: str = "cpu"
    force: bool = False
    lock: Lock | None = None
    only: str | None = None
    taken: frozenset[Path] = frozenset()
    block: int = BLOCK
    turn: int = TURN

    @property
    def running(self) -> ExecutionOptions:
        """How to run a plan."""
        return ExecutionOptions(self.threads, self.memory, self.block, self.turn)


@dataclass(frozen=True)
class BuildResult:
    """What a build made, and the warnings on the way.

    Attributes:
        seconds: what took how long: `work` from the first tensor read to the last byte written,
            `flush` until the bytes were on the disk.
    """

    outputs: tuple[Built, ...]
    warnings: tuple[Diagnostic, ...]
    seconds: Mapping[str, float]


def build(
    path: Path,
    source: Source,
    params: Params,
    root: Path | None = None,
    tick: Tick = no_tick,
    sweep: Sweep | None = None,
    options: BuildOptions = BuildOptions(),
) -> BuildResult:
    """Build every `save` of a recipe.

    An output that is there, whole and of the same meaning, stays as it is.

    Args:
        path, source: the recipe.
        params: values for its params.
        root: the folder its outputs lie in; the recipe's own when not given.
        tick: told of progress.
        sweep: build the recipe at each of these values; the inputs are read once for all.
        options: threads and memory, and what to hold to.

    Raises:
        PemError: with everything wrong; nothing has been written then.
    """
    get_ready()
    points = sweep_points(params, sweep)
    # What is held to a lock is held to it by its bytes, not by what is remembered of them.
    with nullcontext() if options.lock is None else anew():
        recipes = checked_recipes(path, source, points, root, sweep, options.lock)
    if options.only is not None:
        recipes = [_only(checked, options.only) for checked in recipes]
    for checked in recipes:
        _hold_apart(checked, options.taken)
    inputs = inputs_of(recipes)
    by_folder: dict[Path, list[Path]] = {}
    for checked in recipes:
        for output in checked.outputs:
            by_folder.setdefault(output.target.parent, []).append(output.target)
    for folder, targets in by_folder.items():
        with placed(None), turn(folder):
            clean_up(folder, targets)
    for checked in recipes:
        for output in checked.outputs:
            with placed(output.span), turn(output.target.parent):
                check_target(output.target, inputs, options.force)
    with one_algebra_thread(), TensorReader() as reader, staging() as stage:
        building = _Build(reader, stage, tick, options)
        result = building.run(recipes, points)
        with placed(None):
            for adapter in adapters_of(recipes):
                hold_unchanged(adapter.seen)
        for staged in stage.directories:
            with building.placed(staged.target), turn(staged.target.parent):
                check_target(staged.target, inputs, options.force)
                take_place(staged)
    return result


def _only(checked: Checked, path: str) -> Checked:
    """A recipe with the one of its outputs that is saved to a path."""
    return replace(checked, outputs=[x for x in checked.outputs if x.path == path])


def _hold_apart(checked: Checked, taken: Iterable[Path]) -> None:
    """Hold the outputs of a recipe to lie apart from others; raises PemError PEM0344."""
    for output in checked.outputs:
        target = same_place(output.target)
        for place in map(same_place, taken):
            if target.is_relative_to(place) or place.is_relative_to(target):
                fault = Fault(
                    "PEM0344",
                    f"another recipe of this command has saved to {visible(place)}",
                    "save each output to a directory of its own",
                )
                raise PemError([fault.at(output.span)])


class _Build:
    """A build on its way."""

    def __init__(
        self, reader: TensorReader, stage: Stage, tick: Tick, options: BuildOptions
    ) -> None:
        self._reader, self._stage, self._tick, self._options = reader, stage, tick, options
        self._jobs: list[OutputJob] = []

    def run(self, recipes: Sequence[Checked], points: Sequence[SweepPoint]) -> BuildResult:
        """Make what is not up to date; every output is ready to take its place then."""
        began = time.perf_counter()
        progress = partial(self._tick, "measuring")
        measuring = measuring_with(
            self._measurer,
            self._reader,
            progress,
            partial(least_memory, recipes, points, self._options.running),
        )
        jobs, warnings = jobs_of(recipes, points, measuring)
        self._jobs = jobs
        old = {} if self._options.force else _up_to_date(jobs)
        todo = [job for job in jobs if job not in old]
        made, seconds = self._made(todo, began) if todo else ({}, {})
        outputs = []
        for job in jobs:
            with job.placed():
                description = made[job] if job in made else self._refreshed(job, old[job])
                diagnostics = noticed(job.checked, job.output, description.outcome)
                warnings += job.point.noted(diagnostics)
                outputs.append(description.built(was_there=job in old))
        told = told_once(warnings) if len(points) > 1 else warnings
        return BuildResult(tuple(outputs), tuple(told), seconds)

    @cached_property
    def _executor(self) -> Executor:
        with placed(None), worded():
            return open_backend(self._options.device, self._options.running)

    def _measurer(self) -> Executor:
        """What measures: the processors where the backend is not to be had. An output that has to
        be made says so; where all are up to date nothing is missing."""
        try:
            return self._executor
        except PemError:
            return CpuExecutor(self._options.running)

    def placed(self, target: Path) -> AbstractContextManager[None]:
        """See OutputJob.placed, by the directory of the output."""
        return next(job for job in self._jobs if job.output.target == target).placed()

    def _refreshed(self, job: OutputJob, old: Provenance) -> Description:
        """Bring the card and the provenance of an output that stays up to date."""
        description = _described(job, old.outcome, old.format)
        if description.is_outdated(old):
            description.refresh(old, new_stage(job.output.target, self._stage))
        return description

    def _made(
        self, jobs: Sequence[OutputJob], began: float
    ) -> tuple[dict[OutputJob, Description], Mapping[str, float]]:
        """Make outputs, each in a directory of the stage; and what took how long."""
        plan = planned(jobs)
        make_room(len(jobs) + len(plan.plan.outputs))  # a stage each, and its files
        places = []
        for job in jobs:
            with job.placed():
                places.append(new_stage(job.output.target, self._stage))
        result = self._write(plan, jobs, places)
        written = time.perf_counter()
        subjects = _flushed(plan, jobs, places)
        flushed = time.perf_counter()
        made = {}
        for index, job in enumerate(jobs):
            output = plan.outputs[index]
            with job.placed():
                made[job] = _described(job, _outcome(job, plan, index, result), output.format)
                made[job].finish(output.layout, subjects[index], places[index])
        return made, {"work": written - began, "flush": flushed - written}

    def _write(
        self, plan: BuildPlan, jobs: Sequence[OutputJob], places: Sequence[Path]
    ) -> ExecutionResult:
        """Write the tensors of all outputs."""
        what = jobs[0].output.path + f" and {len(jobs) - 1} more" * (len(jobs) > 1)
        with ExitStack() as open_files:
            targets: list[Target] = []
            for index, job in enumerate(jobs):
                output = plan.outputs[index]
                for number, name in zip(output.numbers, output.layout.files, strict=True):
                    with job.placed():
                        file = open_files.enter_context((places[index] / name).open("wb"))
                        file.truncate(plan.plan.outputs[number].size)
                        targets.append(FileTarget(file.fileno()))
            progress = partial(self._tick, what)
            return _run(plan, jobs, self._executor, self._reader, targets, progress)


def _up_to_date(jobs: Sequence[OutputJob]) -> dict[OutputJob, Provenance]:
    """The outputs that need not be made again."""
    existing = {job: standing(job.output.target, job.semantic_hash).provenance for job in jobs}
    return {job: provenance for job, provenance in existing.items() if provenance is not None}


def _described(job: OutputJob, outcome: Outcome, format_: Format) -> Description:
    return Description(job.checked, job.output, job.semantic_hash, outcome, format_)


def _flushed(
    plan: BuildPlan, jobs: Sequence[OutputJob], places: Sequence[Path]
) -> list[dict[str, Subject]]:
    """The tensors' files, brought to disk, and their digests taken while the disk works."""
    with ThreadPoolExecutor(2) as pool:
        taken = [
            {name: pool.submit(subject, place / name) for name in output.layout.files}
            for output, place in zip(plan.outputs, places, strict=True)
        ]
        for job, place in zip(jobs, places, strict=True):
            with job.placed():
                flush(place)
        with placed(None):
            return [{name: x.result() for name, x in files.items()} for files in taken]


def _run(
    plan: BuildPlan,
    jobs: Sequence[OutputJob],
    executor: Executor,
    reader: TensorReader,
    targets: Sequence[Target],
    progress: Progress,
) -> ExecutionResult:
    with placed(None), worded():
        result = executor.execute(plan.plan, reader, targets, progress)
        if result.failed is None:
            reader.unchanged()
    if result.failed is not None:
        owner = plan.owner(result.failed.output)
        raise error_of(OutputFailed(owner, result.failed.error), jobs)
    return result


def _outcome(job: OutputJob, plan: BuildPlan, index: int, result: ExecutionResult) -> Outcome:
    return outcome_of(
        job.output,
        plan.outputs[index],
        plan.size(index),
        together([result.outputs[number] for number in plan.outputs[index].numbers]),
        truncations(result.numbers, plan.outputs[index].numbers.start),
        algebra_name() if _by_library(plan.plan, plan.outputs[index].numbers) else "",
    )


def _by_library(plan: Plan, files: range) -> bool:
    """Whether the last digits of an output go by the linear algebra library that is there."""
    return any(
        step.by_library
        for call in plan.sites
        if any(isinstance(sink, TensorSink) and sink.output in files for sink in call.outputs)
        for step in call.program.steps
    )


def plan_of(
    path: Path,
    source: Source,
    params: Params,
    root: Path | None = None,
    sweep: Sweep | None = None,
) -> tuple[BuildPlan, list[str]]:
    """What a build would run, and the paths of its outputs; raises as build does until then.

    Tensors are read where a number or a rank is measured, and nothing is written.
    """
    points = sweep_points(params, sweep)
    recipes = checked_recipes(path, source, points, root, sweep)
    with TensorReader() as reader:
        jobs = _quiet_jobs(recipes, points, reader)[0]
        return planned(jobs), [job.output.path for job in jobs]


def _quiet_jobs(
    recipes: Sequence[Checked], points: Sequence[SweepPoint], reader: TensorReader
) -> tuple[list[OutputJob], list[Diagnostic]]:
    """Jobs of a build that tells nobody of its progress."""
    return jobs_of(recipes, points, measuring_with(CpuExecutor, reader, no_progress))


@dataclass(frozen=True)
class InMemory:
    """An adapter that was not written to files, of PEFT.

    Attributes:
        texts: the files beside its tensors, by name.
        tensors: key, dtype, shape and little-endian bytes of each.
    """

    texts: Mapping[str, str]
    tensors: Sequence[tuple[str, str, tuple[int, ...], memoryview]]


def in_memory(checked: Checked) -> tuple[InMemory, list[Diagnostic]]:
    """The one output of a recipe as PEFT would store it, and the warnings on the way; raises
    PemError."""
    with one_algebra_thread(), TensorReader() as reader:
        jobs, warnings = _quiet_jobs([checked], [SweepPoint({})], reader)
        jobs = [replace(job, request=replace(job.request, format=PEFT)) for job in jobs]
        plan = planned(jobs)
        [job], [file] = jobs, plan.plan.outputs
        data = bytearray(file.size)
        result = _run(plan, jobs, CpuExecutor(), reader, [MemoryTarget(data)], no_progress)
    warnings += noticed(checked, job.output, _outcome(job, plan, 0, result))
    ends = [*(tensor.start for tensor in file.tensors[1:]), file.size]
    tensors = [
        (tensor.key, tensor.dtype, tensor.shape, memoryview(data)[tensor.start : end])
        for tensor, end in zip(file.tensors, ends, strict=True)
    ]
    return InMemory(plan.outputs[0].layout.texts, tensors), warnings
