"""What a build is going to do, before it reads a tensor: programs, the spans and sites they run
over, the files they write, and the most memory that takes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault
from pemlang.execute.result import OutputFailed
from pemlang.formats.adapter import Adapter
from pemlang.formats.gguf_names import Swap
from pemlang.formats.holding import (
    default_dtype,
    hold_dtype,
    hold_heads,
    hold_names,
    names_of_sites,
)
from pemlang.formats.readers import OutputReader
from pemlang.formats.record import (
    AdapterSpec,
    Format,
    OutputLayout,
    OutputTensor,
)
from pemlang.graph.leaves import Stored, adapters_of
from pemlang.graph.lowering import Truncation
from pemlang.graph.node import AdapterNode, ModelNode, TensorsNode
from pemlang.kernels.builder import Builder, KernelCall, Value
from pemlang.kernels.plan import (
    FusedLoop,
    HeadCopy,
    NumberSink,
    OutputFile,
    Plan,
    PlanPart,
    Sink,
    SiteCall,
    TensorPlace,
    TensorSink,
    TruncationKey,
    separated,
)
from pemlang.lower.lowering import Lowering
from pemlang.modules import Shapes, SiteValues
from pemlang.modules.lora import padded
from pemlang.modules.record import SiteBuilder
from pemlang.tensorfiles.container import new_start
from pemlang.tensorfiles.gguf import Scalar
from pemlang.tensorfiles.reference import TensorRef
from pemlang.tensorfiles.safetensors import number_bytes


@dataclass(frozen=True)
class OutputRequest:
    """An adapter or a model to be made.

    Attributes:
        lowering: of its graph.
        node: it.
        leaves: what it is made from.
        heads: leaves with equal heads; the first one's are kept.
        dtype: of the factors; the inputs' own when None.
        metadata: of its tensors' file.
        format: of its files.
        name: see AdapterSpec.
        shard, tokenizer, reader: see AdapterSpec.
        mean_heads: whether the mean of the heads is kept, and they need not be equal.
    """

    lowering: Lowering
    node: TensorsNode
    leaves: Sequence[Stored]
    heads: Sequence[Stored]
    dtype: str | None
    metadata: Mapping[str, str]
    format: Format
    name: str
    shard: int | None = None
    tokenizer: Stored | None = None
    reader: OutputReader | None = None
    mean_heads: bool = False


@dataclass(frozen=True)
class PlannedOutput:
    """An output, but for the numbers in its tensors.

    Attributes:
        format, layout: its files.
        numbers: the numbers of its files of tensors in the plan.
        ranks, scales: those of each site that is written; 0 and 1 of what has none.
        heads: adapters whose heads have to be equal, or whose mean is kept.
        mean_heads: see OutputRequest.
        idle: it does nothing whatever its tensors hold: every coefficient or scale is zero.
    """

    format: Format
    layout: OutputLayout
    numbers: range
    ranks: Mapping[str, int]
    scales: Mapping[str, float]
    heads: Sequence[Adapter]
    idle: bool
    mean_heads: bool = False

    @cached_property
    def swaps(self) -> Mapping[str | None, Swap]:
        """The sites whose rows stand in another order in its files."""
        return {x.site: x.swap for x in self.layout.tensors if x.swap is not None}


@dataclass(frozen=True)
class BuildPlan:
    """What a build does: for whatever runs it, and for whoever asked for it."""

    plan: Plan
    outputs: Sequence[PlannedOutput]

    def size(self, index: int) -> int:
        """Bytes of the files of tensors of an output."""
        return sum(self.plan.outputs[number].size for number in self.outputs[index].numbers)

    def owner(self, file: int) -> int:
        """The output that a file of the plan belongs to."""
        return next(i for i, output in enumerate(self.outputs) if file in output.numbers)

    def parts(self) -> list[PlanPart]:
        """The plan in parts that are made one after the other, so that what is finished is worth
        keeping: all of it at once, unless an output has several files."""
        if all(len(output.numbers) == 1 for output in self.outputs):
            return [PlanPart(tuple(range(len(self.plan.outputs))), self.plan)]
        return separated(self.plan)


def make_plan(requests: Sequence[OutputRequest]) -> BuildPlan:
    """The plan of some outputs. One program serves all outputs at a site, so that they share what
    they read, and all sites whose tensors are alike.

    Raises:
        OutputFailed: a format that cannot say what an output is (PEM0421), and what is wrong with
            tensors that measured numbers and energies are read from.
    """
    groups = [_SiteGroup(sites, requests) for sites in _alike(requests)]
    planned: list[PlannedOutput] = []
    files: list[OutputFile] = []
    for index, request in enumerate(requests):
        values = {
            site: group.values[index]
            for group in groups
            if index in group.values
            for site in group.sites
        }
        try:
            planned.append(_planned(request, dict(sorted(values.items())), len(files)))
        except Fault as fault:
            raise OutputFailed(index, fault) from None
        layout = planned[-1].layout
        metadata = {**layout.metadata, **request.metadata}
        files += [_file(name, tensors, metadata) for name, tensors in layout.files.items()]
    groups = [part for group in groups for part in group.split(planned)]
    places = [_places(output) for output in planned]
    frame = Plan(tuple(files))
    calls = [call for group in groups for call in group.calls(planned, places)]
    plan = replace(
        frame,
        loops=tuple(joined_loops(frame, [call for call in calls if call.program.elementwise])),
        sites=tuple(call for call in calls if not call.program.elementwise),
        copies=tuple(_copies(planned)),
    )
    return BuildPlan(plan, planned)


def _alike(requests: Sequence[OutputRequest]) -> list[list[str]]:
    """The sites of all outputs, those together that one program will do for."""
    groups: dict[Hashable, list[str]] = {}
    for site in sorted({site for request in requests for site in request.node.shapes}):
        key = tuple(
            request.lowering.alike(request.node, site) if site in request.node.shapes else None
            for request in requests
        )
        groups.setdefault(key, []).append(site)
    return list(groups.values())


FactorPlaces = Mapping[tuple[str | None, str], TensorSink]
"""Where each factor of an output goes, by its site and what it is called."""


def _places(output: PlannedOutput) -> FactorPlaces:
    return {
        (tensor.site, tensor.factor): TensorSink(file, number)
        for file, tensors in zip(output.numbers, output.layout.files.values(), strict=True)
        for number, tensor in enumerate(tensors)
    }


def _planned(request: OutputRequest, values: Mapping[str, SiteValues], first: int) -> PlannedOutput:
    """What the files of an output are, from its parameters at each site where it is not zero;
    `first` is the number of the first in the plan."""
    node, type_ = request.node, request.node.type
    inputs, heads = adapters_of(request.leaves), adapters_of(request.heads)
    is_zero = not values
    if is_zero:  # an adapter without tensors would not load
        ranks = {site: 1 if type_.record(site).ranked else 0 for site in type_.shapes}
        scales = dict.fromkeys(ranks, 1.0)
    else:
        ranks = {site: part.rank for site, part in values.items()}
        scales = {site: node.scales.get(site, 1.0) for site in ranks}
        for site in request.format.needed(type_.shapes, ranks):
            ranks.setdefault(site, 1)
            scales.setdefault(site, 1.0)
    idle = is_zero or (type_.factored and not any(scales.values()))
    record = request.format
    if type_.ranked:
        own = {site: rank for site, rank in ranks.items() if type_.record(site).ranked}
        own = dict(record.stored_ranks(type_.shapes, own, request.reader))
        at = {site: scales[site] for site in own}
        ranks |= own
        scales |= record.stored_scales(type_.shapes, own, at, request.reader)
    model = node if isinstance(node, ModelNode) else None
    origin = None if model is None else model.origin.adapter
    spec = AdapterSpec(
        Shapes({site: type_.shapes[site] for site in ranks}),
        ranks,
        scales,
        type_.base,
        any(adapter.fan_in_fan_out for adapter in inputs),
        request.dtype or default_dtype(inputs),
        request.dtype is not None,
        inputs,
        request.name,
        heads,
        origin,
        {} if model is None else {site: model.entry(site) for site in ranks},
        request.shard,
        None if request.tokenizer is None else request.tokenizer.adapter,
        None if model is None else model.joined,
        request.reader,
    )
    # The check did so for the format of the inputs; whoever asks may have chosen another.
    hold_names(record, inputs, spec.shapes)
    record.hold_inputs(inputs)
    hold_heads(record, heads)
    hold_dtype(record, spec.dtype)
    record.hold(spec.shapes, [module for adapter in heads[:1] for module in adapter.whole_modules])
    names = names_of_sites(record, inputs, spec.shapes)
    layout = record.layout(spec.with_names(names)).with_sites(names)
    numbers = range(first, first + len(layout.files))
    return PlannedOutput(record, layout, numbers, ranks, scales, heads, idle, request.mean_heads)


def _file(name: str, layout: Sequence[OutputTensor], metadata: Mapping[str, Scalar]) -> OutputFile:
    header, starts, size = new_start(name, ((t.key, t.dtype, t.shape) for t in layout), metadata)
    for tensor in (tensor for tensor in layout if tensor.value is not None):
        zero = bytes(tensor.size)
        header += number_bytes(tensor.dtype, tensor.value) if tensor.value else zero
    tensors = tuple(
        TensorPlace(tensor.key, tensor.dtype, tensor.shape, start, tensor.factor)
        for tensor, start in zip(layout, starts, strict=True)
    )
    return OutputFile(header, tensors, size)


def _copies(planned: Sequence[PlannedOutput]) -> Iterator[HeadCopy]:
    for output in planned:
        for (site, factor), sink in _places(output).items():
            if site is None:
                sources = tuple(adapter.reference(factor) for adapter in output.heads)
                yield HeadCopy(sink.output, sink.tensor, sources, output.mean_heads)


class _SiteGroup:
    """Sites that one program will do for; it is made at the first of them.

    Attributes:
        sites: their names.
        values: by output, its parameters there; none where it is zero or has no such site.
    """

    def __init__(self, sites: Sequence[str], requests: Sequence[OutputRequest]) -> None:
        self.sites, self._requests = sites, requests
        self.values: dict[int, SiteValues] = {}
        self._builder: SiteBuilder = Builder()
        for index, request in enumerate(requests):
            if sites[0] in request.node.shapes:
                self._lower(index, request)

    def split(self, planned: Sequence[PlannedOutput]) -> list[_SiteGroup]:
        """Groups of those of its sites that are stored alike too."""
        stored: dict[Hashable, list[str]] = {}
        for site in self.sites:
            key = tuple((x.ranks.get(site), x.scales.get(site), x.swaps.get(site)) for x in planned)
            stored.setdefault(key, []).append(site)
        if len(stored) == 1:
            return [self]
        return [_SiteGroup(sites, self._requests) for sites in stored.values()]

    def _lower(self, index: int, request: OutputRequest) -> None:
        truncations: dict[AdapterNode, Truncation] = {}
        site = self.sites[0]
        try:
            [part] = request.lowering.lower(self._builder, [request.node], site, truncations)
        except Fault as fault:
            raise OutputFailed(index, fault) from None
        if part is not None:
            self.values[index] = part
        for node, truncation in truncations.items():
            key = TruncationKey(node.key, site, truncation.by)
            self._builder.report(truncation.cost, (index, key))

    def calls(
        self,
        planned: Sequence[PlannedOutput],
        places: Sequence[FactorPlaces],
    ) -> Iterator[SiteCall]:
        """The program of each site, with its own tensors in the slots."""
        site = self.sites[0]
        for index, request in enumerate(self._requests):
            if site in request.node.shapes and site in planned[index].ranks:
                self._store(index, request, planned[index], places[index])
        made = self._builder.calls()
        places_of = {reference: index for index, reference in enumerate(self._references(site))}
        for here in self.sites:
            own = self._references(here)
            for call in made:
                inputs, constants = call.inputs, tuple(map(float, call.constants))
                if here != site:
                    inputs = tuple(own[places_of[reference]] for reference in inputs)
                    constants = call.constants_at(here)
                yield KernelCall(
                    call.program,
                    inputs,
                    constants,
                    tuple(_sink_at(sink, here, planned, places) for sink in call.outputs),
                    call.shape,
                )

    def _store(
        self,
        index: int,
        request: OutputRequest,
        planned: PlannedOutput,
        places: FactorPlaces,
    ) -> None:
        site = self.sites[0]
        record = request.node.type.record(site)
        part = self.values.get(index) or record.zeros(
            self._builder, request.node.shapes[site], 1, 1.0
        )
        scale = planned.scales[site]
        if part.scale != scale:
            part = record.total(self._builder, [(1.0, part)], scale)
        if record.ranked and part.rank < planned.ranks[site]:
            part = padded(self._builder, part, planned.ranks[site])
        for factor, value in zip(record.factors, part.values, strict=True):
            sink = places[site, factor]
            tensors = list(planned.layout.files.values())[sink.output - planned.numbers.start]
            tensor = tensors[sink.tensor]
            stored = _as_stored(self._builder, value, tensor)
            self._builder.store(stored, (index, factor), tensor.dtype, tensor.around)

    def _references(self, site: str) -> list[TensorRef]:
        """The tensors of all inputs at a site, in one order at every site of the group."""
        adapters = [
            adapter
            for request in self._requests
            if site in request.node.shapes
            for adapter in request.lowering.adapters(request.node)
        ]
        return [
            adapter.reference(key)
            for adapter in adapters
            for key in adapter.layout.factors.get(site, ())
        ] + [adapter.statistic(key) for adapter in adapters for key in adapter.statistics_at(site)]


def _as_stored(builder: SiteBuilder, value: Value, tensor: OutputTensor) -> Value:
    """A factor as its file has it: its rows in another order, or turned."""
    if tensor.swap is not None:
        rows, *rest = value.shape
        blocks, parts = tensor.swap
        seen = (blocks, parts, rows // blocks // parts, math.prod(rest))
        seen_value = builder.einsum("rc->rc", (value,), seen)
        value = builder.einsum("bprc->brpc", (seen_value,), (rows, *rest))
    return builder.einsum("ij->ji", (value,), tensor.shape) if tensor.turned else value


def _sink_at(
    sink: Sink | Hashable,
    site: str,
    planned: Sequence[PlannedOutput],
    places: Sequence[FactorPlaces],
) -> Sink:
    """A sink of the program of one site as that of another."""
    assert isinstance(sink, tuple)
    index, what = sink
    if isinstance(what, TruncationKey):
        return NumberSink(planned[index].numbers.start, replace(what, site=site))
    return places[index][site, what]


# --- loops -----------------------------------------------------------------------------------


def joined_loops(plan: Plan, calls: Sequence[SiteCall]) -> list[FusedLoop]:
    """Calls that follow each other everywhere, joined. Every byte is still written once."""
    ready = sorted((_starts(plan, call), index) for index, call in enumerate(calls))
    runs: list[list[FusedLoop]] = []
    for starts, index in ready:
        loop = _loop(calls[index], starts)
        if runs and _follows(runs[-1], loop):
            runs[-1].append(loop)
        else:
            runs.append([loop])
    return [_joined(run) for run in runs]


def _starts(plan: Plan, call: SiteCall) -> tuple[tuple[int, int], ...]:
    sinks = [sink for sink in call.outputs if isinstance(sink, TensorSink)]
    return tuple((sink.output, plan.place(sink).start) for sink in sinks)


def _loop(call: SiteCall, starts: tuple[tuple[int, int], ...]) -> FusedLoop:
    count = math.prod(call.shape)
    return FusedLoop(((call, count),), call.program, call.constants, call.inputs, starts, count)


def _joined(run: Sequence[FusedLoop]) -> FusedLoop:
    calls = tuple(call for loop in run for call in loop.calls)
    return replace(run[0], calls=calls, count=sum(loop.count for loop in run))


def _follows(run: Sequence[FusedLoop], after: FusedLoop) -> bool:
    """Whether a loop goes on where the last of some others ends, in every file."""
    before = run[-1]
    if before.program != after.program:
        return False
    if before.constants != after.constants and not after.program.whole:
        return False
    reads, writes = after.program.widths
    return all(
        last.start + before.count * width == next_.start and last.file == next_.file
        for last, next_, width in zip(before.inputs, after.inputs, reads, strict=True)
    ) and all(
        last[0] == next_[0] and last[1] + before.count * width == next_[1]
        for last, next_, width in zip(before.outputs, after.outputs, writes, strict=True)
    )
