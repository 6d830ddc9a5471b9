"""A step of a program, and what stands with it: what it means, what computes it, what it costs.

A kind of step is one class. Its fields are what it needs beside the values of earlier steps; its
methods are all that is known about it anywhere:

- `meaning`, in float64, which every kernel is held to;
- `compute`, on the whole tensors of a site, in NumPy;
- `llvm` and `triton`, on one element among many, where it treats every element alike;
- `flops`, `kept`, `workspace` and `beside`: what it costs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

from pemlang.dataclass import dataclass
from pemlang.tensorfiles.dtypes import DTYPES, Array, Bits

if TYPE_CHECKING:
    from pemlang.kernels.algebra import Algebra
    from pemlang.kernels.llvm import LlvmPass
    from pemlang.kernels.triton import TritonKernel

Shape = tuple[int, ...]

Dense: TypeAlias = Array
"""An array of float64, of the meaning of a program."""

Meant: TypeAlias = "Dense | tuple[Dense, ...] | None"
"""What a step means: an array; of a decomposition several; of a result nothing."""

Renumber = Callable[[int], int]
"""A slot of a larger program to the slot of a part of it."""


Computed: TypeAlias = "Array | tuple[Array, ...] | None"
"""The same when it is computed. A tensor of a narrow dtype is as its file stores it until it is
cast."""


class NotFinite(Exception):
    """A tensor of an input holds infinity or NaN."""


class Meaning(Protocol):
    """What the float64 meaning of a step may use: the numbers in the program's slots."""

    @property
    def inputs(self) -> Sequence[Dense]:
        """A tensor for each input slot."""

    @property
    def constants(self) -> Sequence[float]:
        """A number for each constant slot."""


class SiteInputs(Protocol):
    """What computing a step may use: the numbers in the program's slots."""

    @property
    def constants(self) -> Sequence[float]:
        """A number for each constant slot."""

    def read(self, slot: int, shape: Shape, dtype: str) -> Bits:
        """The bits of the tensor in an input slot."""

    @property
    def algebra(self) -> Algebra:
        """What computes on whole arrays."""


@dataclass(frozen=True)
class Step(ABC):
    """One step. Its subclasses are the kinds.

    Attributes:
        args: the numbers of the steps whose values it takes.
        dtype: of its value, as safetensors spells it; `BOOL` for a comparison.
        shape: of its value; () in a program that does the same for any shape.
        name: of the kind.
        elementwise: whether it acts on each element alone.
        linear: whether infinity or NaN in what it takes always shows in its value.
        is_result: whether it hands a value out of the program.
        is_part: whether its value is a part of what it takes, and takes no memory of its own.
        ends_scan: whether it is a number over a whole tensor, which only a pass over all of it can
            give.
        repeats: whether that pass may have to be done again, and begins with a sample.
        uniform: whether its value is the same for all elements whatever it takes.
        whole: whether it depends on where in its tensor an element stands.
        by_library: whether its last digits are those of the linear algebra library that is there.
    """

    args: tuple[int, ...]
    dtype: str
    shape: Shape

    name: ClassVar[str]
    elementwise: ClassVar[bool] = False
    linear: ClassVar[bool] = False
    is_result: ClassVar[bool] = False
    is_part: ClassVar[bool] = False
    ends_scan: ClassVar[bool] = False
    repeats: ClassVar[bool] = False
    uniform: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    by_library: ClassVar[bool] = False

    def words(self) -> Iterable[str]:
        """Its slots and settings, as the text of a program shows them."""
        return ()

    def __str__(self) -> str:
        shown = [self.name, self.dtype.lower()]
        shown += ["×".join(map(str, self.shape))] if self.shape else []
        shown += [f"%{arg}" for arg in self.args]
        return " ".join([*shown, *self.words()])

    def renumbered(self, inputs: Renumber, constants: Renumber, outputs: Renumber) -> Step:
        """The same step in a part of the program that has slots of its own."""
        return self

    @abstractmethod
    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Meant:
        """Its value in float64, rounded nowhere."""

    @abstractmethod
    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Computed:
        """Its value over the whole tensors of a site.

        Raises:
            NotFinite: a tensor of an input holds infinity or NaN.
            Failure: a number is too large on the way, or the result is not defined.
        """

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        """Write the instructions for a vector of elements; the name of its value, which of a
        result is what is written to its output, as the file stores it."""
        raise AssertionError(f"{self.name} does not treat every element alike")

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        """Its value as an expression of a Triton kernel; of a result what is written."""
        raise AssertionError(f"{self.name} does not treat every element alike")

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        """About how many floating point operations it takes.

        Args:
            shapes: of the values it takes.
            elements: of its own value.
        """
        return 0

    def kept(self, shapes: Sequence[Shape]) -> int:
        """Bytes of its value."""
        return math.prod(self.shape) * DTYPES[self.dtype].size

    def workspace(self, shapes: Sequence[Shape]) -> int:
        """Bytes it needs beside what it takes and its value."""
        return 0

    def beside(self, shapes: Sequence[Shape]) -> int:
        """Bytes that each thread needs which does parts of it; 0 where it has none."""
        return 0


class ElementStep(Step):
    """A step that acts on each element alone, at one operation an element."""

    elementwise = True

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        return elements


class CountingStep(ElementStep):
    """A step that counts, compares or draws: in NumPy it is what it means, in any precision."""

    @abstractmethod
    def of(self, args: Sequence[Array], constants: Sequence[float]) -> Array:
        """Its value over whole tensors."""

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return self.of(args, slots.constants)

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        return self.of(args, slots.constants)
