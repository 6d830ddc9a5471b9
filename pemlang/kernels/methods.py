"""How adapters are merged at a site, by methods that are no linear combination of them.

A method is one of three kinds. `Elementwise` treats each element of a tensor by itself, over the
factors or over Δ, which is then formed in tiles and cut to a rank. `Combination` weighs the
adapters by numbers that it finds from their inner products: the result keeps their factors. And
`Factorised` makes new factors from theirs. A kernel holds functions and numbers alone, so that a
program that holds one can be sent to another process.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from pemlang.dataclass import dataclass
from pemlang.kernels import sketch
from pemlang.kernels.fields import TILE, Field, drawn, matrices_field, products_field
from pemlang.kernels.lowrank import LowRank, Matrix, inner, triangle
from pemlang.kernels.sketch import squared_norm, truncated_svd
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import DTYPES, Array, stored_dtype

if TYPE_CHECKING:
    from pemlang.kernels.step import Dense

T = TypeVar("T")

Reference: TypeAlias = Callable[..., Any]
"""What a method does to dense float64 tensors, or to pairs (A, s·B), by its settings' names."""

Merged: TypeAlias = "tuple[Array, Array, Array]"
"""A and B at scale 1; and what a cut to a rank costs: the norm of what is lost, and of all."""


@dataclass(frozen=True)
class MergeSettings:
    """What a method is told at a site.

    Attributes:
        numbers, words: its parameters by name.
        weights: of the adapters.
        seeds: of what is drawn for each adapter: whole numbers.
        statistics: the tensors that were collected for each.
        rank: that comes out; 0 where adapters have none.
        over: `delta` or `factors`.
        dtype: to compute in where the method is elementwise.
    """

    numbers: Mapping[str, float]
    words: Mapping[str, str]
    weights: Sequence[float]
    seeds: Sequence[float]
    statistics: Sequence[Sequence[Array]]
    rank: int
    over: str
    dtype: str

    def __getitem__(self, name: str) -> float:
        """A parameter that is a number."""
        return self.numbers[name]

    @property
    def named(self) -> dict[str, float | str]:
        """All parameters by name."""
        return {**self.numbers, **self.words}


@dataclass(frozen=True, eq=False)
class MergeKernel(ABC):
    """What computes a method.

    Attributes:
        reference: the same, written apart from it on dense float64 tensors.
        wide: whether it computes in float64 whatever the inputs are.
    """

    reference: Reference

    wide: ClassVar[bool] = True

    @abstractmethod
    def of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """The merge of some LoRAs; raises Undefined where there is none."""

    @abstractmethod
    def of_tensors(self, xs: Sequence[Array], s: MergeSettings) -> Array:
        """The merge of adapters of one tensor each, such as gains g = l − 1."""

    @abstractmethod
    def workspace(self, rows: int, columns: int, ranks: int, s: MergeSettings) -> int:
        """The most bytes either takes beside the arguments. `ranks` is the sum of the adapters';
        0 for tensors, which are one row."""

    def meaning_of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """What `of_factors` means, by the reference: factors of the dense Δ in float64, whichever
        they are, and what a cut to their rank costs."""
        deltas = [flat_columns(part) @ flat_rows(part) for part in parts]
        return best_factors(self._referred(deltas, s), s.rank)

    def meaning_of_tensors(self, xs: Sequence[Dense], s: MergeSettings) -> Dense:
        """What `of_tensors` means, by the reference."""
        return self._referred(xs, s)

    def _referred(self, xs: Sequence[Any], s: MergeSettings) -> Dense:
        return np.asarray(self.reference(xs, weights=s.weights, **s.named))


def best_factors(delta: Dense, rank: int) -> Merged:
    """The best factors of a rank by a full decomposition; with zeros where there is no more."""
    u, values, vt = np.linalg.svd(delta, full_matrices=False)
    root, more = np.sqrt(values[:rank]), max(0, rank - len(values))
    a = np.pad(root[:, None] * vt[:rank], ((0, more), (0, 0)))
    b = np.pad(u[:, :rank] * root, ((0, 0), (0, more)))
    return a, b, np.array([np.linalg.norm(values[rank:]), np.linalg.norm(values)])


# --- element by element ----------------------------------------------------------------------

Look = Callable[[Field, MergeSettings], Any]
At = Callable[[Field, slice, Sequence[float], Any, MergeSettings], Array]


@dataclass(frozen=True, eq=False)
class Elementwise(MergeKernel):
    """A method on each element of tensors of one shape.

    Attributes:
        look: what has to be known of the whole tensors first.
        at: the merged numbers of some rows, from those of each tensor there, the weights, and
            what `look` gave.
        draws: whether entries are kept by chance.
    """

    look: Look
    at: At
    draws: bool = False

    wide = False

    def of_tensors(self, xs: Sequence[Array], s: MergeSettings) -> Array:
        """See MergeKernel."""
        field = matrices_field([as_rows(x.astype(stored_dtype(s.dtype))) for x in xs], s.seeds)
        return self._whole(field, s.weights, s).reshape(xs[0].shape)

    def of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """See MergeKernel."""
        dtype = stored_dtype(s.dtype)
        a = [part.a.astype(dtype, copy=False) for part in parts]
        b = [part.b.astype(dtype, copy=False) for part in parts]
        if s.over == "factors":
            signed, roots = factor_weights(s.weights)
            new_a = self._whole(matrices_field(a, s.seeds, 0), signed, s)
            new_b = self._whole(matrices_field(b, s.seeds, 1), roots, s)
            return new_a.reshape(a[0].shape), new_b.reshape(b[0].shape), np.zeros(2)
        scaled = [x * dtype.type(part.scale) for x, part in zip(b, parts, strict=True)]
        field = products_field(list(zip(a, scaled, strict=True)), s.seeds)
        return _cut(self._whole(field, s.weights, s), s.rank)

    def _whole(self, field: Field, weights: Sequence[float], s: MergeSettings) -> Array:
        statistic = self.look(field, s)
        first, *tiles = field.tiles()
        start = self.at(field, first, weights, statistic, s)
        merged = np.empty((field.rows, field.columns), start.dtype)
        merged[first] = start
        for rows in tiles:
            merged[rows] = self.at(field, rows, weights, statistic, s)
        return merged

    def workspace(self, rows: int, columns: int, ranks: int, s: MergeSettings) -> int:
        """See MergeKernel."""
        width = DTYPES[s.dtype].size
        tiles = 16 * TILE * width * 2
        if ranks == 0:
            return 8 * columns * width
        if s.over == "factors":
            return tiles + 3 * (rows + columns) * ranks * width
        cut = sketch.room(rows, columns, s.rank, width) if s.rank < min(rows, columns) else 0
        return tiles + rows * columns * width + 2 * (rows + columns) * ranks * width + cut

    def meaning_of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """See MergeKernel."""
        if s.over != "factors":
            return super().meaning_of_factors(parts, s)
        signed, roots = factor_weights(s.weights)
        a = self._meant([part.a.reshape(len(part.a), -1) for part in parts], signed, s, 0)
        b = self._meant([part.b.reshape(len(part.b), -1) for part in parts], roots, s, 1)
        return a, b, np.zeros(2)

    def meaning_of_tensors(self, xs: Sequence[Dense], s: MergeSettings) -> Dense:
        """See MergeKernel."""
        return self._referred([as_rows(x) for x in xs], s)

    def _referred(self, xs: Sequence[Dense], s: MergeSettings) -> Dense:
        return self._meant(xs, s.weights, s, 0)

    def _meant(
        self, xs: Sequence[Dense], weights: Sequence[float], s: MergeSettings, part: int
    ) -> Dense:
        """The reference on matrices that are part number `part` of a site."""
        draws: dict[str, Sequence[Dense]] = {}
        if self.draws:
            field = matrices_field(xs, s.seeds, part)
            whole = slice(0, field.rows)
            draws["draws"] = [field.draws(index, whole) / 2**32 for index in range(len(xs))]
        return np.asarray(self.reference(xs, weights=weights, **s.named, **draws))


def as_rows(x: Array) -> Array:
    """A tensor as a matrix: its first axis and the rest; a vector along any axis as one row."""
    return x.reshape(1 if x.size == max(x.shape) else x.shape[0], -1)


def factor_weights(weights: Sequence[float]) -> tuple[list[float], list[float]]:
    """PEFT's weights of A and of B: √|w| on both, and the sign of w on A."""
    roots = [math.sqrt(abs(weight)) for weight in weights]
    return [math.copysign(root, w) for root, w in zip(roots, weights, strict=True)], roots


def _cut(x: Array, rank: int) -> Merged:
    """A dense Δ as factors of a rank; whole where the rank is full, one of them the identity."""
    rows, columns = x.shape
    if rank >= min(rows, columns):
        eye = np.eye(min(rows, columns), dtype=x.dtype)
        return (x, eye, np.zeros(2)) if rows <= columns else (eye, x, np.zeros(2))
    u, values, vt = truncated_svd(x, rank)
    root = np.sqrt(values) * np.where(u.max(axis=0) >= -u.min(axis=0), 1.0, -1.0)
    square = squared_norm(x)
    lost = math.sqrt(max(0.0, square - float(np.sum(values**2))))
    return root[:, None] * vt, u * root, np.array([lost, math.sqrt(square)])


# --- linear combinations ---------------------------------------------------------------------

Coefficients = Callable[[Matrix, Sequence[float], MergeSettings], Matrix]


@dataclass(frozen=True, eq=False)
class Combination(MergeKernel):
    """A linear combination whose numbers are found at each site: it stays as low-rank as a sum.

    Attributes:
        coefficients: the numbers from the inner products of the adapters, ⟨Δᵢ, Δⱼ⟩ as (n, n), the
            weights, and the settings: as (n,), or for row-wise methods (out, n), from (out, n, n).
        rowwise: whether inner products are of rows of Δ instead.
    """

    coefficients: Coefficients
    rowwise: bool = False

    def of_tensors(self, xs: Sequence[Array], s: MergeSettings) -> Array:
        """See MergeKernel."""
        flat = [x.astype(np.float64) for x in xs]
        gram = products(flat, lambda x, y: float(np.sum(x * y)))
        # A tensor is one row.
        numbers = self.coefficients(gram[None] if self.rowwise else gram, s.weights, s).reshape(-1)
        return np.asarray(sum(c * x for c, x in zip(numbers, flat, strict=True)))

    def of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """See MergeKernel."""
        gram = row_products(parts) if self.rowwise else products(parts, inner)
        numbers = self.coefficients(gram, s.weights, s)
        columns = [
            part.b.astype(np.float64) * part.scale * _along(numbers[..., i], part.b.ndim)
            for i, part in enumerate(parts)
        ]
        rows = [part.a.astype(np.float64) for part in parts]
        return np.concatenate(rows), np.concatenate(columns, axis=1), np.zeros(2)

    def workspace(self, rows: int, columns: int, ranks: int, s: MergeSettings) -> int:
        """See MergeKernel."""
        return 8 * 6 * (rows + columns) * max(1, ranks)


def _along(number: Matrix, dims: int) -> Matrix:
    """A number for all of B, or one for each of its rows."""
    return number if np.ndim(number) == 0 else number.reshape(-1, *[1] * (dims - 1))


def products(xs: Sequence[T], product: Callable[[T, T], float]) -> Matrix:
    """⟨xᵢ, xⱼ⟩ for all pairs."""
    gram = np.zeros((len(xs), len(xs)))
    for i, x in enumerate(xs):
        for j, y in enumerate(xs[: i + 1]):
            gram[i, j] = gram[j, i] = product(x, y)
    return gram


def row_products(parts: Sequence[LowRank]) -> Matrix:
    """⟨row of Δᵢ, row of Δⱼ⟩ for all pairs and rows, from the factors: (out, n, n)."""
    stacked = np.concatenate([flat_rows(part) for part in parts])
    # Rows of B·Rᵀ have the products of the rows of B·A, and are short.
    r = triangle(stacked.T).r
    cut = np.cumsum([part.a.shape[0] for part in parts])[:-1]
    sides = np.split(r, cut, axis=1)
    short = np.stack([flat_columns(p) @ side.T for p, side in zip(parts, sides, strict=True)])
    return np.asarray(np.einsum("iok,jok->oij", short, short))


def flat_rows(part: LowRank) -> Matrix:
    """A as a matrix, in float64."""
    return part.a.reshape(part.a.shape[0], -1).astype(np.float64)


def flat_columns(part: LowRank) -> Matrix:
    """s·B as a matrix, in float64."""
    return part.b.reshape(part.b.shape[0], -1).astype(np.float64) * part.scale


# --- new factors -----------------------------------------------------------------------------

Pairs: TypeAlias = "Sequence[tuple[Matrix, Matrix]]"
"""A (r, in) and s·B (out, r) of each adapter at a site."""

Make = Callable[[Pairs, Sequence[float], MergeSettings], tuple[Matrix, Matrix]]


@dataclass(frozen=True, eq=False)
class Factorised(MergeKernel):
    """A method that makes factors from factors.

    Attributes:
        make: from the pairs (A, s·B) as float64 matrices, the weights and the settings: A (k, in)
            and B (out, k), of the rank in the settings or less.
        from_pairs: whether the reference takes pairs (A, s·B) and not dense tensors.
        draws: whether it takes a number that is drawn.
    """

    make: Make
    from_pairs: bool = False
    draws: bool = False

    def of_tensors(self, xs: Sequence[Array], s: MergeSettings) -> Array:
        """See MergeKernel."""
        raise AssertionError("this method is for LoRA alone")

    def of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """See MergeKernel."""
        pairs = [(flat_rows(part), flat_columns(part)) for part in parts]
        a, b = self.make(pairs, s.weights, s)
        if len(a) > s.rank:  # more parts than a matrix of this shape has
            a, b, _ = _cut(b @ a, s.rank)
        more = s.rank - a.shape[0]
        return np.pad(a, ((0, more), (0, 0))), np.pad(b, ((0, 0), (0, more))), np.zeros(2)

    def workspace(self, rows: int, columns: int, ranks: int, s: MergeSettings) -> int:
        """See MergeKernel."""
        return 8 * 8 * ((rows + columns) * max(1, ranks) + ranks * ranks)

    def meaning_of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """See MergeKernel."""
        if not self.from_pairs:
            return super().meaning_of_factors(parts, s)
        pairs = [(flat_rows(part), flat_columns(part)) for part in parts]
        return best_factors(self._referred(pairs, s), s.rank)

    def _referred(self, xs: Sequence[Any], s: MergeSettings) -> Dense:
        draw = {"draw": int(drawn((int(s.seeds[0]), 0), 0, 8)[0])} if self.draws else {}
        return np.asarray(self.reference(xs, weights=s.weights, **s.named, **draw))
