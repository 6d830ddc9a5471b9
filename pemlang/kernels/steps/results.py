"""Steps that hand a value out of a program."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.kernels.step import Dense, Meaning, Renumber, Shape, SiteInputs, Step
from pemlang.tensorfiles.dtypes import Array

if TYPE_CHECKING:
    from pemlang.kernels.llvm import LlvmPass
    from pemlang.kernels.triton import TritonKernel


@dataclass(frozen=True)
class ResultStep(Step):
    """A step whose value goes to an output slot.

    Attributes:
        output: the slot.
        source: the dtype of the value.
    """

    output: int
    source: str

    is_result = True

    def words(self) -> Iterable[str]:
        return (f"out{self.output}",)

    def renumbered(self, inputs: Renumber, constants: Renumber, outputs: Renumber) -> Step:
        return replace(self, output=outputs(self.output))

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> None:
        return None

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> None:
        return None

    def kept(self, shapes: Sequence[Shape]) -> int:
        return 0


@dataclass(frozen=True)
class Store(ResultStep):
    """A tensor rounded to a dtype once, and written.

    Attributes:
        around: the constant slot of a number that is added before, which what rounding changes is
            not measured by: 1 for a gain, of which l − 1 counts.
    """

    around: int | None = None

    name = "store"
    elementwise = True
    linear = True

    def words(self) -> Iterable[str]:
        return (f"out{self.output}", *(() if self.around is None else (f"c{self.around}",)))

    def renumbered(self, inputs: Renumber, constants: Renumber, outputs: Renumber) -> Step:
        around = None if self.around is None else constants(self.around)
        return replace(self, output=outputs(self.output), around=around)

    @property
    def exact_dtype(self) -> str:
        """F32 or F64: what its numbers are in before they are rounded."""
        return "F64" if self.source == "F64" else "F32"

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        value, work = args[0], self.exact_dtype
        if self.around is not None:
            value = loop.binary("fadd", work, value, loop.constant(self.around, work))
        return loop.narrowed(value, work, self.dtype)

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        value, work = args[0], self.exact_dtype
        if self.around is not None:
            value = f"({value} + {kernel.constant(self.around, work)})"
        return kernel.narrowed(value, work, self.dtype)

    def base(self, constants: Sequence[float]) -> float:
        """The number that is added."""
        return 0.0 if self.around is None else constants[self.around]

    def workspace(self, shapes: Sequence[Shape]) -> int:
        return math.prod(self.shape) * 32  # the rounded bits, and a look at them in float64


class ReportStep(ResultStep):
    """Numbers, or a whole array, for whoever asked."""

    name = "report"
