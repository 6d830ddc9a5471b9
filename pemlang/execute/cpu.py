"""The threads of the processors: inputs are read, and outputs written, a block or a site at a time.

Every part of the work writes to a place of its own, and what is looked at on the way is put
together in the order of the plan: neither threads nor memory change a byte of the results.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Protocol

from pemlang.dataclass import dataclass
from pemlang.execute.algebra import NativeAlgebra
from pemlang.execute.crew import COPY, Shares, blocks_of, phases, shares, working_memory
from pemlang.execute.elementwise import Arena, Kernel, block_of, rounded
from pemlang.execute.executor import DEFAULTS, ExecutionOptions, Progress, no_progress
from pemlang.execute.helpers import Helpers
from pemlang.execute.loop import JobSeen, LoopPart
from pemlang.execute.machine import one_algebra_thread
from pemlang.execute.result import ExecutionResult, OutputFailed, OutputSeen, Target
from pemlang.execute.site import bytes_at_work, not_finite, run_call
from pemlang.failures import HeadsDiffer, TooLarge
from pemlang.kernels.plan import (
    FusedLoop,
    HeadCopy,
    NumberSink,
    Plan,
    SiteCall,
    TensorPlace,
    TensorSink,
)
from pemlang.kernels.program import Program
from pemlang.kernels.rounding import ResultNotFinite, Rounding, Seen, Size, look, settled
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import DTYPES, FLOATS, Array, Bits, decoded
from pemlang.tensorfiles.reader import TensorReader

_KERNELS = 256
"""Kernels that a thread keeps ready."""

_SMALL = 1 << 22
"""Bytes at work at a site that is soon measured: threads would wait for each other's Python."""


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
        parts = [(phase, list(_jobs(phase, self.device, options))) for phase in phases(plan)]
        threads = [shares(phase, budget, options, len(jobs)) for phase, jobs in parts]
        if not plan.outputs and all(bytes_at_work(call.program) <= _SMALL for call in plan.sites):
            # This one alone: what only measures has no loops, and none for a device.
            threads = [Shares(0, 0)]
        for output, target in zip(plan.outputs, targets, strict=True):
            target.write(0, memoryview(output.header))
        seen: list[JobSeen] = []
        total = sum(len(jobs) for _, jobs in parts)
        with one_algebra_thread():
            for (phase, jobs), many in zip(parts, threads, strict=True):
                helpers = Helpers()
                worker = partial(_CpuWorker, phase, reader, targets, self.device, options, helpers)
                seen += _Crew(jobs, worker, helpers).work(many, progress, (len(seen), total))
                if any(job.failed for job in seen):
                    break
        return _together(plan, seen)


def executor(options: ExecutionOptions) -> CpuExecutor:
    """See backends.BACKENDS."""
    return CpuExecutor(options)


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

    def __init__(self, jobs: Sequence[_Job], worker: _MakeWorker, helpers: Helpers) -> None:
        self._jobs, self._worker, self._helpers = jobs, worker, helpers
        self._results: list[JobSeen | None] = [None] * len(jobs)
        self._broken: Exception | None = None  # what a thread could not go on for
        self._stop = threading.Event()
        self._told: SimpleQueue[bool] = SimpleQueue()  # whether a job is done, or a thread

    def work(self, threads: Shares, progress: Progress, among: tuple[int, int]) -> list[JobSeen]:
        """What the jobs saw, in their order, as far as they were done. With no threads this one
        does them.

        Args:
            threads: how many.
            progress: told of it.
            among: how many other jobs are done, and how many there are in all.
        """
        before, total = among
        if threads.work == 0:
            self._run(self._queue(away=False))
            progress(before + len(self._jobs), total)
        else:
            self._share(threads, lambda done: progress(before + done, total))
        if self._broken is not None:
            raise self._broken
        return [seen for seen in self._results if seen is not None]

    def _share(self, threads: Shares, told: Callable[[int], None]) -> None:
        queues = [self._queue(away=False)] * threads.work
        queues += [self._queue(away=True)] * any(job.away for job in self._jobs)
        work: list[Callable[[], None]] = [self._helpers.help] * threads.help
        work += [partial(self._run_and_help, queue) for queue in queues]
        crew: list[threading.Thread] = []
        try:
            for target in work:
                member = threading.Thread(target=target, daemon=True)
                member.start()  # there may be room for no more
                crew.append(member)
            finished, working = 0, len(queues)
            while working:
                if self._told.get():
                    finished += 1
                    told(finished)
                else:
                    working -= 1
        finally:
            self._stop.set()
            self._helpers.end(len(crew))
            for member in crew:
                member.join()

    def _run_and_help(self, queue: Iterator[int]) -> None:
        self._run(queue)
        self._helpers.help()

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
        except Exception as error:  # there is no memory for another worker, say
            self._broken = error
            self._stop.set()
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
        helpers: Helpers,
    ) -> None:
        self.plan, self.reader, self._algebra = plan, reader, NativeAlgebra(helpers)
        self._targets, self._device, self._options = targets, device, options
        self._arena = Arena(blocks_of(plan, options))
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
        results = run_call(call, self.reader, self._algebra)
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
        for at in range(0, size, COPY):
            if copy.mean:
                self._mean(copy, place, at, min(COPY, size - at))
                continue
            part = np.empty(min(COPY, size - at), "u1")
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

    def _mean(self, copy: HeadCopy, place: TensorPlace, at: int, size: int) -> None:
        """A part of the mean of some heads."""
        part = np.empty(size, "u1")
        total = np.zeros(size // DTYPES[place.dtype].size)
        for source in copy.sources:
            self.reader.read(source.file, source.start + at, part)
            numbers = decoded(part.data, place.dtype, "F64")
            if not np.isfinite(numbers).all():
                raise not_finite(source, numbers)
            total += numbers
        bits, _ = rounded(total / len(copy.sources), place.dtype, 0.0)
        self.write(copy.output, place.start + at, bits)


def _looked_at(exact: Array, bits: Bits, dtype: str, around: float) -> Seen:
    """Seen, as rounding.look gives it; raises TooLarge for what is not finite."""
    try:
        return look(exact, bits, dtype, around)
    except ResultNotFinite:
        raise TooLarge(None) from None
