"""What there is to make: a recipe checked, known by content, held to its lock, at each value of a
sweep, as jobs of one output each; and the plan of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pemlang.artifact.staging import placed
from pemlang.artifact.write import metadata
from pemlang.check.check import check
from pemlang.check.checked import Checked
from pemlang.check.elaborate import Loaders
from pemlang.check.options import Output, heads_agree, semantic_hash
from pemlang.diagnostics import Diagnostic, Fault, PemError
from pemlang.execute.machine import default_threads
from pemlang.formats.peft_layout import adapters_of
from pemlang.inputs.load import loaders
from pemlang.inputs.lock import Lock
from pemlang.inputs.locked import held, hold_imports, hold_version
from pemlang.lower.evaluate import Evaluator
from pemlang.lower.evaluate import Known as Measured
from pemlang.lower.plan import Failed, Plan, Wanted, make_plan
from pemlang.pipeline.sweep import Point, Sweep, saved_apart
from pemlang.pipeline.warnings import verify
from pemlang.source import Source, Span
from pemlang.tensorfiles.digests import adapter_digest, take_digests
from pemlang.tensorfiles.disk import is_file
from pemlang.tensorfiles.reader import Files

WHOLE_MODELS = ("model", "bake", "task_vector")


@dataclass(frozen=True, eq=False)
class Job:
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
        take_digests(on_disk(known), default_threads())
    return at_all(by_lock(loaders(whole=True, identify=adapter_digest), whole=True))


def on_disk(recipes: Sequence[Checked]) -> list[Path]:
    """The tensors' files of the inputs, as far as they have been fetched."""
    leaves = (leaf for checked in recipes for leaf in checked.graph.all_leaves())
    files = dict.fromkeys(adapter.weights for adapter in adapters_of(list(leaves)))
    return [file for file in files if is_file(file)]


def checked_recipes(
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


def inputs_of(recipes: Sequence[Checked]) -> set[Path]:
    """The directories of all adapters that recipes name."""
    return {
        node.adapter.directory.resolve()
        for checked in recipes
        for node in checked.graph.all_leaves()
        if node.adapter
    }


def jobs_of(
    recipes: Sequence[Checked],
    at: Sequence[Point],
    files: Files,
    budget: int,
    progress: Callable[[], None],
) -> tuple[list[Job], list[Diagnostic]]:
    """Everything to make, with the warnings of what it is made from."""
    known = Measured()
    jobs: list[Job] = []
    warnings: list[Diagnostic] = []
    for checked, point in zip(recipes, at, strict=True):
        evaluator = Evaluator(checked.graph, files, budget, progress, known)
        with point.telling():
            warnings += point.noted([*checked.report, *verify(checked, evaluator)])
            jobs += [job_of(checked, point, evaluator, output) for output in checked.outputs]
    return jobs, warnings


def job_of(checked: Checked, point: Point, evaluator: Evaluator, output: Output) -> Job:
    """The job of one output."""
    graph = checked.graph
    with placed(output.span):
        heads = heads_agree(graph, output.node, output.heads, checked.leaf_name)
    digest = semantic_hash(output)
    said = metadata(checked, output, digest)
    leaves = graph.parts(output.node)
    wanted = Wanted(evaluator, output.node, leaves, heads, output.dtype, said)
    return Job(checked, point, output, wanted, digest)


def planned(jobs: Sequence[Job]) -> Plan:
    """The plan of some jobs; raises PemError with the place of what is wrong with one."""
    try:
        return make_plan([job.wanted for job in jobs])
    except Failed as failed:
        raise told(failed, jobs) from None


def told(failed: Failed, jobs: Sequence[Job]) -> Exception:
    """What went wrong with an output, as a diagnostic of its place in the recipe."""
    try:
        with jobs[failed.output].placed():
            raise failed.error
    except Exception as error:
        return error


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
