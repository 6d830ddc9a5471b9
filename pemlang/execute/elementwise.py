"""Elementwise programs on a CPU: native loops, made by LLVM when a build needs them, over blocks.

A block of every input lies in the cache while one loop takes it to the outputs: what is in between
lives in registers. Python only reads, calls, and writes.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from pemlang.execute.machine import algebra_libraries
from pemlang.execute.native import disk, native
from pemlang.execute.stream import Stream
from pemlang.kernels.builder import Builder
from pemlang.kernels.histogram import HISTOGRAMS
from pemlang.kernels.llvm_text import WIDTH
from pemlang.kernels.passes import numbers_kept, passes, reads_of, repeats, scans
from pemlang.kernels.program import Program
from pemlang.kernels.scratch import scratch_sizes
from pemlang.kernels.steps.scans import ScanStep
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import Array, Bits, stored_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 1 << 19
"""The most elements of a block."""

CACHED = 1 << 22
"""Bytes that the blocks of all inputs and outputs of a program may take together, for them to stay
in a cache. Like BLOCK it is the same on any machine and in any amount of memory, so that sums over
blocks are too."""

IN_CACHE = 1 << 21
"""The same of what one native call takes at a time, for it to stay in the cache of one processor.
"""

LOOKED_AT = 1 << 15
"""Elements of exact numbers that are kept at a time."""

_LEAST = 1 << 10
_ALIGNED = 64

_POINTER = ctypes.sizeof(ctypes.c_void_p)

Read = Callable[[int, Bits], None]


def block_of(program: Program, most: int = BLOCK, cached: int = CACHED) -> int:
    """Elements of a block of a program: a power of two, and at most `most`."""
    block = most
    while block > _LEAST and block * sum(map(sum, program.widths)) > cached:
        block //= 2
    return block


def block_memory(spans: Iterable[tuple[Program, int]]) -> int:
    """Bytes of the blocks that the kernels of some programs take, one after the other.

    Args:
        spans: each program, and the most elements that it is run over at a time.
    """
    return max((_room(program, span) for program, span in spans), default=0)


def _room(program: Program, span: int) -> int:
    blocks = [(span + WIDTH) * width for widths in program.widths for width in widths]
    # Exact numbers, and what a look at them takes.
    looked_at = span if program.by_row else min(span, LOOKED_AT)
    exact = looked_at * 8 * (len(program.stores) + 4)
    return _together([*blocks, *scratch_sizes(program, span)]) + exact


def _together(sizes: Iterable[int]) -> int:
    """Bytes of some pieces that are aligned."""
    return sum(size + _ALIGNED for size in sizes if size)


class Arena:
    """Memory for the blocks of the kernels of one thread, which take it one after the other."""

    def __init__(self, size: int = 0) -> None:
        """Take some bytes: as many as `block_memory` says of all that will share it, since what
        it grew out of would live as long as the kernels that used it."""
        self._bytes: NDArray[np.uint8] = np.empty(size, "u1")

    def pieces(self, sizes: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Pieces of some bytes, aligned."""
        need = _together(sizes)
        if self._bytes.nbytes < need:
            self._bytes = np.empty(need, "u1")
        pieces, at = [], -self._bytes.ctypes.data % _ALIGNED
        for size in sizes:
            pieces.append(self._bytes[at : at + size])
            at += size + -size % _ALIGNED
        return pieces


class Kernel:
    """An elementwise program made ready to run over blocks. It is used by one thread.

    Attributes:
        program: what it computes.
        span: the most elements it takes at a time.
        in_cache: how many of them a native call does best to take at a time.
        passes: how often the inputs are read.
    """

    def __init__(self, program: Program, arena: Arena, span: int = 0) -> None:
        """Make it ready: compile it, unless another thread has.

        Args:
            program: what to compute.
            arena: the memory for its blocks.
            span: elements at a time; as many as suit the program unless given.
        """
        assert program.elementwise
        self.program, self.span, self.passes = program, span or block_of(program), passes(program)
        self.in_cache = min(self.span, block_of(program, cached=IN_CACHE))
        self._arena = arena
        ends = (*program.loads, *program.stores)
        self._ins, self._outs = len(program.loads), len(program.stores)
        self._stored = [stored_dtype(step.dtype) for step in ends]
        self._steps = numbers_kept(program)
        self._finds = 1 + max([self._outs, *(len(found) for found in scans(program))])
        self._reads = [reads_of(program, turn) for turn in range(self.passes)]

    def start(self) -> None:
        """Take the blocks' memory."""
        widths = [dtype.itemsize for dtype in self._stored]
        sizes = [(self.span + WIDTH) * width for width in widths]
        pieces = self._arena.pieces([*sizes, *scratch_sizes(self.program, self.span)])
        count = len(sizes)
        self._arrays = [
            piece.view(dtype) for piece, dtype in zip(pieces[:count], self._stored, strict=True)
        ]
        self._pointers = addresses(pieces[:count])
        self._outputs = ctypes.addressof(self._pointers) + _POINTER * self._ins
        self._scratch = scratch(pieces[count:])

    def read(self, turn: int, size: int, read: Read) -> None:
        """Fill the blocks of the inputs that a pass needs."""
        for index in self._reads[turn]:
            read(index, self._arrays[index][:size])

    def inputs(self) -> list[Bits]:
        """The blocks of the inputs."""
        return self._arrays[: self._ins]

    def run(self, ends: Sequence[int], constants: Sequence[Sequence[float]]) -> list[list[float]]:
        """Run all passes over some tensors, or parts of such, that lie in the block that was read.

        Args:
            ends: where each of them ends.
            constants: of each of them; or of all, where there are one tensor's.

        Returns:
            Of each tensor the sum of the squares of the exact numbers of each output slot; NaN
            where an input is not finite.
        """
        self.constants = np.array(constants, "f8").reshape(len(constants), -1)
        self.settled = np.empty((len(ends), self._steps))
        totals = np.empty((len(ends), self._finds))
        apart = self.constants.shape[1] if len(constants) > 1 else 0
        native(self.program, "tensors")(
            len(ends), (ctypes.c_int64 * len(ends))(*ends),
            self._pointers, self._outputs,
            self.constants.ctypes.data, apart,
            self.settled.ctypes.data, self._steps,
            totals.ctypes.data, self._finds, self._scratch,
        )  # fmt: skip
        found: list[list[float]] = totals[:, : self._outs + 1].tolist()
        return [_squares(row) for row in found]

    def stream(
        self, stream: Stream, constants: Sequence[Sequence[float]], files: Sequence[int]
    ) -> list[list[float]] | None:
        """Read, run and write some blocks.

        Args:
            stream: the blocks.
            constants: of each row; or of all, where there are one row's.
            files: FILE_NUMBERS of the inputs and of the outputs, see llvm_stream.py.

        Returns:
            As `run`, of each row; None where a file did not give or take all that it was to.
        """
        rows = len(stream.rows)
        numbers = np.array(constants, "f8").reshape(len(constants), -1)
        steps = self._steps if len(constants) > 1 else 0
        known = np.empty((rows if steps else stream.most, self._steps))
        found, here = np.zeros((rows, self._finds)), np.empty((stream.most, self._finds))
        tables = [np.array(x, "i8") for x in (stream.blocks, stream.ends, files)]
        stopped = native(self.program, "stream")(
            len(stream.blocks), *(table.ctypes.data for table in tables), *disk(),
            self._pointers, self._outputs,
            numbers.ctypes.data, numbers.shape[1] if len(constants) > 1 else 0,
            known.ctypes.data, steps,
            found.ctypes.data, self._finds, here.ctypes.data, self._scratch,
        )  # fmt: skip
        return None if stopped else [_squares(row) for row in found[:, : self._outs + 1].tolist()]

    def large(
        self, part: tuple[int, int, int], constants: Sequence[float], files: Sequence[int]
    ) -> list[float] | None:
        """Read, run and write a tensor that the block has no room for.

        Args:
            part: its first element, how many there are, and how many to take at a time.
            constants: of it.
            files: as for `stream`.

        Returns:
            As `part` in the last pass; None where a file did not give or take all that it was to.
        """
        self.begin(constants)
        here, table = np.empty(self._finds), np.array(files, "i8")
        stopped = native(self.program, "large")(
            *part, table.ctypes.data, *disk(), self._pointers, self._outputs,
            self.constants.ctypes.data, self.settled.ctypes.data,
            self._found.ctypes.data, here.ctypes.data, self._scratch,
        )  # fmt: skip
        return None if stopped else _squares(self._found[: self._outs + 1].tolist())

    def begin(self, constants: Sequence[float]) -> None:
        """Begin a tensor that is run pass by pass, block by block."""
        self.constants = np.array(constants, "f8").reshape(1, -1)
        self.settled = np.empty((1, self._steps))
        self._found = np.empty(self._finds)
        for turn in range(self.passes):
            if repeats(self.program, turn):
                native(self.program, f"start{turn}")(self.settled.ctypes.data)

    def part(self, turn: int, end: int, base: int) -> list[float]:
        """Run one pass over elements of the block that was read.

        Args:
            turn: the number of the pass.
            end: how many they are.
            base: the place of the first in its tensor.

        Returns:
            In the last pass as `run`; before it, what is found and to be joined.
        """
        self._call(f"pass{turn}", 0, end, base, self._outputs)
        if turn == self.passes - 1:
            return _squares(self._found[: self._outs + 1].tolist())
        found: list[float] = self._found[: len(scans(self.program)[turn]) + 1].tolist()
        return found

    def settle(self, turn: int, parts: Sequence[Sequence[float]]) -> bool:
        """End a pass but the last, with what it found in all blocks in order; whether it has to be
        done again."""
        for index, number in enumerate(scans(self.program)[turn]):
            step = self.program.steps[number]
            assert isinstance(step, ScanStep)
            self._found[index] = step.join(part[index] for part in parts)
        again = native(self.program, f"settle{turn}")(
            self.constants.ctypes.data, self.settled.ctypes.data,
            self._found.ctypes.data, self._scratch,
        )  # fmt: skip
        return bool(again)

    def output(self, index: int, first: int, end: int) -> Bits:
        """The rounded numbers of an output slot, after the last pass."""
        return self._arrays[self._ins + index][first:end]

    def exact(self, tensor: int, first: int, end: int, base: int) -> list[Array]:
        """The numbers of each output slot before they are rounded, and before what they are
        stored around is added; NaN where an input is not finite that might not show.

        Args:
            tensor: which of those that were run last.
            first, end: elements of the block; of a program `by_row` whole rows.
            base: the place of the first in its tensor.
        """
        size = end - first
        dtypes = [stored_dtype(store.exact_dtype) for store in self.program.stores]
        exact = [np.empty(size + WIDTH, dtype) for dtype in dtypes]
        starts = [array.ctypes.data - first * array.itemsize for array in exact]
        self._found = np.empty(self._finds)
        outputs = (ctypes.c_void_p * len(exact))(*starts)
        self._call("exact", first, end, base, outputs, tensor)
        return [array[:size] for array in exact]

    def _call(
        self, name: str, first: int, end: int, base: int, outputs: Any, tensor: int = 0
    ) -> None:
        row = tensor if len(self.constants) > 1 else 0
        native(self.program, name)(
            first, end, base, self._pointers, outputs,
            self.constants[row].ctypes.data, self.settled[tensor].ctypes.data,
            self._found.ctypes.data, self._scratch,
        )  # fmt: skip


def _squares(found: list[float]) -> list[float]:
    """The squares, NaN where an input is not finite."""
    watch = found.pop()
    return found if watch == 0 else [float("nan")] * len(found)


def addresses(arrays: Sequence[NDArray[Any]]) -> Any:
    """The addresses of some arrays, as native functions take them."""
    return (ctypes.c_void_p * max(1, len(arrays)))(*(array.ctypes.data for array in arrays))


def scratch(pieces: Sequence[NDArray[np.uint8]]) -> Any:
    """Working memory as programs take it: with empty histograms."""
    pieces[HISTOGRAMS][...] = 0
    return addresses(pieces)


def rounded(numbers: Array, dtype: str, around: float = 0.0) -> tuple[Bits, float]:
    """Numbers rounded to a dtype, to nearest and ties to even, once.

    Args:
        numbers: float32 or float64, of any shape.
        dtype: to round to. What is too large for it becomes infinity, or NaN where it has none.
        around: a number that is added before.

    Returns:
        The bits, in one dimension, and the sum of the squares of the numbers.
    """
    flat = np.ascontiguousarray(numbers).reshape(-1)
    work = "F32" if flat.dtype == np.float32 else "F64"
    bits: Bits = np.empty(flat.size, stored_dtype(dtype))
    loop = native(_rounding(work, dtype, around != 0), "pass0")
    constants, totals = (ctypes.c_double * 1)(around), (ctypes.c_double * 2)()

    def run(source: Array, target: Bits, count: int) -> float:
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (source, target)]
        loop(0, count, 0, *map(ctypes.byref, pointers), constants, None, totals, None)
        return totals[0]

    rest = flat.size % WIDTH
    whole = flat.size - rest
    square = run(flat, bits, whole)
    if rest:  # a loop goes on to the end of a vector
        filled, last = np.zeros(WIDTH, flat.dtype), np.empty(WIDTH, bits.dtype)
        filled[:rest] = flat[whole:]
        square += run(filled, last, rest)
        bits[whole:] = last[:rest]
    return bits, square


@cache
def _rounding(work: str, dtype: str, around: bool) -> Program:
    builder = Builder[str, str]()
    builder.store(builder.load("x", work, ()), "y", dtype, 1.0 if around else 0.0)
    [call] = builder.calls()
    return call.program


@cache
def get_ready() -> None:
    """Have another processor make LLVM ready, while this one reads the recipe and the headers."""
    import numpy  # noqa: F401  # first: two threads that import at once wait for each other

    with suppress(RuntimeError):  # no more threads: then it is made ready when it is needed
        threading.Thread(target=_prepare).start()


def _prepare() -> None:
    """Make LLVM ready: the first loop of a process takes longer to make than those after it. What
    goes wrong does so again where it matters."""
    with suppress(Exception):
        _make_ready()


def _make_ready() -> None:
    builder = Builder[int, int]()
    x, y = (builder.cast(builder.load(number, "BF16", ()), "F32") for number in range(2))
    builder.store(builder.fma(x, 0.5, builder.scale(y, 0.5)), 0, "BF16")
    [call] = builder.calls()
    native(call.program, "tensors")
    rounded(np.zeros(1), "BF16")
    algebra_libraries()
