"""What there is to make: a recipe known by content, held to its lock, at each value of a sweep, as
jobs of one output each; and the plan of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from pemlang.artifact.write import metadata
from pemlang.check.checked import Checked
from pemlang.check.outputs import Output, heads_agree
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, PemError, placed
from pemlang.execute.crew import working_memory
from pemlang.execute.executor import ExecutionOptions, Executor, Progress
from pemlang.execute.result import OutputFailed
from pemlang.failures import MemoryTooSmall
from pemlang.inputs.identities import identified
from pemlang.inputs.lock import Lock
from pemlang.inputs.locked import HeldResolver, hold_version
from pemlang.inputs.resolver import DiskResolver, Resolver
from pemlang.kernels.plan import NumberSink, Plan
from pemlang.lower.lowering import Foreseen, Lowering
from pemlang.lower.measuring import Measuring
from pemlang.lower.plan import BuildPlan, OutputRequest, make_plan
from pemlang.pipeline.checking import checked_with
from pemlang.pipeline.faults import worded
from pemlang.pipeline.prints import lines_of
from pemlang.pipeline.refusals import saves_nothing, with_refusals
from pemlang.pipeline.sweep import Sweep, SweepPoint, saved_apart
from pemlang.pipeline.warnings import verify
from pemlang.source import Source
from pemlang.tensorfiles.dtypes import Array
from pemlang.tensorfiles.reader import TensorReader


@dataclass(frozen=True, eq=False)
class OutputJob:
    """An output of a recipe, at one value of a sweep.

    Attributes:
        checked, point, output: the recipe, the value, the `save`.
        request: the adapter.
        semantic_hash: of the output.
    """

    checked: Checked
    point: SweepPoint
    output: Output
    request: OutputRequest
    semantic_hash: str

    @contextmanager
    def placed(self) -> Iterator[None]:
        """What goes wrong inside is told at the `save`, with the value of the sweep."""
        with self.point.telling(), placed(self.output.span), worded():
            yield


def checked_recipes(
    path: Path,
    source: Source,
    points: Sequence[SweepPoint],
    root: Path | None,
    sweep: Sweep | None,
    lock: Lock | None = None,
) -> list[Checked]:
    """The recipe at each value of a sweep, fit to be built: right at all of them, its adapters
    fetched and known by their content. With a lock all of it is held to that.

    Raises:
        PemError: everything wrong with it.
    """
    resolver: Resolver = DiskResolver()
    if lock is not None:
        with placed(None):
            hold_version(lock)
        resolver = HeldResolver(lock, resolver)
    if len(points) > 1:
        source = replace(source, memory={})  # checked at each value, parsed once
    recipes = []
    for point in points:
        with point.telling():
            checked = checked_with(resolver, path, source, point.settings, root, lock)
            checked.raise_errors()
            recipes.append(checked)
    for index, point in enumerate(points):
        with point.telling():
            recipes[index] = identified(recipes[index], resolver)
    if not recipes[0].outputs:
        raise PemError([saves_nothing(recipes[0])])
    saved_apart(recipes, sweep)
    for checked in recipes:
        with_refusals(checked).raise_errors()
    return recipes


def measuring_with(
    executor: Callable[[], Executor],
    reader: TensorReader,
    progress: Progress,
    least: Callable[[], int] = lambda: 0,
    values: dict[str, Fraction] | None = None,
) -> Measuring:
    """Measures numbers on an executor.

    Args:
        executor: opened when there is a number to measure.
        reader, progress: as for Executor.execute.
        least: bytes of memory that what comes after needs: where there is too little to measure,
            that is what to ask for.
        values: see Measuring.
    """

    def run(plan: Plan) -> Mapping[NumberSink, Array]:
        with worded():
            try:
                result = executor().execute(plan, reader, (), progress)
            except MemoryTooSmall as failure:
                raise MemoryTooSmall(max(failure.needed, least()), failure.allowed) from None
            if result.failed is not None:
                raise result.failed.error
        return result.numbers

    return Measuring(run, values)


def least_memory(
    recipes: Sequence[Checked], points: Sequence[SweepPoint], options: ExecutionOptions
) -> int:
    """Bytes of memory that building some recipes takes at least, before a number is measured."""
    jobs = [
        job_of(checked, point, Lowering(checked.graph, Foreseen()), output)
        for checked, point in zip(recipes, points, strict=True)
        for output in checked.outputs
    ]
    return working_memory(planned(jobs).plan, 1, options)


class Jobs(NamedTuple):
    """Everything to make, the warnings of what it is made from, and what the recipes print."""

    jobs: list[OutputJob]
    warnings: list[Diagnostic]
    printed: list[str]


def jobs_of(recipes: Sequence[Checked], points: Sequence[SweepPoint], measuring: Measuring) -> Jobs:
    """What there is to do for some recipes, at the values of a sweep."""
    jobs: list[OutputJob] = []
    warnings: list[Diagnostic] = []
    printed: list[str] = []
    for checked, point in zip(recipes, points, strict=True):
        lowering = Lowering(checked.graph, measuring)
        with point.telling():
            warnings += point.noted([*checked.diagnostics, *verify(checked, lowering, measuring)])
            jobs += [job_of(checked, point, lowering, output) for output in checked.outputs]
            lines = lines_of(checked.prints, lowering, checked)
            printed += [" ".join([line, *point.note]) for line in lines]
    return Jobs(jobs, warnings, printed)


def job_of(checked: Checked, point: SweepPoint, lowering: Lowering, output: Output) -> OutputJob:
    """The job of one output."""
    graph, node = checked.graph, output.node
    with placed(output.span):
        heads = heads_agree(graph, output, checked.leaf_name)
    semantic_hash = checked.hash(output)
    texts = metadata(checked, output, semantic_hash)
    request = OutputRequest(
        lowering,
        node,
        graph.parts(node),
        heads,
        output.dtype,
        texts,
        output.format_of(graph),
        output.target.name,
        shard=output.shard,
        tokenizer=output.tokenizer,
        reader=output.reader,
        mean_heads=output.heads_by == "mean",
    )
    return OutputJob(checked, point, output, request, semantic_hash)


def planned(jobs: Sequence[OutputJob]) -> BuildPlan:
    """The plan of some jobs; raises PemError with the place of what is wrong with one."""
    try:
        return make_plan([job.request for job in jobs])
    except OutputFailed as failed:
        raise error_of(failed, jobs) from None


def error_of(failed: OutputFailed, jobs: Sequence[OutputJob]) -> Exception:
    """What went wrong with an output, as a diagnostic of its place in the recipe."""
    try:
        with jobs[failed.output].placed():
            raise failed.error
    except Exception as error:
        return error
