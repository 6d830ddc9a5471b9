"""Steps that need all of a tensor before they have a value: its sum, its maximum, its k-th largest
number. The value stands in the place of every element."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pemlang.dataclass import dataclass
from pemlang.kernels import histogram
from pemlang.kernels.step import (
    CountingStep,
    Dense,
    ElementStep,
    Meaning,
    Renumber,
    SiteInputs,
    Step,
)
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import Array

if TYPE_CHECKING:
    from pemlang.kernels.llvm import LlvmPass, LlvmSettle


class ScanStep(ElementStep):
    """A step whose value one pass over the tensor finds.

    Attributes:
        how: how what is found in the parts of a tensor is put together: `sum` or `max`.
    """

    ends_scan = True
    uniform = True
    how: Literal["sum", "max"] = "sum"

    def join(self, numbers: Iterable[float]) -> float:
        """What is found in all parts of a tensor, from what is found in each, in order."""
        return sum(numbers) if self.how == "sum" else max(numbers)

    @abstractmethod
    def scan(self, loop: LlvmPass, args: Sequence[str], index: int) -> None:
        """Write what the pass does with a vector of numbers.

        Args:
            loop: the pass.
            args: the values it takes.
            index: where to tell a number that is found.
        """

    def settle(self, text: LlvmSettle, args: Sequence[str], index: int) -> str:
        """Write how its value comes out when the pass is done: the name of a double.

        Args:
            text: the function.
            args: the values it takes that were known before the pass, by place.
            index: where the number is that was found.
        """
        return text.number_found(index)


@dataclass(frozen=True)
class Reduce(ScanStep):
    """The sum, in float64, or the maximum of a whole tensor, as `how` says."""

    how: Literal["sum", "max"]

    name = "reduce"

    def words(self) -> Iterable[str]:
        return (self.how,)

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        whole = np.sum(args[0]) if self.how == "sum" else np.max(args[0])
        return np.full_like(args[0], whole)

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        whole = np.sum(args[0], dtype="f8") if self.how == "sum" else np.max(args[0])
        return np.full_like(args[0], whole)

    def scan(self, loop: LlvmPass, args: Sequence[str], index: int) -> None:
        loop.gather(index, self.how, self.dtype, args[0])


@dataclass(frozen=True)
class Kth(ScanStep, CountingStep):
    """The k-th largest of numbers that are not negative, exactly; infinite for k = 0.

    Passes count them by their bits, see histogram.py. k = ⌊share·count⌋.

    Attributes:
        constant: the slot of the share.
    """

    constant: int

    name = "kth"
    repeats = True

    def words(self) -> Iterable[str]:
        return (f"c{self.constant}",)

    def renumbered(self, inputs: Renumber, constants: Renumber, outputs: Renumber) -> Step:
        return replace(self, constant=constants(self.constant))

    def of(self, args: Sequence[Array], constants: Sequence[float]) -> Array:
        x, count = args
        k = int(constants[self.constant] * float(count.reshape(-1)[0])) if x.size else 0
        kth = np.partition(x, x.size - k, axis=None)[x.size - k] if k > 0 else np.inf
        return np.full_like(x, kth)

    def scan(self, loop: LlvmPass, args: Sequence[str], index: int) -> None:
        histogram.count(loop, self, args[0], index)

    def settle(self, text: LlvmSettle, args: Sequence[str], index: int) -> str:
        return histogram.settle(text, self, args[1], index)

    def start(self, text: LlvmSettle, index: int) -> None:
        """Write what begins its first pass, without a sample."""
        histogram.start(text, self, index)

    def bracket(self, text: LlvmSettle, args: Sequence[str], index: int) -> None:
        """Write what begins its first pass when it has been over a sample."""
        histogram.bracket(text, self, args[1], index)
