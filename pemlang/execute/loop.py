"""Fused loops: blocks of them read, computed, looked at, and written."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import field
from functools import partial
from itertools import accumulate
from typing import Protocol

from pemlang.dataclass import dataclass
from pemlang.execute.elementwise import LOOKED_AT, Kernel
from pemlang.execute.result import OutputFailed
from pemlang.execute.site import not_finite
from pemlang.failures import TooLarge
from pemlang.kernels.plan import FusedLoop, NumberSink, Plan, SiteCall, TensorSink
from pemlang.kernels.program import Program
from pemlang.kernels.rounding import ResultNotFinite, Seen, look, settled
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import DTYPES, Array, Bits, decoded
from pemlang.tensorfiles.reader import TensorReader


@dataclass
class JobSeen:
    """What a part of the work saw.

    Attributes:
        output: the number of the output that it works on.
        tensors: by tensor.
        numbers: what programs told.
        failed: why it could not go on.
    """

    output: int = 0
    tensors: dict[TensorSink, Seen] = field(default_factory=dict)
    numbers: dict[NumberSink, Array] = field(default_factory=dict)
    failed: OutputFailed | None = None

    def see(self, sink: TensorSink, seen: Seen) -> None:
        """Take what was seen of a part of a tensor."""
        so_far = self.tensors.setdefault(sink, Seen())
        so_far.rounding.add(seen.rounding)
        so_far.size.add(seen.size)


class Worker(Protocol):
    """What a part of a loop needs of the thread it runs in."""

    plan: Plan
    reader: TensorReader

    def kernel(self, program: Program, constants: tuple[float, ...]) -> Kernel:
        """The kernel of a program, with its constants."""

    def write(self, output: int, start: int, bits: Bits) -> None:
        """Write an array to an output."""


class LoopPart:
    """Some blocks of a loop.

    Attributes:
        loop, seen: the loop, and what was seen of it.
    """

    def __init__(
        self, worker: Worker, loop: FusedLoop, first: int, count: int, seen: JobSeen
    ) -> None:
        self._worker, self.loop, self.seen = worker, loop, seen
        self._first, self._last = first, first + count
        self._ends = list(accumulate(size for _, size in loop.calls))
        self._stores = loop.program.stores

    def run(self) -> None:
        """All passes over all blocks.

        Raises:
            Failure: as run_call.
            OSError: it cannot be written.
        """
        kernel = self._worker.kernel(self.loop.program, self.loop.constants)
        for turn in range(kernel.passes):
            kept: list[list[float]] = []
            for at in range(self._first, self._last, kernel.block):
                size = min(kernel.block, self._last - at)
                self.seen.output = self.loop.outputs[0][0]
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
        for call, first, end in self.tensors(at, size):
            doubtful = []
            for slot, square in enumerate(kernel.run(kernel.passes - 1, first, end)):
                seen = settled(square, end - first, *self._store(slot))
                if seen is None:
                    doubtful.append(slot)
                else:
                    self.see(call, slot, seen)
            if doubtful:
                self._look_closely(kernel, doubtful, at, first, end)
        for slot in range(len(self._stores)):
            self.write(slot, at, kernel.output(slot, 0, size))

    def _look_closely(
        self, kernel: Kernel, slots: Sequence[int], at: int, first: int, end: int
    ) -> None:
        """Look at the numbers of some output slots in a part of a block themselves."""
        for start in range(first, end, LOOKED_AT):
            last = min(end, start + LOOKED_AT)
            exact = kernel.exact(start, last)
            for slot in slots:
                if not self.loop.program.linear and not np.isfinite(exact[slot]).all():
                    self._blame_any(at + start, last - start)
                self.look(slot, at + start, exact[slot], kernel.output(slot, start, last))

    def _blame_any(self, at: int, size: int) -> None:
        for _, first, end in self.tensors(at, size):
            self.blame(at + first, end - first)

    def _store(self, slot: int) -> tuple[str, float]:
        """The dtype of an output slot, and what its numbers are stored around."""
        store = self._stores[slot]
        return store.dtype, store.base(self.loop.constants)

    def see(self, call: SiteCall, slot: int, seen: Seen) -> None:
        """Take what was seen of a part of the tensor in an output slot."""
        sink = call.outputs[slot]
        assert isinstance(sink, TensorSink)
        self.seen.see(sink, seen)

    def fetch(self, slot: int, out: Bits, at: int) -> None:
        """Read elements of an input slot from a place in the loop on."""
        reference = self.loop.inputs[slot]
        self._worker.reader.read(reference.file, reference.start + at * out.itemsize, out)

    def write(self, slot: int, at: int, bits: Bits) -> None:
        """Write elements of an output slot from a place in the loop on."""
        self.seen.output, start = self.loop.outputs[slot]
        self._worker.write(self.seen.output, start + at * bits.itemsize, bits)

    def look(self, slot: int, at: int, exact: Array, bits: Bits) -> None:
        """Hold rounded numbers to the exact ones, from a place in the loop on; raises
        InputNotFinite and TooLarge."""
        dtype, around = self._store(slot)
        self.seen.output = self.loop.outputs[slot][0]
        for call, first, end in self.tensors(at, exact.size):
            try:
                seen = look(exact[first:end], bits[first:end], dtype, around)
            except ResultNotFinite:
                self.blame(at + first, end - first)
                raise TooLarge(None) from None
            self.see(call, slot, seen)

    def tensors(self, at: int, size: int) -> Iterator[tuple[SiteCall, int, int]]:
        """The tensors that a part of the loop crosses, with where they begin and end in it."""
        index = bisect_right(self._ends, at)
        first = 0
        while first < size:
            end = min(size, self._ends[index] - at)
            yield self.loop.calls[index][0], first, end
            first, index = end, index + 1

    def blame(self, at: int, size: int) -> None:
        """Raise InputNotFinite for the input that is not finite in a part of the loop, if one
        is."""
        call, _ = self.loop.calls[bisect_right(self._ends, at)]
        for load in self.loop.program.loads:
            first = self.loop.inputs[load.input]
            width = DTYPES[load.dtype].size
            bits: Bits = np.empty(size * width, "u1")
            self._worker.reader.read(first.file, first.start + at * width, bits)
            numbers = decoded(bits.data, load.dtype, "F64")
            if not np.isfinite(numbers).all():
                raise not_finite(call.inputs[load.input], numbers)
