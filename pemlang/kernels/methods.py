"""The step `merge` of programs: the parameters of several adapters at a site as those of one, by a
method that is no linear combination of them.

A method is one of three kinds. `Elementwise` treats each element of a tensor by itself, over the
factors or over Δ, which is then formed in tiles and cut to a rank. `Combination` weighs the
adapters by numbers that it finds from their inner products: the result keeps their factors. And
`Factorised` makes new factors from theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pemlang.kernels import sketch
from pemlang.kernels.fields import TILE, Field, matrices_field, products_field
from pemlang.kernels.lowrank import Arrays, Matrix, inner, triangle
from pemlang.kernels.sketch import squared_norm, truncated_svd
from pemlang.tensorfiles.dtypes import Array, stored_dtype

Settings = Mapping[str, Any]
"""The parameters of a method by name: numbers and words. `seeds` are those of the adapters, and
`statistics` what was collected for each."""

Found = tuple[Array, Array | None, Array]
"""A and B at scale 1, or a gain; and what a cut to a rank costs: the norm of what is lost, and the
norm of all."""


@dataclass(frozen=True)
class Request:
    """What a step `merge` is asked for.

    Attributes:
        name: of the method.
        over: `delta` or `factors`.
        rank: of what comes out; 0 for (IA)³.
        words: settings that are words.
        numbers: the names of those that are numbers.
        dtype: to compute in where the method is elementwise.
        statistics: how many tensors of statistics stand after A and B of each adapter.
    """

    name: str
    over: str
    rank: int
    words: tuple[tuple[str, str], ...]
    numbers: tuple[str, ...]
    dtype: str
    statistics: int = 0

    def __str__(self) -> str:
        words = (f"{key}={value}" for key, value in self.words)
        asked = (self.name, f"over={self.over}", f"rank={self.rank}")
        return " ".join([*asked, *words, *self.numbers])


class Method(Protocol):
    """How adapters are merged at a site."""

    def merge(
        self, parts: Sequence[Arrays], weights: Sequence[float], s: Settings, ask: Request
    ) -> Found:
        """The parameters of the merge."""

    def room(self, rows: int, columns: int, ranks: int, ask: Request) -> int:
        """The most bytes that takes beside the arguments; `ranks` is the sum of their ranks."""


METHODS: dict[str, Method] = {}
"""By the name of the operator. The operators' files fill it."""

_NO_COST = np.zeros(2)


@dataclass(frozen=True)
class Elementwise:
    """A method on each element of tensors of one shape.

    Attributes:
        look: what has to be known of the whole tensors first.
        at: the merged numbers of some rows, from those of each tensor there, and what `look` gave.
    """

    look: Callable[[Field, Settings], Any]
    at: Callable[[Field, slice, Sequence[float], Any, Settings], Array]

    def merge(
        self, parts: Sequence[Arrays], weights: Sequence[float], s: Settings, ask: Request
    ) -> Found:
        """See Method."""
        dtype = stored_dtype(ask.dtype)
        first, seeds = parts[0], s["seeds"]
        a = [part.a.astype(dtype, copy=False) for part in parts]
        if first.b is None:
            merged = self._whole(matrices_field([x.reshape(1, -1) for x in a], seeds), weights, s)
            return merged.reshape(first.a.shape), None, _NO_COST
        b = [part.out.astype(dtype, copy=False) for part in parts]
        if ask.over == "factors":
            # PEFT's weights: √|w| on both factors, and the sign of w on A.
            roots = [math.sqrt(abs(weight)) for weight in weights]
            signed = [math.copysign(root, w) for root, w in zip(roots, weights, strict=True)]
            new_a = self._whole(matrices_field(a, seeds, 0), signed, s)
            new_b = self._whole(matrices_field(b, seeds, 1), roots, s)
            return new_a.reshape(first.a.shape), new_b.reshape(first.out.shape), _NO_COST
        scaled = [x * dtype.type(part.scale) for x, part in zip(b, parts, strict=True)]
        field = products_field(list(zip(a, scaled, strict=True)), seeds)
        return _cut(self._whole(field, weights, s), ask.rank)

    def _whole(self, field: Field, weights: Sequence[float], s: Settings) -> Array:
        known = self.look(field, s)
        first, *tiles = field.tiles()
        start = self.at(field, first, weights, known, s)
        found = np.empty((field.rows, field.columns), start.dtype)
        found[first] = start
        for rows in tiles:
            found[rows] = self.at(field, rows, weights, known, s)
        return found

    def room(self, rows: int, columns: int, ranks: int, ask: Request) -> int:
        """See Method."""
        width = stored_dtype(ask.dtype).itemsize
        tiles = 16 * TILE * width * 2
        if ask.rank == 0:
            return 8 * columns * width
        if ask.over == "factors":
            return tiles + 3 * (rows + columns) * ranks * width
        cut = sketch.room(rows, columns, ask.rank, width) if ask.rank < min(rows, columns) else 0
        return tiles + rows * columns * width + 2 * (rows + columns) * ranks * width + cut


def _cut(x: Array, rank: int) -> Found:
    """A dense Δ as factors of a rank; whole where the rank is full, one of them the identity."""
    rows, columns = x.shape
    if rank >= min(rows, columns):
        eye = np.eye(min(rows, columns), dtype=x.dtype)
        return (x, eye, _NO_COST) if rows <= columns else (eye, x, _NO_COST)
    u, values, vt = truncated_svd(x, rank)
    root = np.sqrt(values) * np.where(u.max(axis=0) >= -u.min(axis=0), 1.0, -1.0)
    square = squared_norm(x)
    lost = math.sqrt(max(0.0, square - float(np.sum(values**2))))
    return root[:, None] * vt, u * root, np.array([lost, math.sqrt(square)])


@dataclass(frozen=True)
class Combination:
    """A linear combination whose numbers are found at each site: it stays as low-rank as a sum.

    Attributes:
        coefficients: the numbers from the inner products of the adapters, ⟨Δᵢ, Δⱼ⟩ as (n, n), the
            weights, and the settings: as (n,), or for row-wise methods (out, n), from (out, n, n).
        rowwise: whether inner products are of rows of Δ instead.
    """

    coefficients: Callable[[Matrix, Sequence[float], Settings], Matrix]
    rowwise: bool = False

    def merge(
        self, parts: Sequence[Arrays], weights: Sequence[float], s: Settings, ask: Request
    ) -> Found:
        """See Method."""
        gram = row_products(parts) if self.rowwise else inner_products(parts)
        numbers = self.coefficients(gram, weights, s)
        if parts[0].b is None:
            flat = [part.a.astype(np.float64) for part in parts]
            shaped = numbers.reshape(-1, len(parts)) if self.rowwise else numbers[None]
            total = sum(c * x for c, x in zip(shaped[0], flat, strict=True))
            return np.asarray(total), None, _NO_COST
        columns = [
            part.out.astype(np.float64) * part.scale * _along(numbers[..., i], part.out.ndim)
            for i, part in enumerate(parts)
        ]
        rows = [part.a.astype(np.float64) for part in parts]
        return np.concatenate(rows), np.concatenate(columns, axis=1), _NO_COST

    def room(self, rows: int, columns: int, ranks: int, ask: Request) -> int:
        """See Method."""
        return 8 * 6 * (rows + columns) * max(1, ranks)


def _along(number: Any, dims: int) -> Any:
    """A number for all of B, or one for each of its rows."""
    return number if np.ndim(number) == 0 else number.reshape(-1, *[1] * (dims - 1))


def inner_products(parts: Sequence[Arrays]) -> Matrix:
    """⟨Δᵢ, Δⱼ⟩ for all pairs, from the factors."""
    found = np.zeros((len(parts), len(parts)))
    for i, one in enumerate(parts):
        for j, other in enumerate(parts[: i + 1]):
            found[i, j] = found[j, i] = inner(one, other)
    return found


def row_products(parts: Sequence[Arrays]) -> Matrix:
    """⟨row of Δᵢ, row of Δⱼ⟩ for all pairs and rows, from the factors: (out, n, n). The gains of
    (IA)³ are one row."""
    if parts[0].b is None:
        flat = np.stack([part.a.astype(np.float64).reshape(-1) for part in parts])
        return (flat @ flat.T)[None]
    stacked = np.concatenate([_rows(part) for part in parts])
    # Rows of B·Rᵀ have the products of the rows of B·A, and are short.
    r = triangle(stacked.T).r
    cut = np.cumsum([part.a.shape[0] for part in parts])[:-1]
    sides = np.split(r, cut, axis=1)
    short = np.stack([_columns(p) @ side.T for p, side in zip(parts, sides, strict=True)])
    return np.asarray(np.einsum("iok,jok->oij", short, short))


def _rows(part: Arrays) -> Matrix:
    """A as a matrix, in float64."""
    return part.a.reshape(part.a.shape[0], -1).astype(np.float64)


def _columns(part: Arrays) -> Matrix:
    """s·B as a matrix, in float64."""
    return part.out.reshape(part.out.shape[0], -1).astype(np.float64) * part.scale


@dataclass(frozen=True)
class Factorised:
    """A method that makes factors from factors.

    Attributes:
        make: from the pairs (A, s·B) as float64 matrices, the weights, the settings, and the rank
            asked for: A (k, in) and B (out, k), of that rank or less.
    """

    make: Callable[[Sequence[tuple[Matrix, Matrix]], Sequence[float], Settings, int], Any]

    def merge(
        self, parts: Sequence[Arrays], weights: Sequence[float], s: Settings, ask: Request
    ) -> Found:
        """See Method."""
        pairs = [(_rows(part), _columns(part)) for part in parts]
        a, b = self.make(pairs, weights, s, ask.rank)
        if len(a) > ask.rank:  # more parts than a matrix of this shape has
            a, b, _ = _cut(b @ a, ask.rank)
        more = ask.rank - a.shape[0]
        return np.pad(a, ((0, more), (0, 0))), np.pad(b, ((0, 0), (0, more))), _NO_COST

    def room(self, rows: int, columns: int, ranks: int, ask: Request) -> int:
        """See Method."""
        return 8 * 8 * ((rows + columns) * max(1, ranks) + ranks * ranks)


def merged(ask: Request, arrays: Sequence[Array], numbers: Sequence[float]) -> tuple[Array, ...]:
    """The results of a step `merge`.

    Args:
        ask: what it asks for.
        arrays: of each adapter A and B, or the gains of (IA)³, and its statistics.
        numbers: of each adapter the weight, of each the scale, of each the seed, and the settings'.
    """
    gains = ask.rank == 0
    step = (1 if gains else 2) + ask.statistics
    count = len(arrays) // step
    weights, scales, seeds = (numbers[i * count : (i + 1) * count] for i in range(3))
    settings = {**dict(zip(ask.numbers, numbers[3 * count :], strict=True)), **dict(ask.words)}
    settings["seeds"] = seeds
    rows = [arrays[first : first + step] for first in range(0, len(arrays), step)]
    settings["statistics"] = [row[step - ask.statistics :] for row in rows]
    parts = [
        Arrays(row[0], None) if gains else Arrays(row[0], row[1], scale)
        for row, scale in zip(rows, scales, strict=True)
    ]
    a, b, cost = METHODS[ask.name].merge(parts, weights, settings, ask)
    if b is None:
        return (a, cost)
    return (
        a.reshape(-1, *arrays[0].shape[1:]),
        b.reshape(arrays[1].shape[0], -1, *arrays[1].shape[2:]),
        cost,
    )


def results(ask: Request, shapes: Sequence[tuple[int, ...]]) -> int:
    """Elements of the results of a step `merge`."""
    if ask.rank == 0:
        return math.prod(shapes[0])
    return ask.rank * (shapes[1][0] + math.prod(shapes[0][1:]))


def room(ask: Request, shapes: Sequence[tuple[int, ...]]) -> int:
    """The most bytes that a step `merge` takes beside its arguments and its results."""
    if ask.rank == 0:
        return METHODS[ask.name].room(1, math.prod(shapes[0]), 0, ask)
    rows, columns = shapes[1][0], math.prod(shapes[0][1:])
    ranks = sum(shape[0] for shape in shapes[:: 2 + ask.statistics])
    copies = 8 * results(ask, shapes)
    return copies + METHODS[ask.name].room(rows, columns, ranks, ask)
