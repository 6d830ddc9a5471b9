"""Steps on whole matrices: put side by side, padded, truncated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pemlang.dataclass import dataclass
from pemlang.kernels.lowrank import LowRank, norm, truncate
from pemlang.kernels.step import Dense, Meaning, Meant, Renumber, Shape, SiteInputs, Step
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import Array, stored_dtype


@dataclass(frozen=True)
class Concat(Step):
    """Values side by side along an axis, in the widest precision of them."""

    axis: int

    name = "concat"

    def words(self) -> Iterable[str]:
        return (str(self.axis),)

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return np.concatenate(args, axis=self.axis)

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        whole: Array = np.concatenate(args, self.axis, dtype=stored_dtype(self.dtype))
        return whole


@dataclass(frozen=True)
class PadAxis(Step):
    """x with zeros after it along an axis."""

    axis: int

    name = "pad"

    def words(self) -> Iterable[str]:
        return (str(self.axis),)

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        more = self.shape[self.axis] - args[0].shape[self.axis]
        zeros = [*args[0].shape]
        zeros[self.axis] = more
        return np.concatenate([args[0], np.zeros(zeros)], axis=self.axis)

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        widths = [(0, n - m) for n, m in zip(self.shape, args[0].shape, strict=True)]
        return np.pad(args[0], widths)


@dataclass(frozen=True)
class GatherRows(Step):
    """At each row the mean of the rows that go there.

    Attributes:
        runs: of each value it takes, the rows that go somewhere: the first place, the first of
            them, how many. Every place gets a row.
    """

    runs: tuple[tuple[tuple[int, int, int], ...], ...]

    name = "gather_rows"

    def words(self) -> Iterable[str]:
        return (f"{sum(map(len, self.runs))} runs",)

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        places: list[list[Dense]] = [[] for _ in range(self.shape[0])]
        for x, runs in zip(args, self.runs, strict=True):
            for place, first, count in runs:
                for offset in range(count):
                    places[place + offset].append(x[first + offset])
        return np.stack([np.mean(rows, axis=0) for rows in places])

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        # What is added to −0 stays what it is, a −0 too.
        rows: Array = np.full(self.shape, -0.0, stored_dtype(self.dtype))
        counts = np.zeros(self.shape[0], np.int64)
        for x, runs in zip(args, self.runs, strict=True):
            for place, first, count in runs:
                rows[place : place + count] += x[first : first + count]
                counts[place : place + count] += 1
        several = np.flatnonzero(counts > 1)
        rows[several] /= counts[several].reshape(-1, *[1] * (len(self.shape) - 1))
        return rows

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        return elements


@dataclass(frozen=True)
class _OfProduct(Step):
    """A step on scale·B·A, which is never formed, from A and B.

    Attributes:
        scale: the constant slot of the scale.
    """

    scale: int

    def words(self) -> Iterable[str]:
        return (f"c{self.scale}",)

    def renumbered(self, inputs: Renumber, constants: Renumber, outputs: Renumber) -> Step:
        return replace(self, scale=constants(self.scale))

    def _meant(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        """The dense Δ."""
        a, b = args
        rows = slots.constants[self.scale] * b.reshape(b.shape[0], -1)
        return rows @ a.reshape(a.shape[0], -1)

    def _factors(self, args: Sequence[Array], slots: SiteInputs) -> LowRank:
        return LowRank(args[0], args[1], slots.constants[self.scale])

    def workspace(self, shapes: Sequence[Shape]) -> int:
        a, b = shapes
        # What a QR decomposition takes: a factor in float64, a working copy of it, and Q.
        return 8 * (3 * (math.prod(a) + math.prod(b)) + 12 * a[0] ** 2)

    def _decomposing(self, shapes: Sequence[Shape]) -> int:
        """Operations of two QR decompositions with their Q, and of an SVD of the core."""
        rank = shapes[0][0]
        return 4 * sum(map(math.prod, shapes)) * rank + 24 * rank**3


@dataclass(frozen=True)
class CoreSvd(_OfProduct):
    """The factors of the best approximation of a rank, and what it costs: the norm of what is cut
    off, and the norm of all. Float64; see lowrank.truncate."""

    rank: int

    name = "core_svd"
    by_library = True

    def words(self) -> Iterable[str]:
        return (f"c{self.scale}", f"rank={self.rank}")

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Meant:
        a, b = args
        scale = slots.constants[self.scale]
        u, values, vt = np.linalg.svd(self._meant(args, slots), full_matrices=False)
        left, right, root = u[:, : self.rank], vt[: self.rank], np.sqrt(values[: self.rank])
        signs = np.where(left.max(axis=0) >= -left.min(axis=0), 1, -1)
        new_a = (signs * root)[:, None] * right
        new_b = left * (signs * root / scale if scale else 0 * root)
        cost = np.array([np.linalg.norm(values[self.rank :]), np.linalg.norm(values)])
        return new_a.reshape(-1, *a.shape[1:]), new_b.reshape(b.shape[0], -1, *b.shape[2:]), cost

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> tuple[Array, ...]:
        return truncate(self._factors(args, slots), self.rank, slots.algebra)

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        # … and Q times what is kept.
        return self._decomposing(shapes) + 2 * sum(map(math.prod, shapes)) * self.rank

    def kept(self, shapes: Sequence[Shape]) -> int:
        return 8 * self.rank * sum(map(math.prod, shapes)) // shapes[0][0]


class Whole(_OfProduct):
    """What a cut costs that cuts nothing: 0, and the norm of all."""

    name = "whole"

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return np.array([0.0, np.linalg.norm(self._meant(args, slots))])

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        return np.array([0.0, norm(self._factors(args, slots), slots.algebra)])

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        return self._decomposing(shapes)


@dataclass(frozen=True)
class Item(Step):
    """One of the results of a step that has several."""

    index: int

    name = "item"
    is_part = True

    def words(self) -> Iterable[str]:
        return (str(self.index),)

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        item: Dense = args[0][self.index]
        return item

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        item: Array = args[0][self.index]
        return item

    def kept(self, shapes: Sequence[Shape]) -> int:
        return 0
