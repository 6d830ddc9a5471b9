"""Build: check, identify by content, assert, plan, run, write; nothing takes its place before
all of it is known to be right."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path

from pemlang.artifact.existing import standing
from pemlang.artifact.finished import finished_text
from pemlang.artifact.provenance import Outcome, Provenance
from pemlang.artifact.staging import (
    Stage,
    Staged,
    clean_up,
    new_stage,
    remove_left,
    staging,
    take_place,
)
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
from pemlang.execute.executor import TURN, ExecutionOptions, Executor, no_progress
from pemlang.execute.machine import one_algebra_thread
from pemlang.execute.result import MemoryTarget, OutputSeen, together
from pemlang.formats import PEFT, Format
from pemlang.inputs.lock import Lock
from pemlang.kernels.plan import NumberSink
from pemlang.lower.plan import BuildPlan
from pemlang.pipeline.faults import worded
from pemlang.pipeline.jobs import (
    Jobs,
    OutputJob,
    checked_recipes,
    jobs_of,
    least_memory,
    measuring_with,
    planned,
)
from pemlang.pipeline.making import FileMaking, Tick, algebra_of, no_tick, run_plan
from pemlang.pipeline.refusals import adapters_of, inputs_of
from pemlang.pipeline.sweep import Sweep, SweepPoint, sweep_points, told_once
from pemlang.pipeline.warnings import noticed, outcome_of, truncations
from pemlang.source import Source
from pemlang.tensorfiles.digests import anew, hold_unchanged
from pemlang.tensorfiles.dtypes import Array
from pemlang.tensorfiles.reader import TensorReader


@dataclass(frozen=True)
class BuildOptions:
    """How to build, none of which changes a byte of what is built but `block`.

    Attributes:
        threads: at most so many at work; the machine's own number when None.
        memory: bytes of working memory; a part of the machine's when None.
        device: the backend: `cpu`, or `cuda` where elementwise programs are to run on a GPU.
        force: make again what is up to date, and replace what has been changed since it was built.
        resume: go on where a build was stopped, with the files that it had finished.
        lock: what everything the recipe is made from is held to.
        only: the one output to build, by its path as written.
        taken: the outputs of other recipes that are built beside this one, which it leaves alone.
        lasting: wait until outputs are on the disk, as those that are removed at once need not be.
        block, turn: see ExecutionOptions.
    """

    threads: int | None = None
    memory: int | None = None
    device: str = "cpu"
    force: bool = False
    resume: bool = False
    lock: Lock | None = None
    only: str | None = None
    taken: frozenset[Path] = frozenset()
    lasting: bool = True
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
        printed: what the recipe prints, a line each.
        seconds: what took how long: `work` from the first tensor read to the last byte written,
            `flush` until the bytes were on the disk.
    """

    outputs: tuple[Built, ...]
    warnings: tuple[Diagnostic, ...]
    seconds: Mapping[str, float]
    printed: tuple[str, ...] = ()


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
    return build_checked(recipes, points, tick, options)


def build_checked(
    recipes: Sequence[Checked],
    points: Sequence[SweepPoint],
    tick: Tick,
    options: BuildOptions,
    values: dict[str, Fraction] | None = None,
) -> BuildResult:
    """Build recipes that are fit to be built, all in one plan.

    Args:
        recipes, points: as checked_recipes gives them.
        tick, options: as for build.
        values: what earlier builds measured, see Measuring.

    Raises:
        PemError: with everything wrong; nothing has been written then.
    """
    inputs = inputs_of(recipes)
    by_folder: dict[Path, list[Path]] = {}
    for checked in recipes:
        for output in checked.outputs:
            by_folder.setdefault(output.target.parent, []).append(output.target)
    with (
        one_algebra_thread(),
        TensorReader() as reader,
        staging(options.lasting) as stage,
        _told(stage),
    ):
        for folder, targets in by_folder.items():
            with placed(None), turn(folder):
                clean_up(folder, targets, stage)
        for checked in recipes:
            for output in checked.outputs:
                with placed(output.span), turn(output.target.parent):
                    check_target(output.target, inputs, options.force)
        building = _Build(reader, stage, tick, options, values)
        result = building.run(recipes, points)
        with placed(None):
            for adapter in adapters_of(recipes):
                hold_unchanged(adapter.seen)
        for staged in stage.directories:
            with building.placed(staged.target), turn(staged.target.parent):
                check_target(staged.target, inputs, options.force)
                take_place(staged, stage)
    return result


_WRONG_NUMBERS = "PEM050"
"""How the codes begin of what is wrong with numbers of the inputs, or of an output."""


@contextmanager
def _told(stage: Stage) -> Iterator[None]:
    """What goes wrong inside is told with what stays, for a build to go on with. Where numbers are
    wrong they would be so again, and nothing stays."""
    try:
        yield
    except PemError as error:
        first, *others = error.diagnostics
        if first.code.startswith(_WRONG_NUMBERS):
            stage.give_up()
        told = replace(first, notes=(*first.notes, *map(_stays, stage.with_records())))
        raise PemError([told, *others]) from None


def _stays(staged: Staged) -> str:
    what = f"{finished_text(staged.at)} of {visible(staged.target)}"
    return f"what is finished stays, {what}: `pem build --resume` goes on, `pem clean` removes it"


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
        self,
        reader: TensorReader,
        stage: Stage,
        tick: Tick,
        options: BuildOptions,
        values: dict[str, Fraction] | None,
    ) -> None:
        self._reader, self._stage, self._tick, self._options = reader, stage, tick, options
        self._values = values
        self._jobs: list[OutputJob] = []
        self._warnings: list[Diagnostic] = []

    def run(self, recipes: Sequence[Checked], points: Sequence[SweepPoint]) -> BuildResult:
        """Make what is not up to date; every output is ready to take its place then."""
        began = time.perf_counter()
        progress = partial(self._tick, "measuring")
        measuring = measuring_with(
            self._measurer,
            self._reader,
            progress,
            partial(least_memory, recipes, points, self._options.running),
            self._values,
        )
        jobs, warnings, printed = jobs_of(recipes, points, measuring)
        self._jobs = jobs
        old = {} if self._options.force else _up_to_date(jobs)
        todo = [job for job in jobs if job not in old]
        made, seconds = self._made(todo, began) if todo else ({}, {})
        remove_left(self._stage)
        warnings += self._warnings
        outputs = []
        for job in jobs:
            with job.placed():
                description, resumed = made.get(job) or (self._refreshed(job, old[job]), 0)
                diagnostics = noticed(job.checked, job.output, description.outcome)
                warnings += job.point.noted(diagnostics)
                outputs.append(description.built(was_there=job in old, resumed=resumed))
        told = told_once(warnings) if len(points) > 1 else warnings
        return BuildResult(tuple(outputs), tuple(told), seconds, tuple(printed))

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
            at = new_stage(job.output.target, self._stage)
            description.refresh(old, at)
            self._stage.flush(at)
        return description

    def _made(
        self, jobs: Sequence[OutputJob], began: float
    ) -> tuple[dict[OutputJob, tuple[Description, int]], Mapping[str, float]]:
        """Make outputs, each in a directory of the stage, with how many of its files were there
        from a stopped build; and what took how long."""
        plan = planned(jobs)
        making = FileMaking(plan, jobs, self._stage, self._options.running)
        self._warnings += making.take_places(self._options.resume)
        written = making.run(self._executor, self._reader, self._tick)
        flushed = time.perf_counter()
        made = {}
        for index, (job, output) in enumerate(zip(jobs, making.outputs, strict=True)):
            planned_output = plan.outputs[index]
            with job.placed():
                outcome = _outcome(job, plan, index, output.seen, making.numbers)
                description = _described(job, outcome, planned_output.format)
                description.finish(planned_output.layout, output.subjects, output.place)
                self._stage.flush(output.place)
            made[job] = description, output.resumed
        return made, {"work": written - began, "flush": flushed - written}


def _up_to_date(jobs: Sequence[OutputJob]) -> dict[OutputJob, Provenance]:
    """The outputs that need not be made again."""
    existing = {job: standing(job.output.target, job.semantic_hash).provenance for job in jobs}
    return {job: provenance for job, provenance in existing.items() if provenance is not None}


def _described(job: OutputJob, outcome: Outcome, format_: Format) -> Description:
    return Description(job.checked, job.output, job.semantic_hash, outcome, format_)


def _outcome(
    job: OutputJob,
    plan: BuildPlan,
    index: int,
    seen: Sequence[OutputSeen],
    numbers: Mapping[NumberSink, Array],
) -> Outcome:
    return outcome_of(
        job.output,
        plan.outputs[index],
        plan.size(index),
        together(seen),
        truncations(numbers, plan.outputs[index].numbers.start),
        algebra_of(plan.plan, plan.outputs[index].numbers),
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
        jobs = _quiet_jobs(recipes, points, reader).jobs
        return planned(jobs), [job.output.path for job in jobs]


def _quiet_jobs(
    recipes: Sequence[Checked], points: Sequence[SweepPoint], reader: TensorReader
) -> Jobs:
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
        jobs, warnings, _ = _quiet_jobs([checked], [SweepPoint({})], reader)
        jobs = [replace(job, request=replace(job.request, format=PEFT)) for job in jobs]
        plan = planned(jobs)
        [job], [file] = jobs, plan.plan.outputs
        data = bytearray(file.size)
        targets = [MemoryTarget(data)]
        result = run_plan(plan, plan.plan, jobs, CpuExecutor(), reader, targets, no_progress)
    outcome = _outcome(job, plan, 0, result.outputs, result.numbers)
    warnings += noticed(checked, job.output, replace(outcome, ranks=""))  # PEFT takes any
    ends = [*(tensor.start for tensor in file.tensors[1:]), file.size]
    tensors = [
        (tensor.key, tensor.dtype, tensor.shape, memoryview(data)[tensor.start : end])
        for tensor, end in zip(file.tensors, ends, strict=True)
    ]
    return InMemory(plan.outputs[0].layout.texts, tensors), warnings
