"""What a program means, in float64 and rounded nowhere: the reference that every kernel is held
to. What each step means stands with the step."""

from __future__ import annotations

from collections.abc import Sequence

from pemlang.dataclass import dataclass
from pemlang.kernels.program import Program
from pemlang.kernels.step import Dense, Meant
from pemlang.kernels.steps.results import ResultStep, Store


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
    values: list[Meant] = []
    outputs: dict[int, Dense] = {}
    for step in program.steps:
        args: list[Dense] = [values[arg] for arg in step.args]  # type: ignore[misc]
        values.append(step.meaning(args, slots))
        if isinstance(step, ResultStep):
            base = step.base(constants) if isinstance(step, Store) else 0.0
            outputs[step.output] = args[0] + base
    return [outputs[slot] for slot in sorted(outputs)]
