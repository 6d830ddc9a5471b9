"""Steps over Δ = s·B·A of adapters, element by element, and back to factors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pemlang.dataclass import dataclass
from pemlang.kernels import sketch
from pemlang.kernels.interpret import meaning
from pemlang.kernels.llvm_text import WIDTH
from pemlang.kernels.program import Program
from pemlang.kernels.scratch import scratch_sizes
from pemlang.kernels.step import Dense, Meaning, Meant, Renumber, Shape, SiteInputs, Step
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import DTYPES, Array

TILE = 1 << 15
"""Elements of a tile: those of several adapters stay in a cache."""

LARGE = 1 << 22
"""Elements of a matrix that is worth several threads."""


@dataclass(frozen=True)
class OverDeltas(Step):
    """What an elementwise program makes of Δ of some adapters: a matrix, and the sum of its
    squares. Δ is formed in tiles, of which each is done with before the next.

    It takes A and B of each.

    Attributes:
        program: its inputs are Δ of the adapters, and it has one output.
        scales: the constant slots of s.
        constants: those of the program's constants.
    """

    program: Program
    scales: tuple[int, ...]
    constants: tuple[int, ...]

    name = "over_deltas"

    def words(self) -> Iterable[str]:
        yield from (f"c{slot}" for slot in self.scales)
        yield from (f"c{slot}" for slot in self.constants)
        yield "\n".join(["{", *(f"  {line}" for line in str(self.program).splitlines()), "}"])

    def renumbered(self, inputs: Renumber, constants: Renumber, outputs: Renumber) -> Step:
        return replace(
            self,
            scales=tuple(map(constants, self.scales)),
            constants=tuple(map(constants, self.constants)),
        )

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Meant:
        deltas = [
            slots.constants[scale] * (b.reshape(len(b), -1) @ a.reshape(len(a), -1))
            for a, b, scale in zip(args[::2], args[1::2], self.scales, strict=True)
        ]
        [result] = meaning(self.program, deltas, [slots.constants[slot] for slot in self.constants])
        return result, np.array([np.sum(result**2)])

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> tuple[Array, ...]:
        scales = [slots.constants[slot] for slot in self.scales]
        constants = [slots.constants[slot] for slot in self.constants]
        factors = [
            (a.reshape(len(a), -1), b.reshape(len(b), -1) * b.dtype.type(scale))
            for a, b, scale in zip(args[::2], args[1::2], scales, strict=True)
        ]
        whole, square = slots.algebra.over_deltas(self.program, factors, constants)
        return whole, np.array([square])

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        ranks = sum(shape[0] for shape in shapes[::2])
        return self._elements(shapes) * (2 * ranks + len(self.program.steps))

    def kept(self, shapes: Sequence[Shape]) -> int:
        return self._elements(shapes) * DTYPES[self.dtype].size

    def workspace(self, shapes: Sequence[Shape]) -> int:
        factors = 2 * sum(map(math.prod, shapes)) * DTYPES[self.dtype].size
        return factors + tile_room(self.program, math.prod(shapes[0][1:]))

    def beside(self, shapes: Sequence[Shape]) -> int:
        if self._elements(shapes) < LARGE:
            return 0
        return tile_room(self.program, math.prod(shapes[0][1:]))

    def _elements(self, shapes: Sequence[Shape]) -> int:
        return shapes[1][0] * math.prod(shapes[0][1:])


def tile_rows(columns: int) -> int:
    """The rows of a tile, the same on every machine, so that sums over tiles are too: as many as
    make it whole vectors."""
    unit = max(8, WIDTH // math.gcd(WIDTH, columns))
    return max(unit, TILE // max(1, columns) // unit * unit)


def tile_room(program: Program, columns: int) -> int:
    """Bytes of the tiles of Δ, and of what is done with them."""
    elements = tile_rows(columns) * columns
    width = DTYPES[program.stores[0].dtype].size
    return len(program.loads) * elements * width + sum(scratch_sizes(program, elements))


@dataclass(frozen=True)
class CutDense(Step):
    """A and B of the best approximation of a matrix of a rank, and what it costs: the norm of what
    is cut off, and the norm of all. Where the rank is full, one of the factors is the identity.

    It takes the matrix; where they are known the sum of its squares, and A and B of the adapters
    that it is made of, the sum of whose Δ is near it.

    Attributes:
        rank: of what comes out.
        shapes: of A and B.
        turned: whether it is the transpose of the matrix that is approximated.
    """

    rank: int
    shapes: tuple[Shape, Shape]
    turned: bool = False

    name = "cut_dense"
    by_library = True

    def words(self) -> Iterable[str]:
        return (f"rank={self.rank}", *["turned"] * self.turned)

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Meant:
        return self._shaped(sketch.best_factors(self._matrix(args), self.rank))

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> tuple[Array, ...]:
        near = [
            (a.reshape(len(a), -1), b.reshape(len(b), -1))
            for a, b in zip(args[2::2], args[3::2], strict=True)
        ]
        x = self._matrix(args)
        square = float(args[1][0]) if len(args) > 1 else sketch.squared_norm(x)
        return self._shaped(sketch.cut(x, self.rank, square, near, slots.algebra))

    def _matrix(self, args: Sequence[Array]) -> Array:
        return args[0].T if self.turned else args[0]

    def _shaped(self, merged: tuple[Array, Array, Array]) -> tuple[Array, ...]:
        a, b, cost = merged
        return a.reshape(self.shapes[0]), b.reshape(self.shapes[1]), cost

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        return 2 * math.prod(shapes[0]) * self.rank * sketch.PASSES

    def kept(self, shapes: Sequence[Shape]) -> int:
        return 8 * sum(map(math.prod, self.shapes))

    def workspace(self, shapes: Sequence[Shape]) -> int:
        rows, columns = shapes[0]
        if self.rank >= min(rows, columns):
            return 0
        return sketch.room(rows, columns, self.rank, DTYPES[self.dtype].size)

    def beside(self, shapes: Sequence[Shape]) -> int:
        rows, columns = shapes[0]
        return sketch.room_of_part(rows, columns, self.rank) if rows * columns >= LARGE else 0
