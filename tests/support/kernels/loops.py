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
    span: int = 0,
    kernel: Kernel | None = None,
) -> tuple[list[Bits], list[Numbers]]:
    """The outputs of an elementwise program, as bits and exact: of one tensor at once where there
    is room for it, else by parts. All memory is poisoned before."""
    kernel = kernel or Kernel(program, Arena(), span)
    kernel.start()
    size = len(stored[0]) if stored else 7
    if size <= kernel.span:
        for slot, block in enumerate(kernel.inputs()):
            block[...] = np.frombuffer(b"\xff" * block.nbytes, block.dtype)
            _read(stored, 0, slot, block[:size])
        [squares] = kernel.run([size], [constants])
        return _outputs(kernel, size, squares)
    return _by_parts(kernel, constants, stored, size)


def _outputs(
    kernel: Kernel, size: int, squares: Sequence[float], base: int = 0
) -> tuple[list[Bits], list[Numbers]]:
    """What a kernel has just made, held to the squares it tells."""
    exact = kernel.exact(0, 0, size, base)
    for square, numbers in zip(squares, exact, strict=True):
        with np.errstate(all="ignore"):
            wanted = np.sum(numbers.astype("f8") ** 2)
        np.testing.assert_allclose(square, wanted, rtol=1e-12)
    return [kernel.output(number, 0, size).copy() for number in range(len(squares))], exact


def _by_parts(
    kernel: Kernel, constants: Sequence[float], stored: Sequence[Bits], size: int
) -> tuple[list[Bits], list[Numbers]]:
    kernel.begin(constants)
    made = []
    for turn in range(kernel.passes):
        again = True
        while again:
            kept = []
            for base in range(0, size, kernel.span):
                count = min(kernel.span, size - base)
                kernel.read(turn, count, partial(_read, stored, base))
                found = kernel.part(turn, count, base)
                if turn == kernel.passes - 1:
                    made.append(_outputs(kernel, count, found, base))
                else:
                    assert found.pop() == 0
                    kept.append(found)
            again = turn < kernel.passes - 1 and kernel.settle(turn, kept)
    bits, exact = zip(*made, strict=True)
    return _joined(bits), _joined(exact)


def _joined(parts: Sequence[Sequence[NDArray]]) -> list[NDArray]:
    return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


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
