"""The step that measures some adapters at a site."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pemlang.dataclass import dataclass
from pemlang.kernels.measuring import SiteMeasure
from pemlang.kernels.site import SiteAlgebra, SitePart
from pemlang.kernels.step import Dense, Meaning, Renumber, Shape, SiteInputs, Step
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import Array


@dataclass(frozen=True)
class Operand:
    """An adapter among the arguments of a measure.

    Attributes:
        algebra: what its tensors mean.
        tensors: how many of them there are.
        scale: the constant slot of its scale.
    """

    algebra: SiteAlgebra
    tensors: int
    scale: int


@dataclass(frozen=True)
class Measure(Step):
    """The numbers of some adapters at a site.

    Attributes:
        measure: what is measured.
        operands: of what; None for what is zero here.
    """

    measure: SiteMeasure
    operands: tuple[Operand | None, ...]

    name = "measure"

    def words(self) -> Iterable[str]:
        scales = ("zero" if operand is None else f"c{operand.scale}" for operand in self.operands)
        return (str(self.measure), *scales)

    def renumbered(self, inputs: Renumber, constants: Renumber, outputs: Renumber) -> Step:
        operands = (
            None if operand is None else replace(operand, scale=constants(operand.scale))
            for operand in self.operands
        )
        return replace(self, operands=tuple(operands))

    def _parts(self, args: Sequence[Array], constants: Sequence[float]) -> list[SitePart | None]:
        parts: list[SitePart | None] = []
        rest = list(args)
        for operand in self.operands:
            if operand is None:
                parts.append(None)
                continue
            tensors, rest = rest[: operand.tensors], rest[operand.tensors :]
            parts.append(SitePart(operand.algebra, tuple(tensors), constants[operand.scale]))
        return parts

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        parts = self._parts(args, slots.constants)
        if self.measure.rows_alone:
            dense = [None if part is None else _rows(part) for part in parts]
        else:
            dense = [None if part is None else part.delta() for part in parts]
        return np.array(self.measure.meaning(dense), np.float64)

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        # What is too large for a float is told of the sum over all sites.
        with np.errstate(over="ignore", invalid="ignore"):
            return np.array(self.measure.numbers(self._parts(args, slots.constants)))

    def workspace(self, shapes: Sequence[Shape]) -> int:
        # Copies in float64, and what decompositions of all of them side by side take.
        return 8 * 4 * sum(map(math.prod, shapes))


def _rows(part: SitePart) -> Dense:
    """A of each expert; of what has none of these its own."""
    rows: Dense = np.stack([piece.tensors[0] for piece in part.pieces])
    return rows
