"""What a build is going to do, before it reads a tensor: programs, the spans and sites they run
over, the files they write, and the most memory that takes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from pemlang.diagnostics import Fault
from pemlang.formats.peft import statistics_at
from pemlang.formats.peft_layout import PeftLayout, Tensor, peft_layout
from pemlang.graph.node import Node
from pemlang.graph.normal import adapter_type
from pemlang.kernels.program import Builder, Piece, Program, slot
from pemlang.lower.evaluate import Evaluator
from pemlang.modules.factors import Factors, zeros
from pemlang.ops.record import Cut
from pemlang.tensorfiles.reader import Source, source, statistic
from pemlang.tensorfiles.safetensors import ITEM_SIZE, new_header


@dataclass(frozen=True)
class Wanted:
    """An adapter to be made.

    Attributes:
        evaluator: of its graph.
        node: the adapter.
        leaves: what it is made from.
        heads: leaves with equal heads; the first one's are kept.
        dtype: of the factors; the inputs' own when None.
        metadata: of its safetensors file.
    """

    evaluator: Evaluator
    node: Node
    leaves: Sequence[Node]
    heads: Sequence[Node]
    dtype: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sink:
    """Where a program writes: a tensor of an output."""

    output: int
    tensor: int


@dataclass(frozen=True, slots=True)
class CutSink:
    """Where a program says what a truncation of an output costs."""

    output: int
    node: Node
    site: str
    by: int


class Failed(Exception):
    """Something is wrong with one output: a Fault, or an OSError."""

    def __init__(self, output: int, error: Exception) -> None:
        super().__init__(output)
        self.output, self.error = output, error


@dataclass(frozen=True)
class OutputPlan:
    """One file of tensors.

    Attributes:
        layout: its tensors and its config.
        header: its first bytes.
        starts: where each tensor begins.
        size: of the file.
    """

    layout: PeftLayout
    header: bytes
    starts: Sequence[int]
    size: int


@dataclass
class Span:
    """Tensors that lie one after the other in every input and every output and have one program:
    one loop.

    Attributes:
        pieces: the tensors with the number of elements in each.
        program, consts: what to do.
        inputs: the first tensor's sources.
        outputs: the first tensor's output and its first byte there.
        count: elements in all.
    """

    pieces: list[tuple[Piece, int]]
    program: Program
    consts: tuple[float, ...]
    inputs: tuple[Source, ...]
    outputs: tuple[tuple[int, int], ...]
    count: int


@dataclass(frozen=True)
class Copy:
    """A head: bytes kept as they are, if all adapters of an output agree on them.

    Attributes:
        output, tensor: where it goes.
        sources: the same tensor in each adapter.
    """

    output: int
    tensor: int
    sources: tuple[Source, ...]


@dataclass
class Plan:
    """All of a build.

    Attributes:
        outputs: the files.
        spans: loops over elements.
        sites: programs over the whole tensors of one site.
        copies: heads.
    """

    outputs: list[OutputPlan]
    spans: list[Span] = field(default_factory=list)
    sites: list[Piece] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)

    def tensor(self, sink: Sink) -> Tensor:
        """The tensor that a program writes to."""
        return self.outputs[sink.output].layout.tensors[sink.tensor]

    def start(self, sink: Sink) -> int:
        """Its first byte."""
        return self.outputs[sink.output].starts[sink.tensor]


def make_plan(wanted: Sequence[Wanted]) -> Plan:
    """The plan of some outputs. One program serves all outputs at a site, so that they share what
    they read, and all sites whose tensors are alike.

    Raises:
        Failed: PEM0421 two layers of one nn.MultiheadAttention that differ; and what is wrong with
            tensors that measured numbers and energies are read from.
    """
    groups = [_Group(sites, wanted) for sites in _alike(wanted)]
    plan = Plan([])
    for index, one in enumerate(wanted):
        factors = {
            site: group.factors[index]
            for group in groups
            if index in group.factors
            for site in group.sites
        }
        try:
            plan.outputs.append(_output(one, dict(sorted(factors.items()))))
        except Fault as fault:
            raise Failed(index, fault) from None
    places = [_places_of(one) for one in plan.outputs]
    pieces = [piece for group in groups for piece in group.pieces(plan, places)]
    plan.spans = _spans(plan, [piece for piece in pieces if piece.program.elementwise])
    plan.sites = [piece for piece in pieces if not piece.program.elementwise]
    for index, output in enumerate(plan.outputs):
        for number, tensor in enumerate(output.layout.tensors):
            if tensor.site is None:
                sources = tuple(source(head, tensor.what) for head in output.layout.heads)
                plan.copies.append(Copy(index, number, sources))
    return plan


def _alike(wanted: Sequence[Wanted]) -> list[list[str]]:
    """The sites of all outputs, those together that one program will do for."""
    found: dict[Hashable, list[str]] = {}
    for site in sorted({site for one in wanted for site in adapter_type(one.node).shapes}):
        key = tuple(
            one.evaluator.alike(one.node, site) if site in adapter_type(one.node).shapes else None
            for one in wanted
        )
        found.setdefault(key, []).append(site)
    return list(found.values())


def _places_of(output: OutputPlan) -> dict[tuple[str | None, str], int]:
    """The number of each factor's tensor."""
    return {(t.site, t.what): number for number, t in enumerate(output.layout.tensors)}


def _output(one: Wanted, factors: Mapping[str, Factors]) -> OutputPlan:
    layout = peft_layout(one.node, one.leaves, one.heads, one.dtype, factors)
    said = [(tensor.key, tensor.dtype, tensor.shape) for tensor in layout.tensors]
    return OutputPlan(layout, *new_header(said, one.metadata))


class _Group:
    """Sites that one program will do for; it is made at the first of them.

    Attributes:
        sites: their names.
        factors: by output, its parameters there; none where it is zero or has no such site.
    """

    def __init__(self, sites: Sequence[str], wanted: Sequence[Wanted]) -> None:
        self.sites, self._wanted = sites, wanted
        self.factors: dict[int, Factors] = {}
        self._builder = Builder()
        for index, one in enumerate(wanted):
            if sites[0] in adapter_type(one.node).shapes:
                self._lower(index, one)

    def _lower(self, index: int, one: Wanted) -> None:
        cuts: dict[Node, Cut] = {}
        try:
            [part] = one.evaluator.lower(self._builder, [one.node], self.sites[0], cuts)
        except Fault as fault:
            raise Failed(index, fault) from None
        if part is not None:
            self.factors[index] = part
        for node, cut in cuts.items():
            self._builder.report(cut.cost, CutSink(index, node, self.sites[0], cut.by))

    def pieces(
        self, plan: Plan, places: Sequence[Mapping[tuple[str | None, str], int]]
    ) -> Iterator[Piece]:
        """The program of each site, with its own tensors in the slots."""
        for index, one in enumerate(self._wanted):
            for what in "abl":
                number = places[index].get((self.sites[0], what))
                if number is not None:
                    self._store(index, one, what, plan.tensor(Sink(index, number)).dtype)
        made = self._builder.pieces()
        order = {what: index for index, what in enumerate(self._sources(self.sites[0]))}
        slots = [[order[what] for what in piece.inputs] for piece in made]  # type: ignore[index]
        for site in self.sites:
            own = self._sources(site)

            def sink(found: Hashable, site: str = site) -> Hashable:
                if isinstance(found, CutSink):
                    return replace(found, site=site)
                assert isinstance(found, tuple)
                index, what = found
                return Sink(index, places[index][site, what])

            for piece, inputs in zip(made, slots, strict=True):
                yield replace(
                    piece,
                    inputs=tuple(own[index] for index in inputs),
                    outputs=tuple(map(sink, piece.outputs)),
                )

    def _store(self, index: int, one: Wanted, what: str, dtype: str) -> None:
        part = self.factors.get(index) or _nothing(self._builder, one.node, self.sites[0])
        value = part.out if what == "b" else part.a
        self._builder.store(value, (index, what), dtype, 1.0 if what == "l" else 0.0)

    def _sources(self, site: str) -> list[Source]:
        """The tensors of all inputs at a site, in one order at every site of the group."""
        return [
            source(adapter, key)
            for one in self._wanted
            for adapter in one.evaluator.adapters(one.node)
            for key in adapter.layout.factors.get(site, ())
        ] + [
            statistic(adapter, key)
            for one in self._wanted
            for adapter in one.evaluator.adapters(one.node)
            for key in statistics_at(adapter, site)
        ]


def _nothing(builder: Builder, node: Node, site: str) -> Factors:
    """Parameters of an adapter that is zero everywhere."""
    shape = adapter_type(node).shapes[site]
    if adapter_type(node).method == "ia3":
        return Factors(builder.const(0.0, "F64", shape.a), None)
    return zeros(builder, shape.a, shape.b, 1, 1.0)


def _spans(plan: Plan, pieces: Sequence[Piece]) -> list[Span]:
    """Pieces that follow each other everywhere, joined. Every byte is still written once."""
    found: list[Span] = []
    for piece in sorted(pieces, key=lambda piece: _places(plan, piece)):
        span = _span(plan, piece)
        if found and _follows(found[-1], span):
            found[-1].pieces += span.pieces
            found[-1].count += span.count
        else:
            found.append(span)
    return found


def _places(plan: Plan, piece: Piece) -> tuple[tuple[int, int], ...]:
    sinks = [sink for sink in piece.outputs if isinstance(sink, Sink)]
    return tuple((sink.output, plan.start(sink)) for sink in sinks)


def _span(plan: Plan, piece: Piece) -> Span:
    count = 1
    for size in piece.shape:
        count *= size
    sources = tuple(what for what in piece.inputs if isinstance(what, Source))
    places = _places(plan, piece)
    return Span([(piece, count)], piece.program, piece.consts, sources, places, count)


def _follows(before: Span, after: Span) -> bool:
    """Whether a span goes on where another ends, in every file."""
    same = before.program == after.program and before.consts == after.consts
    if not same or after.program.reduces:
        return False
    ins, outs = _widths(after.program)
    return all(
        one.start + before.count * width == other.start and one.file == other.file
        for one, other, width in zip(before.inputs, after.inputs, ins, strict=True)
    ) and all(
        one[0] == other[0] and one[1] + before.count * width == other[1]
        for one, other, width in zip(before.outputs, after.outputs, outs, strict=True)
    )


@lru_cache(maxsize=64)
def _widths(program: Program) -> tuple[list[int], list[int]]:
    """Bytes of an element, for each input and output slot."""
    found = {i.attrs[0]: ITEM_SIZE[i.dtype] for i in program.instrs if i.op in ("load", "store")}
    ins = sorted((slot(name), width) for name, width in found.items() if name[0] == "i")
    outs = sorted((slot(name), width) for name, width in found.items() if name[0] == "o")
    return [width for _, width in ins], [width for _, width in outs]
