"""Elementwise programs over Δ = B·A of some factors, a tile of which is formed at a time."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial

from pemlang.execute.elementwise import addresses, scratch
from pemlang.execute.helpers import Helpers
from pemlang.execute.native import NativeFunction, native
from pemlang.failures import TooLarge
from pemlang.kernels.histogram import HISTOGRAMS, gather
from pemlang.kernels.llvm_module import finds
from pemlang.kernels.llvm_text import WIDTH
from pemlang.kernels.passes import numbers_kept, passes, repeats
from pemlang.kernels.program import Program
from pemlang.kernels.scratch import scratch_sizes
from pemlang.kernels.steps.deltas import tile_rows
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import Array

APART = 8
"""A sample of the tiles is one out of so many."""

TOGETHER = 16
"""Tiles that a thread takes at a time: the work of about a millisecond."""


class DeltaTiles:
    """A program over Δ of some factors (A, B), all of them finite."""

    def __init__(
        self, program: Program, factors: Sequence[tuple[Array, Array]], constants: Sequence[float]
    ) -> None:
        self._program = program
        (_, self._columns), self._rows = factors[0][0].shape, len(factors[0][1])
        self._tile = tile_rows(self._columns)
        self._starts = range(0, self._rows, self._tile)
        self._a = [_panels(a) for a, _ in factors]
        self._b = [np.ascontiguousarray(b) for _, b in factors]
        ranks = (ctypes.c_int64 * len(factors))(*(len(a) for a, _ in factors))
        self._factors = (ranks, addresses(self._a), addresses(self._b))
        self._whole: Array = np.empty(self._rows * self._columns + WIDTH, self._b[0].dtype)
        self._constants = np.array([*constants, 0.0])
        self._settled = np.empty(numbers_kept(program))
        self._found = np.empty((len(self._starts), finds(program)))
        numbers = (self._constants, self._settled, self._found)
        self._shared = [array.ctypes.data for array in (self._whole, *numbers)]
        self._memories = [_TileMemory(self._program, self._a, self._tile * self._columns)]

    def run(self, helpers: Helpers) -> tuple[Array, float]:
        """The matrix that comes out, and the sum of its squares. Raises TooLarge."""
        total = np.empty(self._found.shape[1])
        # Rows that are no whole vectors are written beyond the end of a tile.
        together = len(self._starts) if self._columns % WIDTH else TOGETHER
        for turn in range(passes(self._program)):
            unused = list(self._memories)
            some = partial(self._some, native(self._program, f"tiles{turn}"), unused)
            if repeats(self._program, turn):
                self._begin(turn, partial(some, self._tile), helpers)
            helpers.each(partial(some, together * self._tile), self._starts[::together])
            while self._join(turn, total):
                some = partial(self._some, native(self._program, f"again{turn}"), unused)
                helpers.each(partial(some, together * self._tile), self._starts[::together])
        if total[1] != 0:
            raise TooLarge(None)
        return self._whole[: self._rows * self._columns].reshape(self._rows, -1), float(total[0])

    def _begin(self, turn: int, some: Callable[[int], None], helpers: Helpers) -> None:
        """Begin a pass that repeats, with a sample of the tiles if there are many."""
        native(self._program, f"start{turn}")(self._settled.ctypes.data)
        if len(self._starts) < APART:
            return
        # Whole vectors are written beyond the end of a tile: never by two at once.
        alone = self._columns % WIDTH != 0
        taken = self._starts[::APART]
        for first in taken if alone else ():
            some(first)
        if not alone:
            helpers.each(some, taken)
        first_memory = self._gathered()
        rows = sum(min(self._tile, self._rows - first) for first in taken)
        native(self._program, f"bracket{turn}")(
            rows * self._columns, self._rows * self._columns,
            self._constants.ctypes.data, self._settled.ctypes.data, first_memory.scratch,
        )  # fmt: skip

    def _some(self, over: NativeFunction, unused: list[_TileMemory], rows: int, first: int) -> None:
        """A pass over the tiles of some rows."""
        try:
            memory = unused.pop()
        except IndexError:  # one more thread
            memory = _TileMemory(self._program, self._a, self._tile * self._columns)
            self._memories.append(memory)
        over(
            first, min(first + rows, self._rows), self._rows, self._columns, self._tile,
            *self._factors, memory.tiles, *self._shared, memory.scratch,
        )  # fmt: skip
        unused.append(memory)

    def _join(self, turn: int, total: Array) -> bool:
        """Put together what all tiles found in a pass; whether it has to be done again."""
        again = native(self._program, f"join{turn}")(
            len(self._found), *self._shared[1:], total.ctypes.data, self._gathered().scratch
        )
        return bool(again)

    def _gathered(self) -> _TileMemory:
        """The memory of one thread, with the counts of all."""
        first, *others = self._memories
        for other in others:
            gather(self._program, first.pieces[HISTOGRAMS], other.pieces[HISTOGRAMS])
        return first


class _TileMemory:
    """What one thread works in: a tile of each Δ, and the working memory of passes."""

    def __init__(self, program: Program, inputs: Sequence[Array], elements: int) -> None:
        self._tiles = [np.empty(elements + WIDTH, x.dtype) for x in inputs]
        self.pieces = [np.empty(size, "u1") for size in scratch_sizes(program, elements)]
        self.tiles, self.scratch = addresses(self._tiles), scratch(self.pieces)


def _panels(a: Array) -> Array:
    """A as panels of WIDTH columns one after the other, the last filled up with zeros."""
    rank, columns = a.shape
    wide = np.zeros((rank, -(-columns // WIDTH) * WIDTH), a.dtype)
    wide[:, :columns] = a
    return np.ascontiguousarray(wide.reshape(rank, -1, WIDTH).transpose(1, 0, 2))
