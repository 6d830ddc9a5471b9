"""Running a plan: inputs are read, and outputs written, a block or a site at a time.

Every part of the work writes to a place of its own, and what is looked at on the way is put
together in the order of the plan: neither threads nor memory change a byte of the results.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pemlang.diagnostics import Fault, visible
from pemlang.execute import elementwise, matrices
from pemlang.execute.elementwise import LOOKED_AT, Arena, Kernel, block_of, rounded
from pemlang.formats.peft import FLOATS
from pemlang.kernels.lowrank import too_large_to_compute
from pemlang.kernels.program import Piece, Program, slot
from pemlang.kernels.rounding import NotFinite, Rounding, Seen, Size, look, settled
from pemlang.lower.evaluate import hold, run_piece
from pemlang.lower.plan import Copy, CutSink, Failed, Plan, Sink, Span
from pemlang.tensorfiles.dtypes import Array, decoded
from pemlang.tensorfiles.reader import Files, Source, not_finite
from pemlang.tensorfiles.safetensors import ITEM_SIZE

Bits = NDArray[np.generic]

RUN = 8
"""Blocks that a thread takes at a time."""


class Target(Protocol):
    """Takes the bytes of an output at any place, from any thread."""

    def write(self, start: int, data: memoryview) -> None:
        """Write bytes from a place on."""


@dataclass
class FileTarget:
    """An open file."""

    handle: int

    def write(self, start: int, data: memoryview) -> None:
        """Write bytes from a place on; raises OSError."""
        while data:
            count = os.pwrite(self.handle, data, start)
            start, data = start + count, data[count:]


@dataclass
class MemoryTarget:
    """The bytes of a file, in memory."""

    data: bytearray

    def write(self, start: int, data: memoryview) -> None:
        """Write bytes from a place on."""
        self.data[start : start + len(data)] = data


@dataclass
class Report:
    """What was seen of one output while it was written.

    Attributes:
        rounding: by factor: `a`, `b`, `l`.
        cuts: what truncation cost: by node and site what was lost, the norm, and how far the rank
            came down.
    """

    rounding: dict[str, Rounding] = field(default_factory=dict)
    cuts: dict[Any, dict[str, tuple[float, float, int]]] = field(default_factory=dict)

    @property
    def worst_rounding(self) -> float:
        """How much the dtype of the file changes it, relative to its norm: the larger of A and B,
        or l − 1."""
        return max((found.share for found in self.rounding.values()), default=0.0)

    @property
    def is_zero(self) -> bool:
        """Whether one of its factors is zero everywhere."""
        return not all(found.kept for found in self.rounding.values())


class Device(Protocol):
    """Runs elementwise spans elsewhere than on the threads of the processors."""

    def reserve(self, spans: Sequence[Span], room: int) -> int:
        """Bytes of working memory that it takes for some spans, at most `room`."""

    def takes(self, span: Span) -> bool:
        """Whether it runs a span."""

    def run(self, part: SpanPart) -> None:
        """Run all of a span that it takes; raises what `SpanPart.run` does."""


@dataclass(frozen=True)
class _Job:
    """Work of one thread for a while: a part of a span, a site, or a head."""

    what: Span | Piece | Copy
    first: int = 0
    count: int = 0


@dataclass
class _Result:
    """What a job saw: by tensor, and the costs of truncations."""

    output: int = 0
    seen: dict[Sink, Seen] = field(default_factory=dict)
    cuts: list[tuple[CutSink, float, float]] = field(default_factory=list)
    failed: Failed | None = None

    def see(self, sink: Sink, one: Seen) -> None:
        known = self.seen.setdefault(sink, Seen())
        known.rounding.add(one.rounding)
        known.size.add(one.size)


def run(
    plan: Plan,
    files: Files,
    targets: Sequence[Target],
    threads: int,
    budget: int,
    tick: Callable[[int, int], None] = lambda done, total: None,
    device: Device | None = None,
) -> list[Report]:
    """Make all outputs of a plan.

    Args:
        plan: what to do.
        files: where inputs are read from.
        targets: take the outputs' bytes, in the plan's order; the headers are written here too.
        threads: at most this many at work.
        budget: bytes of working memory.
        tick: told of jobs done and jobs in all, from this thread.
        device: runs the spans it takes, driven by a thread of its own.

    Raises:
        Failed: of the first output in the order of the plan with something wrong: PEM0502 an
            input that is not finite, PEM0503 a number too large or too small, PEM0505 heads that
            differ, PEM0411 or PEM0412 a file that changed; OSError where it cannot be written.
        Fault: PEM0521 a budget too small.
    """
    if device is not None:
        room = min(budget // 2, budget - working_memory(plan, 1))
        budget -= device.reserve(plan.spans, room)
    jobs = list(_jobs(plan, device))
    threads = max(1, min(threads, len(jobs), affordable(plan, budget)))
    for one, target in zip(plan.outputs, targets, strict=True):
        target.write(0, memoryview(one.header))
    results: list[_Result | None] = [None] * len(jobs)
    away = [_taken(job.what, device) for job in jobs]
    queues = [iter([index for index, gone in enumerate(away) if not gone])] * threads
    queues += [iter([index for index, gone in enumerate(away) if gone])] * any(away)
    stop = threading.Event()
    told: SimpleQueue[bool] = SimpleQueue()  # whether a job is done, or a thread

    def work(queue: Iterator[int]) -> None:
        worker = _Worker(plan, files, targets, device)
        try:
            with np.errstate(all="ignore"):
                while not stop.is_set() and (index := next(queue, None)) is not None:
                    result = results[index] = worker.result(jobs[index])
                    if result.failed is not None:
                        stop.set()
                    told.put(True)
        finally:
            told.put(False)

    crew = [threading.Thread(target=work, args=(queue,), daemon=True) for queue in queues]
    for member in crew:
        member.start()
    try:
        finished, working = 0, len(crew)
        while working:
            if told.get():
                finished += 1
                tick(finished, len(jobs))
            else:
                working -= 1
    finally:
        stop.set()
        for member in crew:
            member.join()
    for result in results:
        if result is not None and result.failed is not None:
            raise result.failed
    return _reports(plan, [result for result in results if result is not None])


def working_memory(plan: Plan, threads: int) -> int:
    """The most bytes that running a plan takes at once beside the process itself."""
    sites = sorted((matrices.bytes_at_work(piece.program) for piece in plan.sites), reverse=True)
    copies = 2 * _COPY if plan.copies else 0
    # A thread keeps its blocks while it is at a site.
    return threads * (_blocks(plan) + max([*sites[:1], copies]))


def _blocks(plan: Plan) -> int:
    """Bytes of the blocks of a thread."""
    programs = {id(span.program): span.program for span in plan.spans}
    return elementwise.bytes_at_work(programs.values())


def affordable(plan: Plan, budget: int) -> int:
    """How many threads a budget has room for; raises PEM0521 where it has room for none."""
    one = working_memory(plan, 1)
    hold(one, budget)
    return budget // max(1, one)


def _taken(what: Span | Piece | Copy, device: Device | None) -> bool:
    return device is not None and isinstance(what, Span) and device.takes(what)


def _jobs(plan: Plan, device: Device | None) -> Iterator[_Job]:
    """The work in parts, the long ones first, so that threads end together."""
    for piece in sorted(plan.sites, key=lambda piece: -matrices.bytes_at_work(piece.program)):
        yield _Job(piece)
    for span in plan.spans:
        whole = span.program.reduces or _taken(span, device)
        step = span.count if whole else RUN * block_of(span.program)
        for first in range(0, span.count, max(1, step)):
            yield _Job(span, first, min(step, span.count - first))
    for copy in plan.copies:
        yield _Job(copy)


def _reports(plan: Plan, results: Sequence[_Result]) -> list[Report]:
    """What was seen of each output; raises Failed with PEM0503 for a tensor that its dtype cannot
    hold."""
    reports = [Report() for _ in plan.outputs]
    sizes: defaultdict[Sink, Size] = defaultdict(Size)
    for result in results:
        for sink, seen in result.seen.items():
            tensor = plan.tensor(sink)
            reports[sink.output].rounding.setdefault(tensor.what, Rounding()).add(seen.rounding)
            sizes[sink].add(seen.size)
        for at, lost, norm in result.cuts:
            found = reports[at.output].cuts.setdefault(at.node, {})
            found[at.site] = (lost, norm, at.by)
    for sink, size in sizes.items():
        fault = size.fault(plan.tensor(sink).dtype)
        if fault is not None:
            raise Failed(sink.output, fault)
    return reports


class _Worker:
    """Does jobs in one thread, with buffers of its own."""

    def __init__(
        self, plan: Plan, files: Files, targets: Sequence[Target], device: Device | None
    ) -> None:
        self._plan, self._files, self._targets, self._device = plan, files, targets, device
        self._arena = Arena(_blocks(plan))
        self._kernels: dict[int, Kernel] = {}

    def result(self, job: _Job) -> _Result:
        """What a job saw, or why it failed."""
        found = _Result()
        try:
            if isinstance(job.what, Span):
                part = SpanPart(self, job.what, job.first, job.count, found)
                if self._device is not None and self._device.takes(job.what):
                    self._device.run(part)
                else:
                    part.run()
            elif isinstance(job.what, Piece):
                self._site(job.what, found)
            else:
                found.output = job.what.output
                self._copy(job.what)
        except Exception as error:  # a thread has nobody to tell
            found.failed = Failed(found.output, error)
        return found

    def kernel(self, program: Program, consts: tuple[float, ...]) -> Kernel:
        """The kernel of a program, with its constants. All of them share their memory."""
        if len(self._kernels) == _KERNELS:
            self._kernels.clear()
        if id(program) not in self._kernels:
            self._kernels[id(program)] = Kernel(program, self._arena)
        found = self._kernels[id(program)]
        found.start(consts)
        return found

    @property
    def files(self) -> Files:
        return self._files

    @property
    def plan(self) -> Plan:
        return self._plan

    def write(self, output: int, start: int, bits: Bits) -> None:
        """Write an array to an output."""
        if bits.size:
            self._targets[output].write(start, bits.data.cast("B"))

    def _site(self, piece: Piece, found: _Result) -> None:
        found.output = first_output(piece)
        results = run_piece(piece, self._files)
        stores = {i.attrs[0]: i for i in piece.program.instrs if i.op == "store"}
        for index, sink in enumerate(piece.outputs):
            exact = results[index]
            if isinstance(sink, CutSink):
                found.cuts.append((sink, float(exact[0]), float(exact[1])))
                continue
            assert isinstance(sink, Sink)
            found.output = sink.output
            store = stores[f"out{index}"]
            around = piece.consts[slot(store.attrs[1])] if len(store.attrs) > 1 else 0.0
            bits, square = rounded(exact, store.dtype, around)
            seen = settled(square, exact.size, store.dtype, around)
            found.see(sink, seen or checked(exact.reshape(-1), bits, store.dtype, around))
            self.write(sink.output, self._plan.start(sink), bits)

    def _copy(self, copy: Copy) -> None:
        tensor = self._plan.outputs[copy.output].layout.tensors[copy.tensor]
        size = int(np.prod(tensor.shape, dtype=np.int64)) * ITEM_SIZE[tensor.dtype]
        start = self._plan.outputs[copy.output].starts[copy.tensor]
        first, *others = copy.sources
        for at in range(0, size, _COPY):
            part = np.empty(min(_COPY, size - at), "u1")
            self._files.read(first.file, first.start + at, part)
            other = np.empty_like(part)
            for source in others:
                self._files.read(source.file, source.start + at, other)
                if not np.array_equal(part, other):
                    raise Fault(
                        "PEM0505",
                        f"the adapters' heads differ in {visible(tensor.what)}: a sum has no "
                        "meaning there",
                        "choose whose to keep: with heads=NAME",
                    )
            if tensor.dtype in FLOATS:
                numbers = decoded(part.data, tensor.dtype, "F64")
                if not np.isfinite(numbers).all():
                    raise not_finite(first, numbers)
            self.write(copy.output, start + at, part)


_KERNELS = 256
"""Kernels that a thread keeps ready."""

_COPY = 1 << 20
"""Bytes of a head that are copied at a time."""


class SpanPart:
    """Some blocks of a span.

    Attributes:
        span, found: the span, and what was seen of it.
    """

    def __init__(self, worker: _Worker, span: Span, first: int, count: int, found: _Result) -> None:
        self._worker, self.span, self.found = worker, span, found
        self._first, self._last = first, first + count
        self._ends = list(accumulate(size for _, size in span.pieces))
        instrs = span.program.instrs
        self._loads = {slot(i.attrs[0]): i for i in instrs if i.op == "load"}
        self._stores = {slot(i.attrs[0]): i for i in instrs if i.op == "store"}

    def run(self) -> None:
        """All passes over all blocks."""
        kernel = self._worker.kernel(self.span.program, self.span.consts)
        for turn in range(kernel.passes):
            kept: list[list[float]] = []
            for at in range(self._first, self._last, kernel.block):
                size = min(kernel.block, self._last - at)
                self.found.output = self.span.outputs[0][0]
                kernel.read(turn, size, partial(self.fetch, at=at))
                if turn == kernel.passes - 1:
                    self._finish(kernel, at, size)
                else:
                    kept.append(kernel.run(turn, 0, size))
                    if kept[-1].pop() != 0:
                        self._blame_any(at, size)
            for number, index in enumerate(kernel.reduced(turn)):
                kernel.settle(index, [row[number] for row in kept])

    def _finish(self, kernel: Kernel, at: int, size: int) -> None:
        """Make the outputs of a block, tensor by tensor, and write them."""
        for piece, one, end in self.pieces(at, size):
            doubtful = []
            for index, square in enumerate(kernel.run(kernel.passes - 1, one, end)):
                seen = settled(square, end - one, *self._store(index))
                if seen is None:
                    doubtful.append(index)
                else:
                    self._see(piece, index, seen)
            if doubtful:
                self._look_closely(kernel, doubtful, at, one, end)
        for index in self._stores:
            self.write(index, at, kernel.output(index, 0, size))

    def _look_closely(
        self, kernel: Kernel, indices: Sequence[int], at: int, one: int, end: int
    ) -> None:
        """Look at the numbers of some output slots in a part of a block themselves."""
        for first in range(one, end, LOOKED_AT):
            last = min(end, first + LOOKED_AT)
            found = kernel.exact(first, last)
            for index in indices:
                if not self.span.program.linear and not np.isfinite(found[index]).all():
                    self._blame_any(at + first, last - first)
                self.look(index, at + first, found[index], kernel.output(index, first, last))

    def _blame_any(self, at: int, size: int) -> None:
        for _, one, end in self.pieces(at, size):
            self.blame(at + one, end - one)

    def _store(self, index: int) -> tuple[str, float]:
        """The dtype of an output slot, and what its numbers are stored around."""
        store = self._stores[index]
        around = self.span.consts[slot(store.attrs[1])] if len(store.attrs) > 1 else 0.0
        return store.dtype, around

    def _see(self, piece: Piece, index: int, seen: Seen) -> None:
        sink = piece.outputs[index]
        assert isinstance(sink, Sink)
        self.found.see(sink, seen)

    def fetch(self, index: int, out: Bits, at: int) -> None:
        """Read elements of an input slot from a place in the span on."""
        source = self.span.inputs[index]
        self._worker.files.read(source.file, source.start + at * out.itemsize, out)

    def write(self, index: int, at: int, bits: Bits) -> None:
        """Write elements of an output slot from a place in the span on."""
        self.found.output, start = self.span.outputs[index]
        self._worker.write(self.found.output, start + at * bits.itemsize, bits)

    def look(self, index: int, at: int, exact: Array, bits: Bits) -> None:
        """Hold rounded numbers to the exact ones, from a place in the span on; raises PEM0502 and
        PEM0503."""
        dtype, around = self._store(index)
        self.found.output = self.span.outputs[index][0]
        for piece, one, end in self.pieces(at, exact.size):
            try:
                seen = look(exact[one:end], bits[one:end], dtype, around)
            except NotFinite:
                self.blame(at + one, end - one)
                raise too_large_to_compute() from None
            self._see(piece, index, seen)

    def pieces(self, at: int, size: int) -> Iterator[tuple[Piece, int, int]]:
        """The tensors that a part of the span crosses, with where they begin and end in it."""
        index = bisect_right(self._ends, at)
        first = 0
        while first < size:
            end = min(size, self._ends[index] - at)
            yield self.span.pieces[index][0], first, end
            first, index = end, index + 1

    def blame(self, at: int, size: int) -> None:
        """Raise PEM0502 for the input that is not finite in a part of the span, if one is."""
        index = bisect_right(self._ends, at)
        piece, _ = self.span.pieces[index]
        for number, load in sorted(self._loads.items()):
            first = self.span.inputs[number]
            width = ITEM_SIZE[load.dtype]
            bits: Bits = np.empty(size * width, "u1")
            self._worker.files.read(first.file, first.start + at * width, bits)
            numbers = decoded(bits.data, load.dtype, "F64")
            if not np.isfinite(numbers).all():
                source = piece.inputs[number]
                assert isinstance(source, Source)
                raise not_finite(source, numbers)


def checked(exact: Array, bits: Bits, dtype: str, around: float) -> Seen:
    """Seen, as rounding.look gives it; raises PEM0503 instead of NotFinite."""
    try:
        return look(exact, bits, dtype, around)
    except NotFinite:
        raise too_large_to_compute() from None


def first_output(piece: Piece) -> int:
    """The first output that a piece writes to."""
    return min(sink.output for sink in piece.outputs if isinstance(sink, Sink | CutSink))
