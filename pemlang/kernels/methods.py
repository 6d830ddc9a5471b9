"""How adapters are merged at a site, by methods that are no linear combination of them.

A method is one of three kinds. `Elementwise` (`entries.py`) treats each element of a tensor by
itself: it writes steps. `Combination` weighs the adapters by numbers that it finds from their inner
products: the result keeps their factors. And `Factorised` makes new factors from theirs. Programs
hold kernels of these two, which hold functions and numbers alone, so that a program can be sent to
another process.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from pemlang.dataclass import dataclass
from pemlang.kernels.algebra import NUMPY, Algebra, Matrix, StoredTensor
from pemlang.kernels.lowrank import LowRank, inner_of_all, triangle
from pemlang.kernels.philox import drawn
from pemlang.kernels.sketch import Merged, best_factors, cut, squared_norm
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import Array

if TYPE_CHECKING:
    from pemlang.kernels.builder import Builder, KernelCall, Value
    from pemlang.kernels.entries import Entries
    from pemlang.kernels.step import Dense, Shape

    AnyBuilder: TypeAlias = Builder[Any, Any]

Reference: TypeAlias = Callable[..., Any]
"""What a method does to dense float64 tensors, or to pairs (A, s·B), by its settings' names."""


@dataclass(frozen=True)
class MergeInputs:
    """What is merged at a site, while its program is made.

    Attributes:
        name: of the method.
        parts: the tensors of each adapter, and then its statistics.
        statistics: how many of these there are.
        weights, scales, seeds: of each adapter; a seed is a whole number.
        numbers, words: the settings by name.
        rank: that comes out; 0 where adapters have none.
        over: `delta` or `factors`.
        dtype: to compute in.
    """

    name: str
    parts: Sequence[Sequence[Value]]
    statistics: int
    weights: Sequence[float]
    scales: Sequence[float]
    seeds: Sequence[float]
    numbers: Mapping[str, float]
    words: Mapping[str, str]
    rank: int
    over: str
    dtype: str


@dataclass(frozen=True)
class MergeSettings:
    """What a method is told at a site.

    Attributes:
        numbers, words: its parameters by name.
        weights: of the adapters.
        seeds: of what is drawn for each adapter: whole numbers.
        statistics: the tensors that were collected for each.
        rank: that comes out; 0 where adapters have none.
        algebra: what computes on whole arrays.
    """

    numbers: Mapping[str, float]
    words: Mapping[str, str]
    weights: Sequence[float]
    seeds: Sequence[float]
    statistics: Sequence[Sequence[Array]]
    rank: int
    algebra: Algebra = NUMPY

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
    def write(self, builder: AnyBuilder, inputs: MergeInputs) -> tuple[list[Value], Value | None]:
        """Write the steps of a merge: the tensors that come out, A and B or one; and what a cut to
        the rank costs, where there may be one."""


@dataclass(frozen=True, eq=False)
class SiteKernel(MergeKernel):
    """What computes a method on the whole tensors of a site."""

    def write(self, builder: AnyBuilder, inputs: MergeInputs) -> tuple[list[Value], Value | None]:
        """See MergeKernel."""
        *values, cost = builder.merge(self, inputs)
        return values, cost

    @abstractmethod
    def of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """The merge of some LoRAs; raises Undefined where there is none."""

    @abstractmethod
    def of_tensors(self, xs: Sequence[StoredTensor], s: MergeSettings) -> Array:
        """The merge of adapters of one tensor each, such as gains g = l − 1."""

    @abstractmethod
    def workspace(self, rows: int, columns: int, ranks: int, s: MergeSettings) -> int:
        """The most bytes either takes beside the arguments. `ranks` is the sum of the adapters';
        0 for tensors, whose rows are along the first axis."""

    def flops(self, numbers: int, columns: int, least: int) -> int:
        """About how many floating point operations either takes: a few products of the arguments
        with as many columns as there are.

        Args:
            numbers: how many the arguments hold.
            columns: those of all factors B together, or how many tensors there are.
            least: the shorter side of tensors that are matrices; 0 for others, and for factors.
        """
        return 10 * numbers * max(1, columns)

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


# --- element by element ----------------------------------------------------------------------

Emit: TypeAlias = "Callable[[Entries], Value]"
"""Writes the merged tensor."""


@dataclass(frozen=True, eq=False)
class Elementwise(MergeKernel):
    """A method on each element of tensors of one shape.

    Attributes:
        emit: writes its steps.
    """

    emit: Emit

    wide = False

    def write(self, builder: AnyBuilder, inputs: MergeInputs) -> tuple[list[Value], Value | None]:
        """See MergeKernel."""
        from pemlang.kernels.entries import Entries

        tensors = [[builder.cast(x, inputs.dtype) for x in part] for part in inputs.parts]
        if not inputs.rank:
            xs = [part[0] for part in tensors]
            return [self.emit(Entries(builder, xs, inputs.weights, inputs))], None
        if inputs.over == "factors":
            merged = [
                self.emit(Entries(builder, xs, weights, inputs, part))
                for part, (xs, weights) in enumerate(
                    zip(zip(*tensors, strict=True), factor_weights(inputs.weights), strict=True)
                )
            ]
            return merged, None
        a, b = tensors[0]
        body = self._over_deltas(inputs, (b.shape[0], math.prod(a.shape[1:])))
        pairs = [(part[0], part[1]) for part in tensors]
        whole, square = builder.over_deltas(body, pairs, inputs.scales)
        new_a, new_b, cost = builder.cut_dense(whole, square, pairs, inputs.rank)
        return [new_a, new_b], cost

    def _over_deltas(self, inputs: MergeInputs, shape: tuple[int, int]) -> KernelCall[int, int]:
        """The program of the merge of matrices that are the adapters' Δ."""
        from pemlang.kernels.builder import Builder
        from pemlang.kernels.entries import Entries

        body = Builder[int, int]()
        deltas = [body.load(number, inputs.dtype, shape) for number in range(len(inputs.parts))]
        merged = self.emit(Entries(body, deltas, inputs.weights, inputs))
        body.store(merged, 0, inputs.dtype)
        [call] = body.calls()
        return call

    def of_arrays(
        self,
        xs: Sequence[Array],
        weights: Sequence[float],
        s: MergeSettings,
    ) -> Array:
        """The merge of some matrices that are in memory, by a method that draws nothing."""
        if not xs[0].size:
            return xs[0]
        from pemlang.kernels.builder import Builder
        from pemlang.kernels.entries import Entries

        dtype = "F64" if xs[0].dtype == np.float64 else "F32"
        builder = Builder[int, int]()
        loads = [builder.load(number, dtype, x.shape) for number, x in enumerate(xs)]
        inputs = MergeInputs(
            "", [[x] for x in loads], 0, weights, [1.0] * len(xs), (), s.numbers, s.words, 0,
            "delta", dtype,
        )  # fmt: skip
        builder.store(self.emit(Entries(builder, loads, weights, inputs)), 0, dtype)
        [call] = builder.calls()
        inputs_of = [xs[number] for number in call.inputs]
        return s.algebra.over_arrays(call.program, inputs_of, call.constants)


def factor_weights(weights: Sequence[float]) -> tuple[list[float], list[float]]:
    """PEFT's weights of A and of B: √|w| on both, and the sign of w on A."""
    roots = [math.sqrt(abs(weight)) for weight in weights]
    return [math.copysign(root, w) for root, w in zip(roots, weights, strict=True)], roots


# --- linear combinations ---------------------------------------------------------------------

BLOCK = 1 << 14
"""Elements of tensors that are taken to float64 at a time, to stay in the nearest caches."""

Coefficients = Callable[[Matrix, Sequence[float], MergeSettings], Matrix]

WHOLE_TENSOR = "tensor"
"""The word of `along` for one number a tensor; the others are `rows` and `columns`."""


@dataclass(frozen=True, eq=False)
class Combination(SiteKernel):
    """A linear combination whose numbers are found at each site: it stays as low-rank as a sum.

    Attributes:
        coefficients: the numbers from the inner products of the adapters, ⟨Δᵢ, Δⱼ⟩ as (n, n), the
            weights, and the settings: as (n,), or of lines (lines, n), from (lines, n, n).
        rowwise: whether it always goes by rows; else the setting `along` says whether numbers are
            for the whole tensor, for its rows, or for its columns.
    """

    coefficients: Coefficients
    rowwise: bool = False

    def _along(self, s: MergeSettings) -> str:
        return "rows" if self.rowwise else s.words.get("along", WHOLE_TENSOR)

    def of_tensors(self, xs: Sequence[StoredTensor], s: MergeSettings) -> Array:
        """See SiteKernel. A vector is one column too."""
        along = self._along(s)
        if along != WHOLE_TENSOR and not is_vector(xs[0].shape):
            lines = [as_rows(x.whole()) for x in xs]
            return self._of_lines(lines, along, s).reshape(xs[0].shape)
        gram = _products(xs)
        numbers = self.coefficients(gram if along == WHOLE_TENSOR else gram[None], s.weights, s)
        return _weighted(xs, numbers.reshape(-1))

    def _of_lines(self, xs: Sequence[Matrix], along: str, s: MergeSettings) -> Matrix:
        product = "rc,rc->r" if along == "rows" else "rc,rc->c"
        gram = np.array([[np.einsum(product, x, y) for y in xs] for x in xs])
        numbers = self.coefficients(np.moveaxis(gram, -1, 0), s.weights, s)
        total = np.zeros(xs[0].shape)
        for x, number in zip(xs, numbers.T, strict=True):
            total += x * (number[:, None] if along == "rows" else number)
        return total

    def of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """See SiteKernel."""
        along = self._along(s)
        if along == "columns":  # the rows of Δᵀ = s·Aᵀ·Bᵀ
            turned = [LowRank(flat_columns(part).T, flat_rows(part).T) for part in parts]
            b, a, cost = self._of_factors(turned, "rows", s)
            return a.T, b.T, cost
        return self._of_factors(parts, along, s)

    def _of_factors(self, parts: Sequence[LowRank], along: str, s: MergeSettings) -> Merged:
        rowwise = along == "rows"
        gram = row_products(parts, s.algebra) if rowwise else inner_of_all(parts, s.algebra)
        numbers = self.coefficients(gram, s.weights, s)
        a = np.concatenate([part.a for part in parts], dtype=np.float64)
        b = np.empty((len(parts[0].b), len(a), *parts[0].b.shape[2:]))
        ends = np.cumsum([len(part.a) for part in parts])[:-1]
        for i, columns in enumerate(np.split(b, ends, axis=1)):
            part = parts[i]
            factor = part.scale * _each_row(numbers[..., i], part.b.ndim)
            np.multiply(part.b, factor, out=columns, dtype=np.float64)
        return a, b, np.zeros(2)

    def workspace(self, rows: int, columns: int, ranks: int, s: MergeSettings) -> int:
        """See SiteKernel."""
        count = len(s.weights)
        if ranks:
            return 8 * 6 * (rows + columns) * ranks
        if self._along(s) == WHOLE_TENSOR:
            return 8 * (count + 2) * BLOCK
        lines = max(rows, columns) if rows > 1 else 1
        return 8 * ((count + 2) * rows * columns + 4 * count**2 * lines)


def _products(xs: Sequence[StoredTensor]) -> Matrix:
    """⟨xᵢ, xⱼ⟩ of all pairs, (n, n)."""
    gram = np.zeros((len(xs), len(xs)))
    for first in range(0, math.prod(xs[0].shape), BLOCK):
        parts = [x.part(first, first + BLOCK) for x in xs]
        for i, j in combinations_with_replacement(range(len(xs)), 2):
            gram[i, j] += np.dot(parts[i], parts[j])
    return np.asarray(np.triu(gram) + np.triu(gram, 1).T)


def _weighted(xs: Sequence[StoredTensor], numbers: Matrix) -> Array:
    """Σ cᵢ·xᵢ."""
    size = math.prod(xs[0].shape)
    total = np.empty(size)
    for first in range(0, size, BLOCK):
        out = total[first : first + BLOCK]
        np.multiply(xs[0].part(first, first + BLOCK), numbers[0], out=out)
        for x, number in zip(xs[1:], numbers[1:], strict=True):
            out += number * x.part(first, first + BLOCK)
    return total.reshape(xs[0].shape)


def _each_row(number: Matrix, dims: int) -> Matrix:
    """A number for all of B, or one for each of its rows."""
    return number if np.ndim(number) == 0 else number.reshape(-1, *[1] * (dims - 1))


def row_products(parts: Sequence[LowRank], algebra: Algebra) -> Matrix:
    """⟨row of Δᵢ, row of Δⱼ⟩ for all pairs and rows, from the factors: (out, n, n)."""
    stacked = np.concatenate([flat_rows(part) for part in parts])
    # Rows of B·Rᵀ have the products of the rows of B·A, and are short.
    r = triangle(stacked.T, algebra).r
    cut = np.cumsum([part.a.shape[0] for part in parts])[:-1]
    sides = np.split(r, cut, axis=1)
    short = np.stack([flat_columns(p) @ side.T for p, side in zip(parts, sides, strict=True)])
    return np.asarray(np.einsum("iok,jok->oij", short, short))


def is_vector(shape: Shape) -> bool:
    """Whether a tensor of a shape is a vector, along whichever axis, or one number."""
    return math.prod(shape) == max(shape, default=1)


def as_rows(x: Array) -> Array:
    """A tensor as a matrix: a row is all that stands at one place of its first axis; of a vector
    there is one."""
    return x.reshape(1 if is_vector(x.shape) else len(x), -1)


def flat_rows(part: LowRank) -> Matrix:
    """A as a matrix, in float64."""
    return part.a.reshape(part.a.shape[0], -1).astype(np.float64, copy=False)


def flat_columns(part: LowRank) -> Matrix:
    """s·B as a matrix, in float64."""
    b = part.b.reshape(part.b.shape[0], -1)
    return np.multiply(b, part.scale, dtype=np.float64)


def svd_room(rows: int, columns: int) -> int:
    """The bytes that LAPACK's singular value decomposition of a float64 matrix takes, its factors
    included."""
    least = min(rows, columns)
    return 8 * (rows * columns + 2 * (rows + columns) * least + 6 * least**2)


# --- new factors -----------------------------------------------------------------------------

Pairs: TypeAlias = "Sequence[tuple[Matrix, Matrix]]"
"""A (r, in) and s·B (out, r) of each adapter at a site."""

Make = Callable[[Pairs, Sequence[float], MergeSettings], tuple[Matrix, Matrix]]

OfTensors = Callable[[Sequence[Array], Sequence[float], MergeSettings], Array]
"""The merge of tensors in float64, by their weights and the settings."""


@dataclass(frozen=True, eq=False)
class Factorised(SiteKernel):
    """A method that makes factors from factors.

    Attributes:
        make: from the pairs (A, s·B), the weights and the settings: A (k, in)
            and B (out, k), of the rank in the settings or less.
        from_pairs: whether the reference takes pairs (A, s·B) and not dense tensors.
        draws: whether it takes a number that is drawn.
        votes: whether it lets adapters vote on matrices of Σr rows as long as those of A.
        whole: what it makes of whole matrices, (out, in); None for a method for LoRA alone.
        rest: what it makes then of tensors that are no matrices, as vectors.
    """

    make: Make
    from_pairs: bool = False
    draws: bool = False
    votes: bool = False
    whole: OfTensors | None = None
    rest: OfTensors | None = None

    def of_tensors(self, xs: Sequence[StoredTensor], s: MergeSettings) -> Array:
        """See SiteKernel."""
        assert self.whole is not None and self.rest is not None, "this method is for LoRA alone"
        wholes = [x.whole() for x in xs]
        if wholes[0].ndim == 2:
            return self.whole(wholes, s.weights, s)
        return self.rest([x.reshape(-1) for x in wholes], s.weights, s).reshape(xs[0].shape)

    def of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """See SiteKernel."""
        pairs = [(flat_rows(part), flat_columns(part)) for part in parts]
        a, b = self.make(pairs, s.weights, s)
        if len(a) > s.rank:  # more parts than a matrix of this shape has
            x = b @ a
            a, b, _ = cut(x, s.rank, squared_norm(x), algebra=s.algebra)
        more = s.rank - a.shape[0]
        if more:
            a, b = np.pad(a, ((0, more), (0, 0))), np.pad(b, ((0, 0), (0, more)))
        return a, b, np.zeros(2)

    def flops(self, numbers: int, columns: int, least: int) -> int:
        """See SiteKernel."""
        return 20 * numbers * least if least else super().flops(numbers, columns, least)

    def workspace(self, rows: int, columns: int, ranks: int, s: MergeSettings) -> int:
        """See SiteKernel."""
        count = len(s.weights)
        if not ranks:
            wide = columns * count if self.votes else columns
            held = 8 * count * rows * columns
            return held + svd_room(rows, wide) + 8 * 4 * (rows + wide) * min(rows, wide)
        ballots = (2 * count + 2) * ranks * columns if self.votes else 0
        return 8 * (8 * ((rows + columns) * max(1, ranks) + ranks * ranks) + ballots)

    def meaning_of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """See SiteKernel."""
        if not self.from_pairs:
            return super().meaning_of_factors(parts, s)
        pairs = [(flat_rows(part), flat_columns(part)) for part in parts]
        return best_factors(self._referred(pairs, s), s.rank)

    def _referred(self, xs: Sequence[Any], s: MergeSettings) -> Dense:
        draw = {"draw": int(drawn((int(s.seeds[0]), 0), 0, 8)[0])} if self.draws else {}
        return np.asarray(self.reference(xs, weights=s.weights, **s.named, **draw))
