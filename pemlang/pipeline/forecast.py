"""What a build would do, before a tensor is read: `pem plan`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pemlang.artifact.existing import standing
from pemlang.artifact.target import check_target
from pemlang.check.checked import Checked
from pemlang.check.values import Params, RecipeValue, Spelling
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, placed
from pemlang.disk import is_file, turn
from pemlang.execute.crew import most_memory
from pemlang.execute.elementwise import BLOCK
from pemlang.execute.executor import DEFAULTS
from pemlang.execute.loop import span_of
from pemlang.formats.adapter import Adapter
from pemlang.formats.identity import adapter_digest
from pemlang.graph.formula import Formula, type_text
from pemlang.graph.leaves import Stored
from pemlang.graph.node import Node, TensorsNode
from pemlang.inputs.lock import Lock
from pemlang.inputs.locked import LockResolver
from pemlang.inputs.resolver import DiskResolver, Resolver
from pemlang.kernels.passes import passes, reads_of, repeats
from pemlang.kernels.plan import FusedLoop, HeadCopy, Plan, SiteCall, TensorSink
from pemlang.kernels.program import Program
from pemlang.lower.lowering import Foreseen, Lowering
from pemlang.lower.measuring import measuring_plan
from pemlang.lower.plan import BuildPlan
from pemlang.ops.measures import Measured
from pemlang.pipeline.checking import identified_with
from pemlang.pipeline.jobs import OutputJob, job_of, planned
from pemlang.pipeline.refusals import inputs_of
from pemlang.pipeline.sweep import SweepPoint
from pemlang.source import Source
from pemlang.tensorfiles.dtypes import DTYPES
from pemlang.tensorfiles.reference import TensorRef

UNKNOWN = "not here: "
"""Before where an adapter would be, for the identity of one whose tensors have not been fetched."""


@dataclass(frozen=True)
class InputForecast:
    """An adapter that a recipe names.

    Attributes:
        name, path: as the recipe declares it.
        type: its type, in words.
        size: bytes of its tensors.
        content: the identity of its content; None where its tensors are not here.
        used: whether an output needs it.
    """

    name: str
    path: str
    type: str
    size: int
    content: str | None
    used: bool


@dataclass(frozen=True)
class Binding:
    """A name of the recipe: its type and its normal form."""

    name: str
    type: str
    value: str


@dataclass(frozen=True)
class OutputForecast:
    """An output.

    Attributes:
        path, label: where it goes, and what it is, as written.
        value: its normal form.
        type: in words.
        ranks: the least and the greatest rank of a site; None for (IA)³.
        at_most: whether the rank is a bound: an energy decides on it.
        dtype: of its tensors.
        size: bytes of its tensors' file.
        semantic_hash: None where the content of an input is not known.
        stays: whether it is up to date; else `why` says why not.
    """

    path: str
    label: str
    value: str
    type: str
    ranks: tuple[int, int] | None
    at_most: bool
    dtype: str
    size: int
    semantic_hash: str | None
    stays: bool
    why: str


@dataclass(frozen=True)
class Forecast:
    """All that a build would do.

    Attributes:
        warnings: what a check warns of.
        inputs, bindings, outputs: in the recipe's order.
        measured: the numbers that are read off weights first.
        read, written: bytes of tensors, for what has to be made and measured.
        least_read: the bytes among those that are read, each of them once: no program reads less.
            As for what is written, every program writes as much.
        flops: about how many floating point operations.
        memory: the most bytes at work, on so many threads.
        kernels: how many programs, and how many tensors or sites they run over.
        locked: whether it goes by pem.lock.
    """

    warnings: Sequence[Diagnostic]
    inputs: Sequence[InputForecast]
    bindings: Sequence[Binding]
    outputs: Sequence[OutputForecast]
    measured: Sequence[str]
    read: int
    least_read: int
    written: int
    flops: int
    memory: int
    threads: int
    kernels: tuple[int, int]
    locked: bool


def forecast(
    path: Path,
    source: Source,
    params: Params,
    root: Path | None = None,
    lock: Lock | None = None,
) -> Forecast:
    """What a build of a recipe would do.

    No tensor is read but to know an adapter by its content, or, where a lock has it, to hold what
    is there to that; with a lock no adapter need be there.

    Raises:
        PemError: everything wrong with the recipe.
    """
    resolver: Resolver = _PresentResolver() if lock is None else LockResolver(lock)
    checked = identified_with(resolver, path, source, params, root, lock)
    return forecast_of(checked, locked=lock is not None)


def forecast_of(checked: Checked, locked: bool = False) -> Forecast:
    """What a build of a recipe would do that is known by content; raises as forecast."""
    with placed(None):
        foreseen = Foreseen()
        lowering = Lowering(checked.graph, foreseen)
        jobs = [job_of(checked, SweepPoint({}), lowering, output) for output in checked.outputs]
    inputs = inputs_of([checked])
    for output in checked.outputs:
        with placed(output.span), turn(output.target.parent):
            check_target(output.target, inputs)
    write = Formula(checked.leaf_name)
    whole = planned(jobs)
    outputs = [_output(job, whole, index, write) for index, job in enumerate(jobs)]
    todo = [job for job, output in zip(jobs, outputs, strict=True) if not output.stays]
    plan = whole.plan
    if len(todo) < len(jobs):
        foreseen.ranked.clear()
        plan = planned(todo).plan
    measures = _measured(checked) if todo else []
    plans = [plan, measuring_plan(lowering, measures, foreseen.ranked.values())]
    threads, programs = DEFAULTS.most_threads, programs_of(plan)
    return Forecast(
        warnings=tuple(checked.diagnostics),
        inputs=_inputs(checked),
        bindings=_bindings(checked.names, write),
        outputs=outputs,
        measured=sorted(map(write.value, _measured(checked))),
        read=sum(map(bytes_read, plans)),
        least_read=_least_read(plans),
        written=sum(file.size for file in plan.outputs),
        flops=_flops(plan),
        memory=most_memory(plan, DEFAULTS),
        threads=threads,
        kernels=(len({id(program) for program in programs}), len(programs)),
        locked=locked,
    )


class _PresentResolver(DiskResolver):
    """Adapters as far as they are here: none is fetched."""

    def whole(self, adapter: Adapter, spelling: Spelling) -> Adapter:
        """See Resolver."""
        return adapter

    def content(self, adapter: Adapter, spelling: Spelling) -> str:
        """See Resolver."""
        here = all(map(is_file, adapter.tensor_files))
        return adapter_digest(adapter) if here else f"{UNKNOWN}{adapter.place}"


def _output(job: OutputJob, plan: BuildPlan, index: int, write: Formula) -> OutputForecast:
    output, node = job.output, job.output.node
    is_here = not any(_unknown(leaf) for leaf in job.checked.made_from(output))
    existing = standing(output.target, job.semantic_hash)
    own = [node.ranks[site] for site in node.type.ranked_shapes]
    ranks = (min(own, default=0), max(own, default=0))
    return OutputForecast(
        path=output.path,
        label=output.label,
        value=write.value(node),
        type=type_text(node),
        ranks=ranks if node.type.ranked else None,
        at_most=node.at_most,
        dtype=next(x.dtype for x in plan.outputs[index].layout.tensors if x.site is not None),
        size=plan.size(index),
        semantic_hash=job.semantic_hash if is_here else None,
        stays=is_here and existing.provenance is not None,
        why=existing.why if is_here else "the tensors of an input are not here yet",
    )


def _unknown(leaf: Stored) -> bool:
    return leaf.identity.startswith(UNKNOWN)


def _inputs(checked: Checked) -> list[InputForecast]:
    used = {leaf for output in checked.outputs for leaf in checked.made_from(output)}
    inputs = []
    for leaf, declared in checked.leaves.items():
        size = sum(entry.end - entry.start for entry in leaf.adapter.header.entries.values())
        content = None if _unknown(leaf) else leaf.identity.partition(" ")[0]
        inputs.append(
            InputForecast(
                declared.name, declared.path, type_text(leaf), size, content, leaf in used
            )
        )
    return inputs


def _bindings(names: Mapping[str, RecipeValue], write: Formula) -> list[Binding]:
    """The adapters and models that the recipe names, but for those that it only declares."""
    return [
        Binding(name, type_text(value), write.value(value))
        for name, value in names.items()
        if isinstance(value, TensorsNode) and not isinstance(value, Stored)
    ]


def _measured(checked: Checked) -> list[Measured]:
    """What is measured before anything is made: for weights, and for assertions."""
    roots: list[Node] = [output.node for output in checked.outputs]
    roots += [node for x in checked.assertions for node in x.condition.measured()]
    return [node for node in checked.graph.order(roots) if isinstance(node, Measured)]


def programs_of(plan: Plan) -> list[Program]:
    """The program of each loop and site."""
    return [loop.program for loop in plan.loops] + [call.program for call in plan.sites]


def bytes_read(plan: Plan) -> int:
    """Bytes of inputs that a plan reads. A tensor that no block has room for is read once for each
    pass over it, as far as that needs it. Where numbers are counted, a sample comes to that, which
    is small; how often a pass is done again is taken as it mostly is."""
    read = sum(_bytes_of_loop(loop) for loop in plan.loops)
    read += sum(size for call in plan.sites for size in _loaded(call).values())
    return read + sum(size for copy in plan.copies for size in _copied(plan, copy).values())


_NARROW = 2
"""Bytes of numbers that stand so far apart that one pass finds the k-th of them."""


def _bytes_of_loop(loop: FusedLoop) -> int:
    program, span = loop.program, span_of(loop, BLOCK)
    widths = [DTYPES[load.dtype].size for load in program.loads]
    times = 2 if max(widths, default=0) > _NARROW else 1
    by_pass = [
        (times if repeats(program, turn) else 1) * sum(widths[x] for x in reads_of(program, turn))
        for turn in range(passes(program))
    ]
    sizes = [size for _, size in loop.calls]
    return sum(size * (sum(by_pass) if size > span else sum(widths)) for size in sizes)


def _least_read(plans: Iterable[Plan]) -> int:
    """Bytes of inputs that some plans read, each byte once."""
    sizes: dict[TensorRef, int] = {}
    for plan in plans:
        for call in (*plan.sites, *(call for loop in plan.loops for call, _ in loop.calls)):
            sizes |= _loaded(call)
        for copy in plan.copies:
            sizes |= _copied(plan, copy)
    return sum(sizes.values())


def _loaded(call: SiteCall) -> dict[TensorRef, int]:
    """The tensors that a call reads, and their bytes."""
    sizes = {}
    for load in call.program.loads:
        shape = call.shape if call.program.elementwise else load.shape
        sizes[call.inputs[load.input]] = math.prod(shape) * DTYPES[load.dtype].size
    return sizes


def _copied(plan: Plan, copy: HeadCopy) -> dict[TensorRef, int]:
    place = plan.place(TensorSink(copy.output, copy.tensor))
    size = math.prod(place.shape) * DTYPES[place.dtype].size
    return dict.fromkeys(copy.sources, size)


def _flops(plan: Plan) -> int:
    loops = sum(loop.program.flops(loop.count) for loop in plan.loops)
    return loops + sum(call.program.flops() for call in plan.sites)
