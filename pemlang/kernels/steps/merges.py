"""The step that merges several adapters at a site by a method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pemlang.dataclass import dataclass
from pemlang.kernels.algebra import NUMPY, Algebra, StoredTensor
from pemlang.kernels.lowrank import LowRank
from pemlang.kernels.methods import MergeSettings, SiteKernel, is_vector
from pemlang.kernels.step import Dense, Meaning, Meant, Renumber, Shape, SiteInputs, Step
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import DTYPES, Array, stored_dtype


@dataclass(frozen=True)
class MergeRequest:
    """What is asked of a method.

    Attributes:
        name: of the method.
        kernel: what computes it.
        rank: of what comes out; 0 where adapters have none.
        words: settings that are words.
        numbers: the names of those that are numbers.
        statistics: how many tensors of statistics stand after those of each adapter.
    """

    name: str
    kernel: SiteKernel
    rank: int
    words: tuple[tuple[str, str], ...]
    numbers: tuple[str, ...]
    statistics: int = 0

    def __str__(self) -> str:
        words = (f"{key}={value}" for key, value in self.words)
        return " ".join([self.name, f"rank={self.rank}", *words, *self.numbers])

    @property
    def tensors(self) -> int:
        """Tensors of each adapter among the arguments, its statistics aside."""
        return 2 if self.rank else 1


@dataclass(frozen=True)
class MergeTensors(Step):
    """A and B of the merge of some LoRAs, or one tensor of others; and what a cut costs.

    Attributes:
        request: what is asked for.
        constants: the slots of each adapter's weight, each one's scale, each one's seed, and the
            settings' numbers.
        sources: the dtype of each adapter's tensor, where it has one alone: it is taken as it is
            stored.
    """

    request: MergeRequest
    constants: tuple[int, ...]
    sources: tuple[str, ...]

    name = "merge"
    by_library = True

    def words(self) -> Iterable[str]:
        return (str(self.request), *(f"c{slot}" for slot in self.constants), *self.sources)

    def renumbered(self, inputs: Renumber, constants: Renumber, outputs: Renumber) -> Step:
        return replace(self, constants=tuple(map(constants, self.constants)))

    def _rows(self, args: Sequence[Array]) -> list[Sequence[Array]]:
        """The arguments of each adapter."""
        step = self.request.tensors + self.request.statistics
        return [args[first : first + step] for first in range(0, len(args), step)]

    def _settings(
        self, args: Sequence[Array], constants: Sequence[float], algebra: Algebra = NUMPY
    ) -> MergeSettings:
        request, rows = self.request, self._rows(args)
        numbers, count = [constants[slot] for slot in self.constants], len(rows)
        return MergeSettings(
            numbers=dict(zip(request.numbers, numbers[3 * count :], strict=True)),
            words=dict(request.words),
            weights=numbers[:count],
            seeds=numbers[2 * count : 3 * count],
            statistics=[row[request.tensors :] for row in rows],
            rank=request.rank,
            algebra=algebra,
        )

    def _parts(self, args: Sequence[Array], constants: Sequence[float]) -> list[LowRank]:
        rows = self._rows(args)
        scales = [constants[slot] for slot in self.constants[len(rows) : 2 * len(rows)]]
        return [LowRank(row[0], row[1], scale) for row, scale in zip(rows, scales, strict=True)]

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Meant:
        settings, kernel = self._settings(args, slots.constants), self.request.kernel
        if not self.request.rank:
            merged = kernel.meaning_of_tensors([row[0] for row in self._rows(args)], settings)
            return merged.reshape(args[0].shape), np.zeros(2)
        a, b, cost = kernel.meaning_of_factors(self._parts(args, slots.constants), settings)
        return a.reshape(-1, *args[0].shape[1:]), _shaped(b, args[1]), cost

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> tuple[Array, ...]:
        settings = self._settings(args, slots.constants, slots.algebra)
        kernel = self.request.kernel
        if self.request.rank:
            a, b, cost = kernel.of_factors(self._parts(args, slots.constants), settings)
            results: tuple[Array, ...] = (
                a.reshape(-1, *args[0].shape[1:]),
                _shaped(b, args[1]),
                cost,
            )
        else:
            xs = [
                StoredTensor(row[0], source, slots.algebra)
                for row, source in zip(self._rows(args), self.sources, strict=True)
            ]
            results = (kernel.of_tensors(xs, settings), np.zeros(2))
        return tuple(x.astype(stored_dtype(self.dtype), copy=False) for x in results)

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        request = self.request
        first = shapes[:: request.tensors + request.statistics]
        columns = sum(shape[0] for shape in first) if request.rank else len(first)
        least = min(shapes[0]) if not request.rank and len(shapes[0]) == 2 else 0
        return request.kernel.flops(sum(map(math.prod, shapes)), columns, least)

    def _elements(self, shapes: Sequence[Shape]) -> int:
        if not self.request.rank:
            return math.prod(shapes[0])
        return self.request.rank * (shapes[1][0] + math.prod(shapes[0][1:]))

    def kept(self, shapes: Sequence[Shape]) -> int:
        return self._elements(shapes) * DTYPES[self.dtype].size

    def workspace(self, shapes: Sequence[Shape]) -> int:
        request = self.request
        first = shapes[:: request.tensors + request.statistics]  # of each adapter
        settings = MergeSettings({}, dict(request.words), [1.0] * len(first), (), (), request.rank)
        if not request.rank:
            rows = 1 if is_vector(shapes[0]) else shapes[0][0]
            columns = math.prod(shapes[0]) // max(1, rows)
            return request.kernel.workspace(rows, columns, 0, settings)
        rows, columns = shapes[1][0], math.prod(shapes[0][1:])
        ranks = sum(shape[0] for shape in first)
        copies = 8 * self._elements(shapes)
        return copies + request.kernel.workspace(rows, columns, ranks, settings)


def _shaped(b: Array, like: Array) -> Array:
    return b.reshape(like.shape[0], -1, *like.shape[2:])
