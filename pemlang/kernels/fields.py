"""Tensors of one shape that are walked together, a tile of rows at a time: the factors of some
adapters, or what they do, Δ = s·B·A, of which no more than a tile is ever formed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from pemlang.dataclass import dataclass
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE = 1 << 18
"""Elements of a tile. Like a block it is the same on any machine, so that sums over tiles are."""

_ALIGNED = 8  # a step of the generator gives eight numbers

Draws: TypeAlias = "NDArray[np.uint32]"


@dataclass(frozen=True, eq=False)
class Field:
    """Some tensors of one shape, as matrices.

    Attributes:
        rows, columns: of each.
        count: how many there are.
        tile: a tensor's number and some rows of it to the numbers there.
        seeds: of what is drawn for each, whole numbers.
        part: which of several fields of a site this is; each has draws of its own.
    """

    rows: int
    columns: int
    count: int
    tile: Callable[[int, slice], Array]
    seeds: Sequence[float]
    part: int = 0

    @property
    def size(self) -> int:
        """Elements of one tensor."""
        return self.rows * self.columns

    def tiles(self) -> Iterator[slice]:
        """The rows of each tile, in order."""
        step = max(_ALIGNED, TILE // max(1, self.columns) // _ALIGNED * _ALIGNED)
        for first in range(0, self.rows, step):
            yield slice(first, min(self.rows, first + step))

    def of(self, index: int) -> Callable[[], Iterator[Array]]:
        """A walk over the tiles of one tensor."""
        return lambda: (self.tile(index, rows) for rows in self.tiles())

    def draws(self, index: int, rows: slice) -> Draws:
        """A number from 0 to 2³² − 1 for each element of a tile of one tensor."""
        count = (rows.stop - rows.start) * self.columns
        key = (int(self.seeds[index]), self.part)
        return drawn(key, rows.start * self.columns, count).reshape(-1, self.columns)


def drawn(key: tuple[int, int], first: int, count: int) -> Draws:
    """Numbers from 0 to 2³² − 1 of the stream of a key, from a place in it on that is a multiple
    of 8. The same whatever the order, the threads and the tiles (Philox 4×64, Salmon et al. 2011).
    """
    generator = np.random.Philox(key=np.array(key, np.uint64))
    generator.advance(first // _ALIGNED)
    return generator.random_raw(-(-count // 2)).view(np.uint32)[:count]


def matrices_field(tensors: Sequence[Array], seeds: Sequence[float], part: int = 0) -> Field:
    """The field of some tensors that are in memory."""
    flat = [tensor.reshape(tensor.shape[0], -1) for tensor in tensors]
    rows, columns = flat[0].shape
    return Field(rows, columns, len(flat), lambda i, rows: flat[i][rows], seeds, part)


def products_field(factors: Sequence[tuple[Array, Array]], seeds: Sequence[float]) -> Field:
    """The field of the products B·A of some factors (A, B)."""
    flat = [(a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)) for a, b in factors]
    rows, columns = flat[0][1].shape[0], flat[0][0].shape[1]
    return Field(rows, columns, len(flat), lambda i, at: flat[i][1][at] @ flat[i][0], seeds)


def kth_largest(walk: Callable[[], Iterator[Array]], size: int, k: int) -> float:
    """The k-th largest magnitude of a tensor, exactly; infinite for k = 0.

    Magnitudes order as the bits of their floats do: a count of the leading 16 bits tells which of
    them the k-th has, and the next 16 are counted among those alone.
    """
    if k <= 0:
        return float("inf")
    if size <= 2 * TILE:
        whole = np.concatenate([np.abs(tile).reshape(-1) for tile in walk()])
        return float(np.partition(whole, size - k)[size - k])
    prefix, width, dtype = 0, 0, np.dtype("f4")
    while width == 0 or width < dtype.itemsize * 8:
        counts = np.zeros(1 << 16, np.int64)
        for tile in walk():
            dtype = tile.dtype
            bits = np.abs(tile).reshape(-1).view(f"u{dtype.itemsize}")
            lower = dtype.itemsize * 8 - width - 16
            if width:
                bits = bits[bits >> (lower + 16) == prefix]
            counts += np.bincount((bits >> lower) & 0xFFFF, minlength=1 << 16)
        above = np.cumsum(counts[::-1])
        place = int(np.searchsorted(above, k))
        k -= int(above[place - 1]) if place else 0
        prefix, width = (prefix << 16) | (0xFFFF - place), width + 16
    return float(np.array([prefix], f"u{dtype.itemsize}").view(dtype)[0])
