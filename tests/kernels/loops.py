"""Elementwise programs run to their end in memory, as a build runs them from and to files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pemlang.execute.elementwise import Arena, Kernel, rounded
from pemlang.kernels.program import Builder, Program, slot
from pemlang.tensorfiles.dtypes import stored_dtype

Bits = NDArray[np.generic]


def run(
    program: Program,
    consts: Sequence[float],
    stored: Sequence[Bits],
    block: int = 0,
    kernel: Kernel | None = None,
) -> tuple[list[Bits], list[NDArray[np.floating]]]:
    """The outputs of a program, as bits and exact, over blocks.

    All memory is poisoned before each block, so that nothing is taken for done that is not, and
    each block is done in two parts, as if two tensors met there.
    """
    kernel = kernel or Kernel(program, Arena(), block)
    kernel.start(consts)
    size = len(stored[0]) if stored else 7
    stores = {slot(i.attrs[0]): i.dtype for i in program.instrs if i.op == "store"}
    out: list[Bits] = [np.full(size, 0x7F, stored_dtype(stores[n])) for n in range(len(stores))]
    exact: list[NDArray[np.floating]] = [np.full(size, np.nan) for _ in stores]
    for turn in range(kernel.passes):
        kept = []
        for at in range(0, size, kernel.block):
            count = min(kernel.block, size - at)
            kernel._arena._bytes[...] = 0xFF
            kernel.read(turn, count, partial(_read, stored, at))
            if turn < kernel.passes - 1:
                kept.append(kernel.run(turn, 0, count))
                assert kept[-1].pop() == 0
                continue
            for first, end in ((0, count // 3), (count // 3, count)):
                squares = kernel.run(turn, first, end)
                for number, numbers in enumerate(kernel.exact(first, end)):
                    exact[number][at + first : at + end] = numbers
                    with np.errstate(all="ignore"):
                        wanted = np.sum(numbers.astype("f8") ** 2)
                    np.testing.assert_allclose(squares[number], wanted, rtol=1e-12)
            for number, array in enumerate(out):
                array[at : at + count] = kernel.output(number, 0, count)
        for number, index in enumerate(kernel.reduced(turn)):
            kernel.settle(index, [row[number] for row in kept])
    return out, exact


def _read(stored: Sequence[Bits], at: int, slot: int, into: Bits) -> None:
    into[...] = stored[slot][at : at + into.size]


def cast(bits: Bits, from_: str, to: str, work: str) -> Bits:
    """The bits of some numbers in another dtype, by way of a work dtype."""
    builder = Builder()
    x = builder.load(0, from_, bits.shape)
    builder.store(x if from_ == work else builder.cast(x, work), 0, to)
    [piece] = builder.pieces()
    [found], _ = run(piece.program, (), [bits])
    return found


def encoded(numbers: NDArray[np.floating], dtype: str) -> Bits:
    """The bits of some numbers rounded to a dtype."""
    return rounded(numbers, dtype)[0]
