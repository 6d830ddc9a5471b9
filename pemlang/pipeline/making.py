"""The files of tensors of some outputs: made part by part, brought to the disk, and written down
there, so that a build that is stopped can be gone on with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import field
from functools import partial
from pathlib import Path

from pemlang.artifact.finished import (
    FinishedFile,
    FinishedKey,
    FinishedPart,
    add_finished,
    finished_parts,
    finished_text,
    verified,
    why_not,
)
from pemlang.artifact.provenance import Subject
from pemlang.artifact.staging import Stage, go_on_in, new_stage, remove_left
from pemlang.artifact.subjects import subject
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, Fault, placed, visible
from pemlang.execute.crew import hold_memory
from pemlang.execute.executor import ExecutionOptions, Executor, Progress
from pemlang.execute.machine import algebra_name
from pemlang.execute.result import (
    ExecutionResult,
    FileTarget,
    MemoryTarget,
    OutputFailed,
    OutputSeen,
    Target,
)
from pemlang.kernels.plan import NumberSink, Plan, PlanPart, TensorSink, TruncationKey
from pemlang.lazy import numpy as np
from pemlang.lower.plan import BuildPlan
from pemlang.pipeline.faults import worded
from pemlang.pipeline.jobs import OutputJob, error_of
from pemlang.pipeline.refusals import adapters_of
from pemlang.tensorfiles.digests import hold_unchanged, text_digest
from pemlang.tensorfiles.dtypes import Array
from pemlang.tensorfiles.reader import TensorReader, make_room

Tick = Callable[[str, int, int], None]
"""Called with what is being made, the steps done and the steps in all."""


def no_tick(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class MadeFile:
    """A file of tensors that is on the disk.

    Attributes:
        subject: its digests.
        seen: while it was written.
        resumed: whether it was there from a build that was stopped.
    """

    subject: Subject
    seen: OutputSeen
    resumed: bool = False


@dataclass(eq=False)
class OutputInMaking:
    """An output on its way.

    Attributes:
        job, key: it, and what tells it from others.
        names: of its files of tensors, by their numbers in the plan.
        place: the folder that it is made in, once that is known.
        finished: what a stopped build wrote down of it there, by the names of the files.
        files: those that are made, by name.
    """

    job: OutputJob
    key: FinishedKey
    names: Mapping[int, str]
    place: Path = Path()
    finished: Mapping[frozenset[str], FinishedPart] = field(default_factory=dict)
    files: dict[str, MadeFile] = field(default_factory=dict)

    @property
    def subjects(self) -> dict[str, Subject]:
        """The digests of its files by name."""
        return {name: self.files[name].subject for name in self.names.values()}

    @property
    def seen(self) -> list[OutputSeen]:
        """What was seen of its files, in their order."""
        return [self.files[name].seen for name in self.names.values()]

    @property
    def resumed(self) -> int:
        """How many of its files were there from a build that was stopped."""
        return sum(file.resumed for file in self.files.values())

    def names_in(self, part: PlanPart) -> dict[int, str]:
        """The names of those of its files that are in a part."""
        return {file: self.names[file] for file in part.files if file in self.names}

    def look(self, left: Sequence[Path]) -> None:
        """Look for finished parts of it in the folders that stopped builds left."""
        for at in left:
            parts = finished_parts(at, self.key)
            if len(parts) > len(self.finished):
                self.place, self.finished = at, parts

    def unused(self, left: Path, resume: bool) -> Diagnostic:
        """What to say of finished files that a stopped build left and that are not used."""
        if not resume:
            why = "this build was not told to go on with them"
        elif self.finished:
            why = "they are not what was written down of them"
        else:
            why = why_not(left, self.key)
        fault = Fault(
            "PEM0710",
            f"{visible(self.job.output.path)} was made from the start: a build that was stopped "
            f"had finished {finished_text(left)} of it, but {why}",
            "to go on after a build was stopped, run `pem build --resume` before anything changes",
        )
        return fault.at(self.job.output.span, "warning")

    def verified(self, part: PlanPart, sizes: Mapping[int, int]) -> Mapping[str, Subject]:
        """Those of its files that are in a part, as a stopped build made them; nothing where one
        of them is not there, or not what was written down.

        Args:
            part: of the plan.
            sizes: the bytes of each file of the plan.
        """
        names = self.names_in(part)
        finished = self.finished.get(frozenset(names.values()))
        if finished is None:
            return {}
        return verified(self.place, finished, {name: sizes[n] for n, name in names.items()})

    def take_up(self, subjects: Mapping[str, Subject]) -> dict[NumberSink, Array]:
        """Take files that are verified; the numbers that were told while they were made."""
        finished = self.finished[frozenset(subjects)]
        for name, verified_subject in subjects.items():
            self.files[name] = MadeFile(verified_subject, finished.files[name].seen, resumed=True)
        first = min(self.names)
        return {NumberSink(first, key): np.array(cost) for key, cost in finished.truncations}

    def write_down(self, part: PlanPart, result: ExecutionResult) -> None:
        """Write down that its files in a part are finished; raises OSError."""
        first = min(self.names)
        files, truncations = {}, []
        for name in self.names_in(part).values():
            files[name] = FinishedFile(self.files[name].subject.blake3, self.files[name].seen)
        for sink, cost in result.numbers.items():
            if sink.output == first:
                assert isinstance(sink.key, TruncationKey)
                lost, norm = cost.tolist()
                truncations.append((sink.key, (lost, norm)))
        add_finished(self.place, self.key, FinishedPart(files, truncations))


class FileMaking:
    """The files of tensors of all outputs of a plan, on their way.

    Attributes:
        outputs: in the order of the plan.
    """

    def __init__(
        self, plan: BuildPlan, jobs: Sequence[OutputJob], stage: Stage, options: ExecutionOptions
    ) -> None:
        """Take a plan.

        Args:
            plan, jobs: the outputs, in one order.
            stage: where folders are made for them.
            options: how the plan is run.
        """
        self._plan, self._jobs, self._stage, self._options = plan, jobs, stage, options
        self._parts = plan.parts()
        self._numbers: dict[int, Mapping[NumberSink, Array]] = {}  # by part, once it is made
        self.outputs = [
            OutputInMaking(
                job,
                _key(plan, index, job, options.block),
                dict(zip(output.numbers, output.layout.files, strict=True)),
            )
            for index, (job, output) in enumerate(zip(jobs, plan.outputs, strict=True))
        ]

    @property
    def numbers(self) -> dict[NumberSink, Array]:
        """What programs told, in the order of the parts."""
        told: dict[NumberSink, Array] = {}
        for _, numbers in sorted(self._numbers.items()):
            told |= numbers
        return told

    def take_places(self, resume: bool) -> list[Diagnostic]:
        """Take a folder for each output: a new one, or with `resume` one that a stopped build left
        with finished files. All else that stopped builds left is removed.

        Returns:
            Warnings of finished files that are not used.

        Raises:
            PemError: a folder cannot be made.
        """
        make_room(len(self.outputs) + len(self._plan.plan.outputs))  # a stage each, and its files
        if resume:
            for output in self.outputs:
                output.look(self._stage.left.get(output.job.output.target, ()))
            for index, part in enumerate(self._parts):
                self._take_up(index, part)
        warnings: list[Diagnostic] = []
        for output in self.outputs:
            target = output.job.output.target
            with output.job.placed():
                if output.files:
                    go_on_in(output.place, target, self._stage, output.files)
                    continue
                left = self._stage.left.get(target)
                warnings += [output.unused(left[-1], resume)] if left else []
                output.place = new_stage(target, self._stage)
        remove_left(self._stage)
        return warnings

    def _members(self, part: PlanPart) -> list[OutputInMaking]:
        return [output for output in self.outputs if output.names_in(part)]

    def _take_up(self, index: int, part: PlanPart) -> None:
        """Take a part as stopped builds made it, if all of it is there."""
        sizes = {file: self._plan.plan.outputs[file].size for file in part.files}
        members = self._members(part)
        subjects = [output.verified(part, sizes) for output in members]
        if all(subjects):
            numbers: dict[NumberSink, Array] = {}
            for output, verified_files in zip(members, subjects, strict=True):
                numbers |= output.take_up(verified_files)
            self._numbers[index] = numbers

    def run(self, executor: Executor, reader: TensorReader, tick: Tick) -> float:
        """Make what is not there; the time, by the clock of performance, when the last tensor was
        written. A part is brought to the disk while the next one is made.

        Raises:
            PemError: as build.
        """
        with placed(None), worded():
            hold_memory([part.plan for part in self._parts], self._options)
        what = self._jobs[0].output.path + f" and {len(self._jobs) - 1} more" * (
            len(self._jobs) > 1
        )
        with ThreadPoolExecutor(1) as pool:
            finishing: Future[None] | None = None
            for index, part in enumerate(self._parts):
                if index in self._numbers:
                    continue
                several = f", part {index + 1} of {len(self._parts)}" * (len(self._parts) > 1)
                result = self._written(part, executor, reader, partial(tick, what + several))
                if finishing is not None:
                    finishing.result()
                finishing = pool.submit(self._finish, index, part, result)
            written = time.perf_counter()
            if finishing is not None:
                finishing.result()
        return written

    def _finish(self, index: int, part: PlanPart, result: ExecutionResult) -> None:
        """Bring a part to the disk, and take the digests of its files while that works."""
        members = self._members(part)
        with ThreadPoolExecutor(2) as pool:
            subjects = {
                file: pool.submit(subject, output.place / name)
                for output in members
                for file, name in output.names_in(part).items()
            }
            for output in members:
                with output.job.placed():
                    self._stage.flush(output.place, output.names_in(part).values())
            for output in members:
                with output.job.placed():
                    for file, name in output.names_in(part).items():
                        output.files[name] = MadeFile(subjects[file].result(), result.outputs[file])
                    if len(self._parts) > 1:
                        output.write_down(part, result)
        self._numbers[index] = result.numbers

    def _written(
        self, part: PlanPart, executor: Executor, reader: TensorReader, progress: Progress
    ) -> ExecutionResult:
        """Write the tensors of a part."""
        targets: list[Target] = [MemoryTarget(bytearray()) for _ in self._plan.plan.outputs]
        with ExitStack() as open_files:
            for output in self._members(part):
                for number, name in output.names_in(part).items():
                    with output.job.placed():
                        file = open_files.enter_context((output.place / name).open("xb"))
                        file.truncate(self._plan.plan.outputs[number].size)
                        targets[number] = FileTarget(file.fileno())
            result = run_plan(
                self._plan, part.plan, self._jobs, executor, reader, targets, progress
            )
        with placed(None):
            for adapter in adapters_of([job.checked for job in self._jobs]):
                hold_unchanged(adapter.seen)  # what is finished is of what was checked
        return result


def run_plan(
    build: BuildPlan,
    plan: Plan,
    jobs: Sequence[OutputJob],
    executor: Executor,
    reader: TensorReader,
    targets: Sequence[Target],
    progress: Progress,
) -> ExecutionResult:
    """Run a plan, or a part of it; raises PemError with what goes wrong.

    Args:
        build: what it belongs to.
        plan: what to run.
        jobs: its outputs.
        executor, reader, targets, progress: see Executor.
    """
    with placed(None), worded():
        result = executor.execute(plan, reader, targets, progress)
        if result.failed is None:
            reader.unchanged()
    if result.failed is not None:
        owner = build.owner(result.failed.output)
        raise error_of(OutputFailed(owner, result.failed.error), jobs)
    return result


def _key(plan: BuildPlan, index: int, job: OutputJob, block: int) -> FinishedKey:
    output = plan.outputs[index]
    headers = [plan.plan.outputs[number].header.decode("latin-1") for number in output.numbers]
    algebra = algebra_of(plan.plan, output.numbers)
    layout = text_digest(json.dumps([list(output.layout.files), headers, block, algebra]))
    return FinishedKey(job.semantic_hash, layout)


def algebra_of(plan: Plan, files: range) -> str:
    """The linear algebra library that the last digits of an output go by; empty where they do
    not."""
    by_library = any(
        step.by_library
        for call in plan.sites
        if any(isinstance(sink, TensorSink) and sink.output in files for sink in call.outputs)
        for step in call.program.steps
    )
    return algebra_name() if by_library else ""
