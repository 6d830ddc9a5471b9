"""What a program means, in float64 and rounded nowhere: the reference that every kernel is held
to; and what its steps compute of arrays in memory. Both stand with the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pemlang.dataclass import dataclass
from pemlang.kernels.algebra import NUMPY, Algebra
from pemlang.kernels.program import Program
from pemlang.kernels.step import Computed, Dense, Shape, Step
from pemlang.kernels.steps.results import ResultStep
from pemlang.tensorfiles.dtypes import Array, Bits


@dataclass(frozen=True)
class _Slots:
    """See step.Meaning."""

    inputs: Sequence[Dense]
    constants: Sequence[float]


def meaning(program: Program, inputs: Sequence[Dense], constants: Sequence[float]) -> list[Dense]:
    """The outputs of a program, one for each slot, not yet rounded to their dtypes.

    Args:
        program: what to compute.
        inputs: a tensor for each input slot; any shape where the program is elementwise.
        constants: a number for each constant slot.
    """
    slots = _Slots(inputs, constants)
    outputs = _outputs(program, lambda step, args: step.meaning(args, slots))
    bases = {store.output: store.base(constants) for store in program.stores}
    return [outputs[slot] + bases.get(slot, 0.0) for slot in sorted(outputs)]


def _outputs(
    program: Program, value: Callable[[Step, Sequence[Array]], Computed]
) -> dict[int, Array]:
    """What goes to each output slot, when each step gives a value from those before it."""
    values: list[Computed] = []
    outputs: dict[int, Array] = {}
    for step in program.steps:
        args: list[Array] = [values[arg] for arg in step.args]  # type: ignore[misc]
        values.append(value(step, args))
        if isinstance(step, ResultStep):
            outputs[step.output] = args[0]
    return outputs


@dataclass(frozen=True)
class _Arrays:
    """See step.SiteInputs."""

    arrays: Sequence[Array]
    constants: Sequence[float]
    algebra: Algebra = NUMPY

    def read(self, slot: int, shape: Shape, dtype: str) -> Bits:
        """The array in an input slot; any shape where the program is elementwise."""
        return self.arrays[slot].reshape(shape or self.arrays[slot].shape)


def computed(program: Program, inputs: Sequence[Array], constants: Sequence[float]) -> list[Array]:
    """The outputs of a program, one for each slot, not yet rounded to their dtypes, as NumPy
    computes them in the dtypes of its steps; raises NotFinite.

    Args:
        program, constants: what to compute.
        inputs: a tensor for each input slot, as it is stored.
    """
    slots = _Arrays(inputs, constants)
    outputs = _outputs(program, lambda step, args: step.compute(args, slots))
    return [outputs[slot] for slot in sorted(outputs)]
