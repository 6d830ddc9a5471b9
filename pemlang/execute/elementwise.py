"""Elementwise programs on a CPU: native loops, made by LLVM when a build needs them, over blocks.

A block of every input lies in the cache while one loop takes it to the outputs: what is in between
lives in registers. Python only reads, calls, and writes.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from pemlang.execute.machine import algebra
from pemlang.kernels.builder import Builder
from pemlang.kernels.llvm import llvm_source
from pemlang.kernels.llvm_text import WIDTH
from pemlang.kernels.passes import passes, statistics, steps_of
from pemlang.kernels.program import Program
from pemlang.kernels.steps.elements import Load, Reduce
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

LOOKED_AT = 1 << 15
"""Elements of exact numbers that are kept at a time."""

_LEAST = 1 << 10
_ALIGNED = 64

Read = Callable[[int, Bits], None]


def block_of(program: Program, most: int = BLOCK) -> int:
    """Elements of a block of a program: a power of two, and at most `most`."""
    block = most
    while block > _LEAST and block * sum(map(sum, program.widths)) > CACHED:
        block //= 2
    return block


def block_memory(programs: Iterable[Program], most: int = BLOCK) -> int:
    """Bytes of the blocks that the kernels of some programs take, one after the other."""
    return max((_room(program, block_of(program, most)) for program in programs), default=0)


def _room(program: Program, block: int) -> int:
    blocks = sum(
        (block + WIDTH) * width + _ALIGNED for widths in program.widths for width in widths
    )
    # Exact numbers, and what a look at them takes.
    return blocks + min(block, LOOKED_AT) * 8 * (len(program.stores) + 4)


class Arena:
    """Memory for the blocks of the kernels of one thread, which take it one after the other."""

    def __init__(self, size: int = 0) -> None:
        """Take some bytes: as many as `block_memory` says of all that will share it, since what
        it grew out of would live as long as the kernels that used it."""
        self._bytes: NDArray[np.uint8] = np.empty(size, "u1")

    def arrays(self, dtypes: Sequence[np.dtype[np.generic]], count: int) -> list[Bits]:
        """Arrays of some elements each and WIDTH more, aligned."""
        count += WIDTH
        need = sum(count * dtype.itemsize + _ALIGNED for dtype in dtypes)
        if self._bytes.nbytes < need:
            self._bytes = np.empty(need, "u1")
        arrays, at = [], -self._bytes.ctypes.data % _ALIGNED
        for dtype in dtypes:
            end = at + count * dtype.itemsize
            arrays.append(self._bytes[at:end].view(dtype))
            at = end + -end % _ALIGNED
        return arrays


class Kernel:
    """An elementwise program made ready to run over blocks. It is used by one thread.

    Attributes:
        program: what it computes.
        block: the most elements it takes at a time.
        passes: how often the inputs are read; all passes but the last give statistics.
    """

    def __init__(self, program: Program, arena: Arena, block: int = 0) -> None:
        """Make it ready: compile it, unless another thread has.

        Args:
            program: what to compute.
            arena: the memory for its blocks.
            block: elements of a block; as many as suit the program unless given.
        """
        assert program.elementwise
        self.program, self.block, self.passes = program, block or block_of(program), passes(program)
        self._arena = arena
        ends = (*program.loads, *program.stores)
        self._ins, outs = len(program.loads), len(program.stores)
        self._stored = [stored_dtype(step.dtype) for step in ends]
        self._constants = (ctypes.c_double * 1)()
        self._settled = (ctypes.c_double * len(program.steps))()
        self._totals = (ctypes.c_double * (1 + max(outs, len(program.steps))))()
        self._reads = [
            sorted(step.input for number in steps_of(program, turn)
                   if isinstance(step := program.steps[number], Load))
            for turn in range(self.passes)
        ]  # fmt: skip

    def start(self, constants: Sequence[float]) -> None:
        """Take the blocks' memory, and the numbers of the constant slots."""
        self._constants = (ctypes.c_double * max(1, len(constants)))(*constants)
        self._arrays = self._arena.arrays(self._stored, self.block)
        self._pointers = (ctypes.c_void_p * len(self._arrays))(
            *(array.ctypes.data for array in self._arrays)
        )
        step = ctypes.sizeof(ctypes.c_void_p) * self._ins
        self._outputs = ctypes.c_void_p(ctypes.addressof(self._pointers) + step)

    def read(self, turn: int, size: int, read: Read) -> None:
        """Fill the blocks of the inputs that a pass needs."""
        for index in self._reads[turn]:
            read(index, self._arrays[index][:size])

    def run(self, turn: int, first: int, end: int) -> list[float]:
        """Run one pass over elements of the block that was read.

        Returns:
            The sum of the squares of the exact numbers of each output slot; in all passes but the
            last the statistics, in the order of `reduced`, and after them NaN where an input is
            not finite.
        """
        count = len(self.reduced(turn)) if turn < self.passes - 1 else len(self._stored) - self._ins
        self._loop(turn, False, first, end, self._outputs)
        totals = self._totals[: count + 1]
        if turn == self.passes - 1 and totals.pop() != 0:
            return [float("nan")] * count
        return totals

    def reduced(self, turn: int) -> list[int]:
        """The steps whose statistics a pass gives."""
        return statistics(self.program, turn)

    def settle(self, index: int, blocks: Sequence[float]) -> None:
        """Give a statistic its value, from those of all blocks in order."""
        step = self.program.steps[index]
        assert isinstance(step, Reduce)
        self._settled[index] = step.join(blocks)

    def output(self, index: int, first: int, end: int) -> Bits:
        """The rounded numbers of an output slot, after the last pass."""
        return self._arrays[self._ins + index][first:end]

    def exact(self, first: int, end: int) -> list[Array]:
        """The numbers of each output slot before they are rounded, and before what they are
        stored around is added; NaN where an input is not finite that might not show."""
        size = end - first
        dtypes = [stored_dtype(store.exact_dtype) for store in self.program.stores]
        exact = [np.empty(size + WIDTH, dtype) for dtype in dtypes]
        starts = [array.ctypes.data - first * array.itemsize for array in exact]
        outputs = (ctypes.c_void_p * len(exact))(*starts)
        self._loop(self.passes - 1, True, first, end, outputs)
        return [array[:size] for array in exact]

    def _loop(self, turn: int, exact: bool, first: int, end: int, outputs: Any) -> None:
        loop = _compiled(self.program, turn, exact)
        loop(first, end, self._pointers, outputs, self._constants, self._settled, self._totals)


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
    loop = _compiled(_rounding(work, dtype, around != 0), 0, False)
    constants, totals = (ctypes.c_double * 1)(around), (ctypes.c_double * 2)()
    whole, square = flat.size - flat.size % WIDTH, 0.0
    rest = np.zeros(WIDTH, flat.dtype)  # a loop goes on to the end of a vector
    rest[: flat.size - whole] = flat[whole:]
    last = np.empty(WIDTH, bits.dtype)
    for source, target, count in ((flat, bits, whole), (rest, last, flat.size - whole)):
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (source, target)]
        loop(0, count, *map(ctypes.byref, pointers), constants, None, totals)
        square += totals[0]
    bits[whole:] = last[: flat.size - whole]
    return bits, square


@cache
def _rounding(work: str, dtype: str, around: bool) -> Program:
    builder = Builder[str, str]()
    builder.store(builder.load("x", work, ()), "y", dtype, 1.0 if around else 0.0)
    [call] = builder.calls()
    return call.program


_LOOP = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 5)
_lock = threading.Lock()
_loops: dict[tuple[Program, int, bool], Any] = {}
_engines: list[Any] = []  # they own the loops


def _compiled(program: Program, turn: int, exact: bool) -> Any:
    """A loop of a program, made when it is first asked for."""
    key = (program, turn, exact)
    if key not in _loops:
        import llvmlite.binding as llvm  # loading it takes as long as all that a check does

        with _lock:
            if key not in _loops:
                module = llvm.parse_assembly(llvm_source(program, turn, exact))
                engine = llvm.create_mcjit_compiler(module, _processor())
                engine.finalize_object()
                _engines.append(engine)
                _loops[key] = _LOOP(engine.get_function_address("loop"))
    return _loops[key]


@cache
def get_ready() -> None:
    """Have another processor make LLVM ready, while this one reads the recipe and the headers."""
    import numpy  # noqa: F401  # first: two threads that import at once wait for each other

    threading.Thread(target=_prepare).start()


def _prepare() -> None:
    """Make LLVM ready: the first loop of a process takes longer to make than those after it."""
    builder = Builder[int, int]()
    x, y = (builder.cast(builder.load(number, "BF16", ()), "F32") for number in range(2))
    builder.store(builder.fma(x, 0.5, builder.scale(y, 0.5)), 0, "BF16")
    [call] = builder.calls()
    _compiled(call.program, 0, False)
    rounded(np.zeros(1), "BF16")
    algebra()


@cache
def _processor() -> Any:
    """This processor, as LLVM knows it."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
