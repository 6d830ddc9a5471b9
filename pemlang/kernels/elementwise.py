"""Elementwise programs on a CPU: one pass over the inputs, a block at a time.

A block fits in the cache, and everything in between lives in buffers that are reused from block
to block: the cost of such a loop in NumPy is fresh memory and its page faults, not arithmetic.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pemlang.kernels.dtypes import DTYPES, F64, Array, decode, encode, stored_dtype
from pemlang.kernels.program import Instr, Program, slot

BLOCK = 1 << 19
"""Elements of a block: few enough for a cache, and so many that threads seldom wait for each
other between two steps, in which Python runs one of them at a time. It is the same on any machine
and in any amount of memory, so that sums over blocks are too."""

READY = 64
"""Sizes of blocks that a kernel keeps ready; all but the last block of a span are of one."""

Bits = NDArray[np.generic]
Buffers = dict[tuple[int, int], Bits]
"""Registers by the bytes of an element, and a number."""

Read = Callable[[int, Bits], None]
Write = Callable[[int, Array, Bits], None]

_UFUNCS: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "less": np.less,
    "equal": np.equal, "sign": np.sign, "abs": np.abs,
}  # fmt: skip


class Kernel:
    """An elementwise program made ready to run over blocks. It is used by one thread.

    Every value has a register: a buffer that later values of its size take over once nothing
    needs it any more.
    """

    def __init__(
        self, program: Program, block: int = BLOCK, buffers: Buffers | None = None
    ) -> None:
        """Make it ready.

        Args:
            program: what to compute.
            block: the most elements it is given at a time.
            buffers: the registers of other kernels of the same thread, to be shared.
        """
        assert program.elementwise
        self.program = program
        self._block = block
        self._buffers: Buffers = {} if buffers is None else buffers
        self._consts: tuple[float, ...] = ()
        self._ready: dict[tuple[int, int], list[_Step]] = {}
        self._scalars = [np.zeros(1, DTYPES[i.dtype].stored) if i.op == "reduce" else None
                         for i in program.instrs]  # fmt: skip

    @property
    def passes(self) -> int:
        """How often the inputs are read: once more for each statistic that rests on another."""
        return max(_levels(self.program)) + 1

    def set(self, consts: tuple[float, ...]) -> None:
        """Give the constant slots their numbers."""
        if consts != self._consts:
            self._consts = consts
            self._ready.clear()

    def run(self, turn: int, size: int, read: Read, write: Write) -> list[float]:
        """Run one pass over one block.

        Args:
            turn: the pass. All but the last give statistics; the last writes.
            size: elements in the block.
            read: fills a buffer with the elements of an input slot.
            write: takes an output slot, the exact numbers, and their rounded bits.

        Returns:
            The statistics of the block, in the order of `reduced`.
        """
        if (turn, size) not in self._ready:
            if len(self._ready) == READY:
                self._ready.clear()
            self._ready[turn, size] = _Compiler(self, turn, size).steps
        found = []
        for kind, what, one, two in self._ready[turn, size]:
            if kind == "do":
                what()
            elif kind == "read":
                read(what, one)
            elif kind == "write":
                write(what, one, two)
            else:
                found.append(float(what(one)))
        return found

    def reduced(self, turn: int) -> list[int]:
        """The steps whose statistics a pass gives."""
        levels = _levels(self.program)
        return [
            index
            for index, instr in enumerate(self.program.instrs)
            if instr.op == "reduce" and levels[index] == turn + 1
        ]

    def settle(self, index: int, blocks: Sequence[float]) -> None:
        """Give a statistic its value, from those of all blocks in order."""
        join = sum if self.program.instrs[index].attrs[0] == "sum" else max
        scalar = self._scalars[index]
        assert scalar is not None
        scalar[0] = join(blocks)


def bytes_at_work(programs: Iterable[Program], block: int = BLOCK) -> int:
    """Bytes of the registers that the kernels of some programs share, for blocks of a size."""
    buffers: Buffers = {}
    for program in programs:
        kernel = Kernel(program, 0, buffers)
        kernel.set((1.0,) * (1 + max(map(_highest_const, program.instrs))))
        for turn in range(kernel.passes):
            _Compiler(kernel, turn, 0)
    return block * sum(itemsize for itemsize, _ in buffers)


def _highest_const(instr: Instr) -> int:
    return max((slot(a) for a in instr.attrs if str(a)[0] == "c"), default=0)


_Step = tuple[str, Any, Any, Any]
_Register = tuple[int, int]


def _levels(program: Program) -> list[int]:
    """The first pass in which each step can be done."""
    levels: list[int] = []
    for instr in program.instrs:
        after = max((levels[arg] for arg in instr.args), default=0)
        levels.append(after + (instr.op == "reduce"))
    return levels


class _Compiler:
    """Steps of one pass over a block of one size, with their registers bound."""

    def __init__(self, kernel: Kernel, turn: int, size: int) -> None:
        self._kernel, self._size = kernel, size
        self._instrs = kernel.program.instrs
        self._free: defaultdict[int, list[_Register]] = defaultdict(list)
        self._used: Counter[int] = Counter()
        self._register: dict[int, _Register] = {}
        self._views: dict[int, Bits] = {}
        self.steps: list[_Step] = []
        order = self._order(turn)
        last = {arg: index for index in order for arg in self._instrs[index].args}
        done = set(kernel.reduced(turn)) if turn < kernel.passes - 1 else set()
        for index in order:
            instr = self._instrs[index]
            dying = [arg for arg in dict.fromkeys(instr.args) if last[arg] == index]
            if instr.op == "reduce":
                if index in done:
                    self._statistic(instr)
                else:
                    scalar = kernel._scalars[index]
                    assert scalar is not None
                    self._views[index] = scalar
                    continue
                self._release(dying)
            else:
                self._emit(index, instr, dying)

    def _order(self, turn: int) -> list[int]:
        """The steps this pass needs, back to the statistics that are known by now."""
        if turn < self._kernel.passes - 1:
            goals = self._kernel.reduced(turn)
        else:
            goals = [i for i, instr in enumerate(self._instrs) if instr.op == "store"]
        found, pending = set(goals), list(goals)
        while pending:
            index = pending.pop()
            if self._instrs[index].op == "reduce" and index not in goals:
                continue
            for arg in self._instrs[index].args:
                if arg not in found:
                    found.add(arg)
                    pending.append(arg)
        return sorted(found)

    # --- registers --------------------------------------------------------------------------

    def _take(self, dtype: np.dtype[np.generic]) -> tuple[_Register, Bits]:
        free = self._free[dtype.itemsize]
        if not free:
            free.append((dtype.itemsize, self._used[dtype.itemsize]))
            self._used[dtype.itemsize] += 1
        register = free.pop()
        buffers = self._kernel._buffers
        if register not in buffers:
            buffers[register] = np.empty(self._kernel._block * dtype.itemsize, "u1")
        view: Bits = buffers[register][: self._size * dtype.itemsize].view(dtype)
        return register, view

    def _give(self, register: _Register) -> None:
        self._free[register[0]].append(register)

    def _release(self, values: Sequence[int]) -> None:
        for value in values:
            if value in self._register:
                self._give(self._register[value])

    def _new(self, index: int, instr: Instr) -> Bits:
        self._register[index], self._views[index] = self._take(stored_dtype(instr.dtype))
        return self._views[index]

    # --- steps ------------------------------------------------------------------------------

    def _do(self, function: Callable[..., Any], *args: Any, **named: Any) -> None:
        self.steps.append(("do", partial(function, *args, **named), None, None))

    def _statistic(self, instr: Instr) -> None:
        x = np.broadcast_to(self._views[instr.args[0]], (self._size,))
        what = partial(np.sum, dtype=F64) if instr.attrs[0] == "sum" else np.max
        self.steps.append(("reduce", what, x, None))

    def _emit(self, index: int, instr: Instr, dying: list[int]) -> None:
        args = [self._views[arg] for arg in instr.args]
        consts = [self._kernel._consts[slot(a)] for a in instr.attrs if str(a)[0] == "c"]
        match instr.op:
            case "load":
                self.steps.append(("read", slot(instr.attrs[0]), self._new(index, instr), None))
                return
            case "store":
                self._store(instr, args[0], consts)
                self._release(dying)
                return
            case "select":  # the result starts as y, so it must not share a buffer with the rest
                out = self._new(index, instr)
                self._do(np.copyto, out, args[2])
                self._do(np.copyto, out, args[1], where=args[0])
                self._release(dying)
                return
            case "cast":
                out = self._new(index, instr)
                self._cast(args[0], self._instrs[instr.args[0]].dtype, out)
                self._release(dying)
                return
            case "fma":
                self._fma(index, instr, args, consts[0], dying)
                return
        self._release(dying)  # a result may take over the buffer of what dies with it
        out = self._new(index, instr)
        if instr.op == "const":
            self._do(out.fill, consts[0])
        elif instr.op == "scale":
            self._do(np.multiply, args[0], out.dtype.type(consts[0]), out)
        else:
            self._do(_UFUNCS[instr.op], *args, out)

    def _cast(self, x: Bits, dtype: str, out: Bits) -> None:
        if dtype in DTYPES and x.shape == out.shape:
            self._do(decode, x, dtype, out)
        else:  # one number for all elements, or a comparison
            self._do(np.copyto, out, x, casting="unsafe")

    def _fma(
        self, index: int, instr: Instr, args: list[Bits], number: float, dying: list[int]
    ) -> None:
        x, y = args
        self._release([arg for arg in dying if arg == instr.args[0] != instr.args[1]])
        dtype = stored_dtype(instr.dtype)
        register, product = self._take(dtype)
        self._do(np.multiply, x, dtype.type(number), product)
        self._give(register)
        self._release([arg for arg in dying if arg == instr.args[1]])
        out = self._new(index, instr)
        self._do(np.add, y, product, out)

    def _store(self, instr: Instr, x: Bits, consts: list[float]) -> None:
        taken: list[_Register] = []

        def room(dtype: np.dtype[np.generic]) -> Bits:
            register, view = self._take(dtype)
            taken.append(register)
            return view

        bits, exact = room(stored_dtype(instr.dtype)), x
        if x.shape != bits.shape:  # a statistic alone: one number for all elements
            exact = room(x.dtype)
            self._do(np.copyto, exact, x)
        whole = exact
        if consts:
            whole = room(exact.dtype)
            self._do(np.add, exact, consts[0], whole)
        scratch = room(np.dtype("<u4")) if instr.dtype == "BF16" else None
        self._do(encode, whole, instr.dtype, bits, scratch)
        self.steps.append(("write", slot(instr.attrs[0]), exact, bits))
        for register in taken:
            self._give(register)
