"""Fused loops: blocks of them read, computed, looked at, and written."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import field
from functools import partial
from typing import Protocol

from pemlang.dataclass import dataclass
from pemlang.execute.elementwise import LOOKED_AT, Kernel, block_of
from pemlang.execute.result import OutputFailed
from pemlang.execute.site import not_finite
from pemlang.execute.stream import Row, Stream
from pemlang.failures import TooLarge
from pemlang.kernels.philox import AT_ONCE
from pemlang.kernels.plan import FusedLoop, NumberSink, Plan, SiteCall, TensorSink
from pemlang.kernels.program import Program
from pemlang.kernels.rounding import ResultNotFinite, Seen, look, may_settle, settled
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import DTYPES, Array, Bits, decoded
from pemlang.tensorfiles.reader import TensorReader

_PAGE = 4096
"""Bytes that a system writes together."""


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

    def kernel(self, program: Program, span: int) -> Kernel:
        """The kernel of a program, with room for some elements at a time."""

    def write(self, output: int, start: int, bits: Bits) -> None:
        """Write an array to an output."""

    def files(self, loop: FusedLoop) -> list[int] | None:
        """The numbers that `Kernel.stream` takes of the files that a loop reads and writes; None
        where one of them is none."""


def span_of(loop: FusedLoop, most: int) -> int:
    """The most elements of a loop that are done at a time: a block, and never less than the rows
    that have to stay together.

    Args:
        loop: what is done.
        most: elements of a block.
    """
    block = block_of(loop.program, most)
    if not loop.program.by_row:
        return block
    return max(block, *(min(count, _step(loop.program, call, block)) for call, count in loop.calls))


def _step(program: Program, call: SiteCall, block: int) -> int:
    """The elements of a tensor that are done at a time, where it is done by parts."""
    rows = AT_ONCE * program.row(call.constants)  # draws are counted in so many
    return max(1, block // rows) * rows


class LoopPart:
    """Some blocks of a loop.

    Attributes:
        loop, seen: the loop, and what was seen of it.
    """

    def __init__(
        self, worker: Worker, loop: FusedLoop, first: int, count: int, seen: JobSeen, block: int
    ) -> None:
        """Take them.

        Args:
            worker: the thread.
            loop, first, count: the loop, and the elements of it.
            seen: what it sees.
            block: the most elements of a block.
        """
        self._worker, self.loop, self.seen, self._block = worker, loop, seen, block
        self._first, self._last = first, first + count
        self._stores = loop.program.stores

    def run(self) -> None:
        """All passes over all blocks.

        Raises:
            Failure: as run_call.
            OSError: it cannot be written.
        """
        program = self.loop.program
        kernel = self._worker.kernel(program, span_of(self.loop, self._block))
        self.seen.output = self.loop.outputs[0][0]
        for at, size in self._not_streamed(kernel, list(self._blocks(kernel.span))):
            self.seen.output = self.loop.outputs[0][0]
            if size > kernel.span:
                self._by_parts(kernel, at, size)
            else:
                self._at_once(kernel, at, size)

    def _not_streamed(self, kernel: Kernel, blocks: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The blocks that are left when all that native calls can do is done: those that have to
        be looked at number by number. All of them, where a file does not do as it should: going on
        says what is wrong."""
        files = self._worker.files(self.loop)
        stores = [self._store(self.loop.calls[0][0], slot) for slot in range(len(self._stores))]
        if files is None or not all(may_settle(*store) for store in stores):
            return blocks
        small = [block for block in blocks if block[1] <= kernel.span]
        left = self._streamed(kernel, small, files) if small else []
        for at, size in blocks:
            if size > kernel.span:
                [(call, _, _)] = self.tensors(at, size)
                part = at, size, _step(self.loop.program, call, kernel.in_cache)
                squares = kernel.large(part, call.constants, files)
                [row] = self._rows(at, at + size)
                if squares is None or not self._settled(row, squares):
                    left.append((at, size))
        return left

    def _streamed(
        self, kernel: Kernel, blocks: list[tuple[int, int]], files: Sequence[int]
    ) -> list[tuple[int, int]]:
        """Do blocks in one native call; those that are left."""
        stream = self._stream(kernel, blocks)
        rows = stream.rows if self.loop.program.whole else stream.rows[:1]
        constants = [self.loop.calls[row.tensor][0].constants for row in rows]
        found = kernel.stream(stream, constants, files)
        if found is None:
            return blocks
        left = []
        for row, squares in zip(stream.rows, found, strict=True):
            if not self._settled(row, squares):
                firsts = range(row.first, row.end, kernel.span)
                left += [(first, min(kernel.span, row.end - first)) for first in firsts]
        return left

    def _stream(self, kernel: Kernel, blocks: Sequence[tuple[int, int]]) -> Stream:
        """Blocks for one native call: of whole tensors as they are, else as suits the cache, and
        written in whole pages."""
        stream, width = Stream(), DTYPES[self._stores[0].dtype].size
        start = self.loop.outputs[0][1] // width
        for at, size in blocks:
            first, last = at, at + size
            while first < last:
                end = last if self.loop.program.whole else min(last, first + kernel.in_cache)
                begun = (start + end) % (_PAGE // width)  # elements of a page that end begins
                end -= begun if first < end - begun and end < last else 0
                stream.add(self._rows(first, end))
                first = end
        return stream

    def _settled(self, row: Row, squares: Sequence[float]) -> bool:
        """See a part of a tensor, if the sums of its squares settle what is seen."""
        call, _ = self.loop.calls[row.tensor]
        seen = [
            settled(square, row.end - row.first, *self._store(call, slot))
            for slot, square in enumerate(squares)
        ]
        for slot, known in enumerate(seen):
            if known is not None and None not in seen:
                self.see(call, slot, known)
        return None not in seen

    def _blocks(self, span: int) -> Iterator[tuple[int, int]]:
        """The parts of the loop that are done one after the other. Of a program that needs whole
        tensors they are as many as there is room for, or one that is too large for that."""
        if not self.loop.program.whole:
            for at in range(self._first, self._last, span):
                yield at, min(span, self._last - at)
            return
        at = self._first
        while at < self._last:
            index = bisect_right(self.loop.ends, at)
            end = self.loop.ends[index]
            while index + 1 < len(self.loop.ends) and self.loop.ends[index + 1] <= min(
                at + span, self._last
            ):
                index += 1
                end = self.loop.ends[index]
            yield at, end - at
            at = end

    def _at_once(self, kernel: Kernel, at: int, size: int) -> None:
        """Do tensors, or parts of such, that lie in one block."""
        for slot, block in enumerate(kernel.inputs()):
            self.fetch(slot, block[:size], at)
        parts = list(self.tensors(at, size))
        constants = [call.constants for call, _, _ in parts]
        if not self.loop.program.whole:
            constants = constants[:1]
        found = kernel.run([end for _, _, end in parts], constants)
        for number, ((call, first, end), squares) in enumerate(zip(parts, found, strict=True)):
            self._see(kernel, number, call, at, (first, end), 0, squares)
        for slot in range(len(self._stores)):
            self.write(slot, at, kernel.output(slot, 0, size))

    def _by_parts(self, kernel: Kernel, at: int, size: int) -> None:
        """Do a tensor that one block has no room for, pass by pass."""
        [(call, _, _)] = self.tensors(at, size)
        step = _step(self.loop.program, call, kernel.in_cache)
        kernel.begin(call.constants)
        for turn in range(kernel.passes - 1):
            again = True
            while again:
                kept: list[list[float]] = []
                for base in range(0, size, step):
                    count = min(step, size - base)
                    kernel.read(turn, count, partial(self.fetch, at=at + base))
                    kept.append(kernel.part(turn, count, base))
                    if kept[-1].pop() != 0:
                        self.blame(at + base, count)
                again = kernel.settle(turn, kept)
        for base in range(0, size, step):
            count = min(step, size - base)
            kernel.read(kernel.passes - 1, count, partial(self.fetch, at=at + base))
            found = kernel.part(kernel.passes - 1, count, base)
            self._see(kernel, 0, call, at + base, (0, count), base, found)
            for slot in range(len(self._stores)):
                self.write(slot, at + base, kernel.output(slot, 0, count))

    def _see(
        self,
        kernel: Kernel,
        number: int,
        call: SiteCall,
        at: int,
        part: tuple[int, int],
        base: int,
        squares: Sequence[float],
    ) -> None:
        """See what was made of a tensor, or of a part of it.

        Args:
            kernel: what made it.
            number: which of those that it ran last.
            call: the tensor.
            at: the place of the block in the loop.
            part: its first element in the block, and the one after its last.
            base: the place of its first in the tensor.
            squares: of the exact numbers of each slot.
        """
        first, end = part
        doubtful = []
        for slot, square in enumerate(squares):
            seen = settled(square, end - first, *self._store(call, slot))
            if seen is None:
                doubtful.append(slot)
            else:
                self.see(call, slot, seen)
        step = (end - first) if self.loop.program.by_row else LOOKED_AT
        for start in range(first, end, step) if doubtful else ():
            last = min(end, start + step)
            exact = kernel.exact(number, start, last, base + start - first)
            for slot in doubtful:
                if not self.loop.program.linear and not np.isfinite(exact[slot]).all():
                    self.blame(at + start, last - start)
                self.look(slot, at + start, exact[slot], kernel.output(slot, start, last))

    def _store(self, call: SiteCall, slot: int) -> tuple[str, float]:
        """The dtype of an output slot, and what its numbers are stored around."""
        store = self._stores[slot]
        return store.dtype, store.base(call.constants)

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
        self.seen.output = self.loop.outputs[slot][0]
        for call, first, end in self.tensors(at, exact.size):
            dtype, around = self._store(call, slot)
            try:
                seen = look(exact[first:end], bits[first:end], dtype, around)
            except ResultNotFinite:
                self.blame(at + first, end - first)
                raise TooLarge(None) from None
            self.see(call, slot, seen)

    def tensors(self, at: int, size: int) -> Iterator[tuple[SiteCall, int, int]]:
        """The tensors that a part of the loop crosses, with where they begin and end in it."""
        for row in self._rows(at, at + size):
            yield self.loop.calls[row.tensor][0], row.first - at, row.end - at

    def _rows(self, first: int, last: int) -> Iterator[Row]:
        """The parts of tensors from one element of the loop to another."""
        tensor = bisect_right(self.loop.ends, first)
        while first < last:
            end = min(last, self.loop.ends[tensor])
            yield Row(tensor, first, end)
            first, tensor = end, tensor + 1

    def blame(self, at: int, size: int) -> None:
        """Raise InputNotFinite for the input that is not finite in a part of the loop, if one
        is."""
        call, _ = self.loop.calls[bisect_right(self.loop.ends, at)]
        for load in self.loop.program.loads:
            first = self.loop.inputs[load.input]
            width = DTYPES[load.dtype].size
            bits: Bits = np.empty(size * width, "u1")
            self._worker.reader.read(first.file, first.start + at * width, bits)
            numbers = decoded(bits.data, load.dtype, "F64")
            if not np.isfinite(numbers).all():
                raise not_finite(call.inputs[load.input], numbers)
