"""Site programs: straight-line code over the tensors of a site.

A program reads input tensors by slot, computes in float32 or float64, and rounds once into output
tensors by slot. It holds no name, no offset and no constant's value, so sites that do the same
share one program, and one kernel:

    %0 = load bf16 in0
    %1 = cast f32 %0
    %2 = scale f32 %1 c0
    %3 = load bf16 in1
    %4 = cast f32 %3
    %5 = fma f32 %4 %2 c1        c1·%4 + %2
    store bf16 %5 out0
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property, lru_cache

from pemlang.dataclass import dataclass
from pemlang.kernels.step import Shape, Step
from pemlang.kernels.steps.elements import Load
from pemlang.kernels.steps.places import RowPlace
from pemlang.kernels.steps.results import Store
from pemlang.tensorfiles.dtypes import DTYPES


@dataclass(frozen=True)
class Program:
    """Straight-line code; equal programs are one kernel.

    Attributes:
        steps: arguments first.
    """

    steps: tuple[Step, ...]

    @cached_property
    def elementwise(self) -> bool:
        """Whether it treats every element alike, so that it runs over any span of them."""
        return all(step.elementwise for step in self.steps)

    @cached_property
    def whole(self) -> bool:
        """Whether it has to be run over whole tensors, one after the other."""
        return any(step.ends_scan or step.whole for step in self.steps)

    @cached_property
    def by_row(self) -> bool:
        """Whether it has to be run over whole rows."""
        return any(isinstance(step, RowPlace) for step in self.steps)

    def row(self, constants: Sequence[float]) -> int:
        """Elements of a row; 1 where rows do not matter."""
        rows = [int(constants[x.columns]) for x in self.steps if isinstance(x, RowPlace)]
        return max(rows, default=1)

    @cached_property
    def linear(self) -> bool:
        """Whether infinity or NaN in an input always shows in the output."""
        return all(step.linear for step in self.steps)

    @cached_property
    def key(self) -> str:
        """A digest of the text."""
        return hashlib.sha256(str(self).encode()).hexdigest()

    @cached_property
    def loads(self) -> tuple[Load, ...]:
        """The step that reads each input slot."""
        by_slot = {step.input: step for step in self.steps if isinstance(step, Load)}
        return tuple(by_slot[slot] for slot in sorted(by_slot))

    @cached_property
    def stores(self) -> tuple[Store, ...]:
        """The steps that write to an output slot, by slot."""
        stores = [step for step in self.steps if isinstance(step, Store)]
        return tuple(sorted(stores, key=lambda store: store.output))

    @cached_property
    def widths(self) -> tuple[list[int], list[int]]:
        """Bytes of an element, of each input slot and of each output slot."""
        reads, writes = (
            [DTYPES[step.dtype].size for step in steps] for steps in (self.loads, self.stores)
        )
        return reads, writes

    @cached_property
    def _hash(self) -> int:
        return hash(self.steps)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Program], tuple[tuple[Step, ...]]]:
        # What is remembered of it does not go along: hashes differ from process to process.
        return Program, (self.steps,)

    def __str__(self) -> str:
        return "\n".join(
            str(step) if step.is_result else f"%{number} = {step}"
            for number, step in enumerate(self.steps)
        )

    def shapes(self, step: Step) -> list[Shape]:
        """The shapes of the values that a step takes."""
        return [self.steps[arg].shape for arg in step.args]

    def flops(self, elements: int | None = None) -> int:
        """About how many floating point operations one run takes.

        Args:
            elements: of a span, where it treats every element alike.
        """
        return sum(
            step.flops(self.shapes(step), math.prod(step.shape) if elements is None else elements)
            for step in self.steps
        )


class SlotNumbers:
    """Slots of a whole program by those of a part, in the order the part uses them."""

    def __init__(self) -> None:
        self.whole: dict[int, int] = {}

    def __call__(self, slot: int) -> int:
        return self.whole.setdefault(slot, len(self.whole))


@lru_cache(maxsize=4096)
def interned(program: Program) -> Program:
    """The first of equal programs, so that comparing them is quick."""
    return program
