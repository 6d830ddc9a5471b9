"""A plan as plain data: what to compute, from which tensors, into which places. It can be pickled,
and run in another process with the same bytes as here."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import TypeAlias

from pemlang.dataclass import dataclass
from pemlang.kernels.builder import KernelCall
from pemlang.kernels.program import Program
from pemlang.kernels.step import Shape
from pemlang.tensorfiles.reference import TensorRef


@dataclass(frozen=True, slots=True)
class TensorSink:
    """Where a program writes: a tensor of an output, both by number."""

    output: int
    tensor: int


@dataclass(frozen=True, slots=True)
class NumberSink:
    """Where a program tells numbers.

    Attributes:
        output: what it is made for, by number.
        key: what whoever made the plan knows them by.
    """

    output: int
    key: Hashable


@dataclass(frozen=True, slots=True)
class TruncationKey:
    """What a truncation is known by: the key of its node, its site, and how far the rank came
    down."""

    node: str
    site: str
    by: int


Sink: TypeAlias = TensorSink | NumberSink

SiteCall: TypeAlias = KernelCall[TensorRef, Sink]
"""A program over the whole tensors of one site, or over some that are like many others."""


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """A tensor of an output.

    Attributes:
        key, dtype, shape: as its file says.
        start: its first byte.
        factor: what it is of an adapter, such as `a`, of which what rounding changes is told; for
            a head its key in the inputs.
    """

    key: str
    dtype: str
    shape: Shape
    start: int
    factor: str


@dataclass(frozen=True)
class OutputFile:
    """A file of tensors: its first bytes, the places of its tensors, and its size."""

    header: bytes
    tensors: tuple[TensorPlace, ...]
    size: int


@dataclass(frozen=True)
class FusedLoop:
    """Tensors that lie one after the other in every input and every output and have one program:
    one loop.

    Attributes:
        calls: the tensors with the number of elements in each.
        program: what to do.
        constants: of the first tensor; of all of them, unless the program needs whole tensors.
        inputs: the first tensor's references.
        outputs: the first tensor's output, and its first byte there, for each slot.
        count: elements in all.
    """

    calls: tuple[tuple[SiteCall, int], ...]
    program: Program
    constants: tuple[float, ...]
    inputs: tuple[TensorRef, ...]
    outputs: tuple[tuple[int, int], ...]
    count: int

    @cached_property
    def ends(self) -> list[int]:
        """Where each tensor ends, in elements."""
        return list(accumulate(size for _, size in self.calls))


@dataclass(frozen=True)
class HeadCopy:
    """A head: bytes kept as they are, if all adapters of an output agree on them; or their mean.

    Attributes:
        output, tensor: where it goes.
        sources: the same tensor in each adapter.
        mean: whether it is their mean, in float64 and rounded once.
    """

    output: int
    tensor: int
    sources: tuple[TensorRef, ...]
    mean: bool = False


@dataclass(frozen=True)
class Plan:
    """All of a build, or of what is measured before it.

    Attributes:
        outputs: the files.
        loops: over elements.
        sites: programs over the whole tensors of one site.
        copies: heads.
    """

    outputs: tuple[OutputFile, ...] = ()
    loops: tuple[FusedLoop, ...] = ()
    sites: tuple[SiteCall, ...] = ()
    copies: tuple[HeadCopy, ...] = ()

    def place(self, sink: TensorSink) -> TensorPlace:
        """The tensor that a program writes to."""
        return self.outputs[sink.output].tensors[sink.tensor]


@dataclass(frozen=True)
class PlanPart:
    """Some files of a plan that are made by themselves.

    Attributes:
        files: their numbers.
        plan: what makes them. It has the other files too, by the same numbers, and writes nothing
            there.
    """

    files: tuple[int, ...]
    plan: Plan


def separated(plan: Plan) -> list[PlanPart]:
    """A plan in parts, as many as there can be, in the order of their first files."""
    leads = list(range(len(plan.outputs)))

    def lead(file: int) -> int:
        while leads[file] != file:
            file = leads[file]
        return file

    def joined(files: Iterable[int]) -> int:
        first, *others = sorted(set(map(lead, files)))
        for other in others:
            leads[other] = first
        return first

    for loop in plan.loops:
        joined(file for file, _ in loop.outputs)
    for call in plan.sites:
        joined(_files_of(call))
    members: dict[int, list[int]] = {}
    for file in range(len(plan.outputs)):
        members.setdefault(lead(file), []).append(file)
    loops: dict[int, list[FusedLoop]] = {first: [] for first in members}
    sites: dict[int, list[SiteCall]] = {first: [] for first in members}
    copies: dict[int, list[HeadCopy]] = {first: [] for first in members}
    for loop in plan.loops:
        loops[lead(loop.outputs[0][0])].append(loop)
    for call in plan.sites:
        sites[lead(_files_of(call)[0])].append(call)
    for copy in plan.copies:
        copies[lead(copy.output)].append(copy)
    others = [replace(file, header=b"") for file in plan.outputs]
    parts = []
    for first, files in members.items():
        outputs = list(others)
        for file in files:
            outputs[file] = plan.outputs[file]
        own = Plan(tuple(outputs), tuple(loops[first]), tuple(sites[first]), tuple(copies[first]))
        parts.append(PlanPart(tuple(files), own))
    return parts


def _files_of(call: SiteCall) -> list[int]:
    """The files that a call writes to; where it only tells numbers, the one that they are told
    of."""
    written = [sink.output for sink in call.outputs if isinstance(sink, TensorSink)]
    return written or [sink.output for sink in call.outputs]
