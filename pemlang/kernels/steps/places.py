"""Steps that depend on where an element stands: draws, and places in a row by size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.kernels import philox
from pemlang.kernels.step import CountingStep, Renumber, Step
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import Array

if TYPE_CHECKING:
    from pemlang.kernels.llvm import LlvmPass


@dataclass(frozen=True)
class Draw(CountingStep):
    """A number from 0 to 1 − 2⁻³², drawn for each element by its place in the tensor. What it takes
    says how many there are.

    Attributes:
        seed: the constant slot of a whole number, the seed.
        part: that of another, which tensor of a site this is: each has draws of its own.
    """

    seed: int
    part: int

    name = "draw"
    whole = True

    def words(self) -> Iterable[str]:
        return (f"c{self.seed}", f"c{self.part}")

    def renumbered(self, inputs: Renumber, constants: Renumber, outputs: Renumber) -> Step:
        return replace(self, seed=constants(self.seed), part=constants(self.part))

    def of(self, args: Sequence[Array], constants: Sequence[float]) -> Array:
        [like] = args
        key = (int(constants[self.seed]), int(constants[self.part]))
        return (philox.drawn(key, 0, like.size) / 2**32).reshape(like.shape)

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        return loop.drawn(self.seed, self.part)


@dataclass(frozen=True)
class RowPlace(CountingStep):
    """How many numbers of its row come before an element when they are sorted; of equal ones the
    first comes first. The numbers are not negative.

    Attributes:
        columns: the constant slot of the length of a row.
        source: the dtype of the numbers.
    """

    columns: int
    source: str

    name = "place"
    whole = True

    def words(self) -> Iterable[str]:
        return (f"c{self.columns}",)

    def renumbered(self, inputs: Renumber, constants: Renumber, outputs: Renumber) -> Step:
        return replace(self, columns=constants(self.columns))

    def of(self, args: Sequence[Array], constants: Sequence[float]) -> Array:
        [x] = args
        rows = x.reshape(-1, int(constants[self.columns]))
        order = np.argsort(rows, axis=1, kind="stable")
        places = np.empty(rows.shape)
        np.put_along_axis(places, order, np.arange(rows.shape[1], dtype="f8")[None], axis=1)
        return places.reshape(x.shape)

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        return loop.placed(self)
