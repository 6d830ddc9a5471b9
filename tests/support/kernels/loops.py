"""Programs run in memory, as a build runs them from and to files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pemlang.execute import Arena, Kernel, rounded
from pemlang.kernels import Builder, Program
from pemlang.tensorfiles import stored_dtype

Bits = NDArray[np.generic]
Numbers = NDArray[np.floating]


@dataclass(frozen=True)
class StoredTensors:
    """Tensors by what the inputs of a call are named, read as those of files are."""

    bits: Mapping[Hashable, Bits]

    def tensor(self, reference: Hashable, dtype: str, shape: tuple[int, ...]) -> Bits:
        """One tensor, in memory of its own."""
        bits = self.bits[reference]
        assert (bits.shape, bits.dtype) == (shape, stored_dtype(dtype))
        return bits.copy()


def run(
    program: Program,
    constants: Sequence[float],
    stored: Sequence[Bits],
    block: int = 0,
    kernel: Kernel | None = None,
) -> tuple[list[Bits], list[Numbers]]:
    """The outputs of an elementwise program, as bits and exact, over blocks.

    All memory is poisoned before each block, so that nothing is taken for done that is not, and
    each block is done in two parts, as if two tensors met there.
    """
    kernel = kernel or Kernel(program, Arena(), block)
    kernel.start(constants)
    size = len(stored[0]) if stored else 7
    out: list[Bits] = [np.full(size, 0x7F, stored_dtype(store.dtype)) for store in program.stores]
    exact: list[Numbers] = [np.full(size, np.nan) for _ in program.stores]
    for turn in range(kernel.passes):
        kept = []
        for at in range(0, size, kernel.block):
            count = min(kernel.block, size - at)
            memory_of(kernel)[...] = 0xFF
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


def memory_of(kernel: Kernel) -> NDArray[np.uint8]:
    """The bytes that the blocks of a kernel lie in."""
    return kernel._arena._bytes


def cast(bits: Bits, from_: str, to: str, work: str) -> Bits:
    """The bits of some numbers in another dtype, by way of a work dtype."""
    builder = Builder()
    x = builder.load(0, from_, bits.shape)
    builder.store(x if from_ == work else builder.cast(x, work), 0, to)
    [call] = builder.calls()
    [array], _ = run(call.program, (), [bits])
    return array


def encoded(numbers: Numbers, dtype: str) -> Bits:
    """The bits of some numbers rounded to a dtype."""
    return rounded(numbers, dtype)[0]
