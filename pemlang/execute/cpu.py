"""The threads of the processors: inputs are read, and outputs written, a block or a site at a time.

Every part of the work writes to a place of its own, and what is looked at on the way is put
together in the order of the plan: neither threads nor memory change a byte of the results.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Protocol

from pemlang.dataclass import dataclass
from pemlang.execute.elementwise import Arena, Kernel, block_memory, block_of, rounded
from pemlang.execute.executor import DEFAULTS, ExecutionOptions, Progress, no_progress
from pemlang.execute.loop import JobSeen, LoopPart, span_of
from pemlang.execute.machine import one_algebra_thread
from pemlang.execute.result import ExecutionResult, OutputFailed, OutputSeen, Target
from pemlang.execute.site import bytes_at_work, not_finite, run_call
from pemlang.failures import HeadsDiffer, MemoryTooSmall, TooLarge
from pemlang.kernels.plan import FusedLoop, HeadCopy, NumberSink, Plan, SiteCall, TensorSink
from pemlang.kernels.program import Program
from pemlang.kernels.rounding import ResultNotFinite, Rounding, Seen, Size, look, settled
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import DTYPES, FLOATS, Array, Bits, decoded
from pemlang.tensorfiles.reader import TensorReader

_KERNELS = 256
"""Kernels that a thread keeps ready."""

_SMALL = 1 << 22
"""Bytes at work at a site that is soon measured: threads would wait for each other's Python."""

_STEP = 2e-5
"""Seconds that a step of a site keeps the interpreter to itself, about."""

_FLOPS = 4e10
"""Operations a second in native code, on one thread, about."""

_BYTES = 4e9
"""Bytes a second that one thread reads, or makes, about."""

_ENOUGH = 1 << 16
"""More threads than any machine has processors."""

_COPY = 1 << 20
"""Bytes of a head that are copied at a time."""


class Device(Protocol):
    """Runs loops elsewhere than on the threads of the processors."""

    def reserve(self, loops: Sequence[FusedLoop], room: int) -> int:
        """Bytes of working memory that it takes for some loops, at most `room`."""

    def takes(self, loop: FusedLoop) -> bool:
        """Whether it runs a loop."""

    def run(self, part: LoopPart) -> None:
        """Run all of a loop that it takes; raises what `LoopPart.run` does."""


@dataclass(frozen=True)
class CpuExecutor:
    """Runs a plan on threads of this process.

    Attributes:
        options: how.
        device: takes loops off them, driven by a thread of its own.
    """

    options: ExecutionOptions = DEFAULTS
    device: Device | None = None

    def execute(
        self,
        plan: Plan,
        reader: TensorReader,
        targets: Sequence[Target] = (),
        progress: Progress = no_progress,
    ) -> ExecutionResult:
        """See Executor."""
        options, budget = self.options, self.options.budget
        if self.device is not None:
            room = min(budget // 2, budget - working_memory(plan, 1, options))
            budget -= self.device.reserve(plan.loops, room)
        jobs = list(_jobs(plan, self.device, options))
        most = min(_affordable(plan, budget, options), len(jobs))
        if options.threads is None:
            most = min(most, useful_threads(plan))
        threads = max(1, min(options.most_threads, most))
        if not plan.outputs and all(bytes_at_work(call.program) <= _SMALL for call in plan.sites):
            threads = 0  # this one alone: what only measures has no loops, and none for a device
        for output, target in zip(plan.outputs, targets, strict=True):
            target.write(0, memoryview(output.header))
        crew = _Crew(jobs, lambda: _CpuWorker(plan, reader, targets, self.device, options))
        with one_algebra_thread():
            return _together(plan, crew.work(threads, progress))


def executor(options: ExecutionOptions) -> CpuExecutor:
    """See backends.BACKENDS."""
    return CpuExecutor(options)


def working_memory(plan: Plan, threads: int, options: ExecutionOptions) -> int:
    """The most bytes that running a plan takes at once beside the process itself."""
    most = max((bytes_at_work(call.program) for call in plan.sites), default=0)
    copies = 2 * _COPY if plan.copies else 0
    # A thread keeps its blocks while it is at a site.
    return threads * (_blocks(plan, options) + max(most, copies))


def _blocks(plan: Plan, options: ExecutionOptions) -> int:
    """Bytes of the blocks of a thread."""
    spans = {(loop.program, span_of(loop, options.block)) for loop in plan.loops}
    return block_memory(spans)


def _affordable(plan: Plan, budget: int, options: ExecutionOptions) -> int:
    """How many threads a budget has room for; raises MemoryTooSmall where it has room for none."""
    needed = working_memory(plan, 1, options)
    if needed > budget:
        raise MemoryTooSmall(needed, budget)
    return budget // max(1, needed)


def useful_threads(plan: Plan) -> int:
    """As many threads as can be at work side by side: one in the interpreter, which no other can
    enter meanwhile, and those that are in native code. More of them would wait for each other."""
    held = alone = 0.0
    for program, count in Counter(call.program for call in plan.sites).items():
        moved = sum(step.kept(program.shapes(step)) for step in program.steps)
        held += count * len(program.steps) * _STEP
        alone += count * (program.flops() / _FLOPS + moved / _BYTES)
    for loop in plan.loops:
        moved = loop.count * sum(map(sum, loop.program.widths))
        alone += loop.program.flops(loop.count) / _FLOPS + moved / _BYTES
    return 1 + int(min(alone / held, _ENOUGH)) if held else _ENOUGH


# --- the work in parts -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """Work of one thread for a while: a part of a loop, a site, or a head."""

    what: FusedLoop | SiteCall | HeadCopy
    first: int = 0
    count: int = 0
    away: bool = False  # on the device


def _jobs(plan: Plan, device: Device | None, options: ExecutionOptions) -> Iterator[_Job]:
    """The work in parts, the long ones first, so that threads end together."""
    for call in sorted(plan.sites, key=lambda call: -bytes_at_work(call.program)):
        yield _Job(call)
    for loop in plan.loops:
        away = device is not None and device.takes(loop)
        for first, count in _parts(loop, loop.count if away else options.turn, options.block):
            yield _Job(loop, first, count, away)
    for copy in plan.copies:
        yield _Job(copy)


def _parts(loop: FusedLoop, blocks: int, most: int) -> Iterator[tuple[int, int]]:
    """The parts of a loop that are jobs, about so many blocks each: the first element and how many
    there are. Where a program needs whole tensors, those stay together."""
    step = blocks * block_of(loop.program, most)
    if not loop.program.whole:
        for first in range(0, loop.count, max(1, step)):
            yield first, min(step, loop.count - first)
        return
    first = end = 0
    for _, count in loop.calls:
        if end > first and end + count - first > step:
            yield first, end - first
            first = end
        end += count
    if end > first:
        yield first, end - first


class _Crew:
    """Threads that do jobs until there are none, or one fails."""

    def __init__(self, jobs: Sequence[_Job], worker: _MakeWorker) -> None:
        self._jobs, self._worker = jobs, worker
        self._results: list[JobSeen | None] = [None] * len(jobs)
        self._stop = threading.Event()
        self._told: SimpleQueue[bool] = SimpleQueue()  # whether a job is done, or a thread

    def work(self, threads: int, progress: Progress) -> list[JobSeen]:
        """What the jobs saw, in their order, as far as they were done. With no threads this one
        does them."""
        if threads == 0:
            self._run(self._queue(away=False))
            progress(len(self._jobs), len(self._jobs))
        else:
            self._share(threads, progress)
        return [seen for seen in self._results if seen is not None]

    def _share(self, threads: int, progress: Progress) -> None:
        queues = [self._queue(away=False)] * threads
        queues += [self._queue(away=True)] * any(job.away for job in self._jobs)
        crew = [threading.Thread(target=self._run, args=(queue,), daemon=True) for queue in queues]
        for member in crew:
            member.start()
        try:
            finished, working = 0, len(crew)
            while working:
                if self._told.get():
                    finished += 1
                    progress(finished, len(self._jobs))
                else:
                    working -= 1
        finally:
            self._stop.set()
            for member in crew:
                member.join()

    def _queue(self, away: bool) -> Iterator[int]:
        return iter([index for index, job in enumerate(self._jobs) if job.away == away])

    def _run(self, queue: Iterator[int]) -> None:
        try:
            worker = self._worker()
            with np.errstate(all="ignore"):
                while not self._stop.is_set() and (index := next(queue, None)) is not None:
                    seen = self._results[index] = worker.do(self._jobs[index])
                    if seen.failed is not None:
                        self._stop.set()
                    self._told.put(True)
        finally:
            self._told.put(False)


class _MakeWorker(Protocol):
    def __call__(self) -> _CpuWorker: ...


def _together(plan: Plan, jobs: Sequence[JobSeen]) -> ExecutionResult:
    """What was seen of each output."""
    outputs = [OutputSeen() for _ in plan.outputs]
    numbers: dict[NumberSink, Array] = {}
    sizes: defaultdict[TensorSink, Size] = defaultdict(Size)
    for job in jobs:
        if job.failed is not None:
            return ExecutionResult(failed=job.failed)
    for job in jobs:
        numbers |= job.numbers
        for sink, seen in job.tensors.items():
            factor = plan.place(sink).factor
            outputs[sink.output].rounding.setdefault(factor, Rounding()).add(seen.rounding)
            sizes[sink].add(seen.size)
    for sink, size in sizes.items():
        failure = size.failure(plan.place(sink).dtype)
        if failure is not None:
            return ExecutionResult(failed=OutputFailed(sink.output, failure))
    return ExecutionResult(outputs, numbers)


# --- a thread --------------------------------------------------------------------------------


class _CpuWorker:
    """Does jobs in one thread, with buffers of its own."""

    def __init__(
        self,
        plan: Plan,
        reader: TensorReader,
        targets: Sequence[Target],
        device: Device | None,
        options: ExecutionOptions,
    ) -> None:
        self.plan, self.reader = plan, reader
        self._targets, self._device, self._options = targets, device, options
        self._arena = Arena(_blocks(plan, options))
        self._kernels: dict[tuple[Program, int], Kernel] = {}

    def do(self, job: _Job) -> JobSeen:
        """What a job saw, or why it failed."""
        seen = JobSeen()
        try:
            if isinstance(job.what, FusedLoop):
                block = self._options.block
                part = LoopPart(self, job.what, job.first, job.count, seen, block)
                if job.away and self._device is not None:
                    self._device.run(part)
                else:
                    part.run()
            elif isinstance(job.what, HeadCopy):
                seen.output = job.what.output
                self._copy(job.what)
            else:
                self._site(job.what, seen)
        except Exception as error:  # a thread has nobody to tell
            seen.failed = OutputFailed(seen.output, error)
        return seen

    def kernel(self, program: Program, span: int) -> Kernel:
        """The kernel of a program, with room for some elements at a time. All of them share their
        memory."""
        if len(self._kernels) == _KERNELS:
            self._kernels.clear()
        if (program, span) not in self._kernels:
            self._kernels[program, span] = Kernel(program, self._arena, span)
        kernel = self._kernels[program, span]
        kernel.start()
        return kernel

    def write(self, output: int, start: int, bits: Bits) -> None:
        """Write an array to an output."""
        if bits.size:
            self._targets[output].write(start, bits.data.cast("B"))

    def files(self, loop: FusedLoop) -> list[int] | None:
        """See loop.Worker."""
        numbers: list[int] = []
        for reference, load in zip(loop.inputs, loop.program.loads, strict=True):
            handle = self.reader.handle(reference.file)
            numbers += handle, reference.start, DTYPES[load.dtype].size
        for (output, start), store in zip(loop.outputs, loop.program.stores, strict=True):
            target = self._targets[output]
            if target.handle is None:
                return None
            numbers += target.handle, start, DTYPES[store.dtype].size
        return numbers

    def _site(self, call: SiteCall, seen: JobSeen) -> None:
        seen.output = min(sink.output for sink in call.outputs)
        results = run_call(call, self.reader)
        stores = {store.output: store for store in call.program.stores}
        for slot, sink in enumerate(call.outputs):
            exact = results[slot]
            if isinstance(sink, NumberSink):
                seen.numbers[sink] = exact
                continue
            seen.output = sink.output
            dtype, around = stores[slot].dtype, stores[slot].base(call.constants)
            bits, square = rounded(exact, dtype, around)
            seen_at_once = settled(square, exact.size, dtype, around)
            seen.see(sink, seen_at_once or _looked_at(exact.reshape(-1), bits, dtype, around))
            self.write(sink.output, self.plan.place(sink).start, bits)

    def _copy(self, copy: HeadCopy) -> None:
        place = self.plan.outputs[copy.output].tensors[copy.tensor]
        size = int(np.prod(place.shape, dtype=np.int64)) * DTYPES[place.dtype].size
        first, *others = copy.sources
        for at in range(0, size, _COPY):
            part = np.empty(min(_COPY, size - at), "u1")
            self.reader.read(first.file, first.start + at, part)
            other = np.empty_like(part)
            for source in others:
                self.reader.read(source.file, source.start + at, other)
                if not np.array_equal(part, other):
                    raise HeadsDiffer(place.factor)
            if place.dtype in FLOATS:
                numbers = decoded(part.data, place.dtype, "F64")
                if not np.isfinite(numbers).all():
                    raise not_finite(first, numbers)
            self.write(copy.output, place.start + at, part)


def _looked_at(exact: Array, bits: Bits, dtype: str, around: float) -> Seen:
    """Seen, as rounding.look gives it; raises TooLarge for what is not finite."""
    try:
        return look(exact, bits, dtype, around)
    except ResultNotFinite:
        raise TooLarge(None) from None
