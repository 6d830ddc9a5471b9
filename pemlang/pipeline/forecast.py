"""What a build would do, before a tensor is read: `pem plan`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pemlang.artifact.existing import standing
from pemlang.artifact.staging import check_target, placed
from pemlang.check.check import check
from pemlang.check.checked import Checked
from pemlang.check.options import Output
from pemlang.check.scope import Scope
from pemlang.diagnostics import Diagnostic
from pemlang.execute.local import working_memory
from pemlang.execute.machine import default_threads
from pemlang.formats.peft import Adapter
from pemlang.graph.formula import Algebra, type_text
from pemlang.graph.node import AdapterType, ModelType, Node
from pemlang.graph.normal import adapter_type
from pemlang.inputs.load import loaders
from pemlang.inputs.lock import Lock
from pemlang.inputs.locked import hold_imports, locked_loaders
from pemlang.kernels.cost import flops
from pemlang.kernels.program import Program
from pemlang.lower.evaluate import Foreseen
from pemlang.lower.plan import Plan
from pemlang.ops.record import ranks
from pemlang.pipeline.jobs import Job, inputs_of, job_of, on_disk, planned, refuse_models
from pemlang.pipeline.sweep import Point, Setting
from pemlang.source import Source
from pemlang.tensorfiles.digests import adapter_digest, take_digests
from pemlang.tensorfiles.disk import is_file
from pemlang.tensorfiles.safetensors import ITEM_SIZE

UNKNOWN = "not here: "
"""Before where an adapter would be, for the identity of one whose tensors have not been fetched."""


@dataclass(frozen=True)
class Input:
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
class Forecast:
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
class Outlook:
    """All that a build would do.

    Attributes:
        warnings: what a check warns of.
        inputs, bindings, outputs: in the recipe's order.
        measured: the numbers that are read off weights first.
        read, written: bytes, of what has to be made.
        flops: about how many floating point operations.
        memory: the most bytes at work, on so many threads.
        kernels: how many programs, and how many tensors or sites they run over.
        locked: whether it goes by pem.lock.
    """

    warnings: Sequence[Diagnostic]
    inputs: Sequence[Input]
    bindings: Sequence[Binding]
    outputs: Sequence[Forecast]
    measured: Sequence[str]
    read: int
    written: int
    flops: int
    memory: int
    threads: int
    kernels: tuple[int, int]
    locked: bool


def outlook(
    path: Path,
    source: Source,
    settings: Mapping[str, Setting],
    root: Path | None = None,
    lock: Lock | None = None,
) -> Outlook:
    """What a build of a recipe would do.

    No tensor is read but to know an adapter by its content, or, where a lock has it, to hold what
    is there to that; with a lock no adapter need be there.

    Raises:
        PemError: everything wrong with the recipe.
    """
    checked = _checked(path, source, settings, root, lock)
    refuse_models(checked)
    with placed(None):
        evaluator = Foreseen(checked.graph)
        jobs = [job_of(checked, Point({}), evaluator, output) for output in checked.outputs]
    inputs = inputs_of([checked])
    for output in checked.outputs:
        with placed(output.span):
            check_target(output.target, inputs)
    algebra = Algebra(checked.leaf_name)
    whole = planned(jobs)
    outputs = [
        _forecast(job, plan.size, plan.layout.tensors[0].dtype, algebra)
        for job, plan in zip(jobs, whole.outputs, strict=True)
    ]
    todo = [job for job, one in zip(jobs, outputs, strict=True) if not one.stays]
    plan = whole if len(todo) == len(jobs) else planned(todo)
    threads = default_threads()
    programs = {id(p): p for p in _programs(plan)}
    return Outlook(
        warnings=tuple(checked.report),
        inputs=_inputs(checked),
        bindings=_bindings(checked.scope, algebra),
        outputs=outputs,
        measured=_measured(checked, algebra),
        read=bytes_read(plan),
        written=sum(one.size for one in plan.outputs),
        flops=_flops(plan),
        memory=working_memory(plan, threads),
        threads=threads,
        kernels=(len(programs), len(_programs(plan))),
        locked=lock is not None,
    )


def _checked(
    path: Path,
    source: Source,
    settings: Mapping[str, Setting],
    root: Path | None,
    lock: Lock | None,
) -> Checked:
    if lock is not None:
        found = check(path, source, locked_loaders(lock), settings, root)
        hold_imports(found, lock)
        found.report.raise_errors()
        return found
    found = check(path, source, loaders(), settings, root)
    found.report.raise_errors()
    with placed(None):
        take_digests(on_disk([found]), default_threads())
    return check(path, source, loaders(identify=_identity), settings, root)


def _identity(adapter: Adapter) -> str:
    here = is_file(adapter.weights)
    return adapter_digest(adapter) if here else f"{UNKNOWN}{adapter.directory}"


def _forecast(job: Job, size: int, dtype: str, algebra: Algebra) -> Forecast:
    output, graph = job.output, job.checked.graph
    known = not any(_unknown(leaf) for leaf in graph.leaves(output.node))
    there = standing(output.target, job.digest)
    found = ranks(output.node).values() if adapter_type(output.node).method == "lora" else None
    return Forecast(
        path=output.path,
        label=output.label,
        value=algebra.value(output.node),
        type=type_text(output.node),
        ranks=None if found is None else (min(found, default=0), max(found, default=0)),
        at_most=any(node.op == "compress" and node.attrs[0] is None for node in _made(job, output)),
        dtype=dtype,
        size=size,
        semantic_hash=job.digest if known else None,
        stays=known and there.provenance is not None,
        why=there.why if known else "the tensors of an input are not here yet",
    )


def _made(job: Job, output: Output) -> list[Node]:
    return job.checked.graph.order([output.node])


def _unknown(leaf: Node) -> bool:
    return str(leaf.attrs[0]).startswith(UNKNOWN)


def _inputs(checked: Checked) -> list[Input]:
    used = {leaf for output in checked.outputs for leaf in checked.graph.leaves(output.node)}
    found = []
    for leaf, declared in checked.elaborator.leaves.items():
        adapter = leaf.adapter
        assert adapter is not None
        size = sum(entry.end - entry.start for entry in adapter.header.entries.values())
        content = None if _unknown(leaf) else str(leaf.attrs[0]).partition(" ")[0]
        found.append(
            Input(declared.name, declared.path, type_text(leaf), size, content, leaf in used)
        )
    return found


def _bindings(scope: Scope, algebra: Algebra) -> list[Binding]:
    """The adapters and models that the recipe names, but for those that it only declares."""
    return [
        Binding(name, type_text(value), algebra.value(value))
        for name, value in scope.values.items()
        if isinstance(value, Node)
        and isinstance(value.type, AdapterType | ModelType)
        and value.op not in ("leaf", "model")
    ]


def _measured(checked: Checked, algebra: Algebra) -> list[str]:
    """What is measured before anything is made: for weights, and for assertions."""
    roots = [output.node for output in checked.outputs]
    roots += [node for one in checked.assertions for node in one.condition.measured()]
    found = [node for node in checked.graph.order(roots) if node.op == "measure"]
    return sorted(algebra.value(node) for node in found)


def _programs(plan: Plan) -> list[Program]:
    return [span.program for span in plan.spans] + [piece.program for piece in plan.sites]


def bytes_read(plan: Plan) -> int:
    """Bytes of inputs that the loops and sites read; each span reads its inputs once."""
    total = 0
    for span in plan.spans:
        total += span.count * sum(ITEM_SIZE[dtype] for dtype, _ in _loads(span.program))
    for piece in plan.sites:
        loads = _loads(piece.program)
        total += sum(ITEM_SIZE[dtype] * math.prod(shape) for dtype, shape in loads)
    return total


def _loads(program: Program) -> list[tuple[str, tuple[int, ...]]]:
    found = {i.attrs[0]: (i.dtype, i.shape) for i in program.instrs if i.op == "load"}
    return list(found.values())


def _flops(plan: Plan) -> int:
    spans = sum(flops(span.program, span.count) for span in plan.spans)
    return spans + sum(flops(piece.program) for piece in plan.sites)
