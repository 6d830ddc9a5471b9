"""Programs over the whole tensors of one site: what concatenates, pads, merges or truncates."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from pemlang.dataclass import dataclass
from pemlang.execute.algebra import NATIVE
from pemlang.failures import InputNotFinite
from pemlang.kernels.algebra import Algebra
from pemlang.kernels.builder import KernelCall
from pemlang.kernels.lowrank import finite
from pemlang.kernels.program import Program
from pemlang.kernels.step import Computed, NotFinite, Shape
from pemlang.kernels.steps.results import ResultStep
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import DTYPES, Array, Bits, decoded
from pemlang.tensorfiles.reader import TensorReader
from pemlang.tensorfiles.reference import TensorRef


@dataclass(frozen=True)
class _ReferencedInputs:
    """See step.SiteInputs."""

    references: Sequence[TensorRef]
    constants: Sequence[float]
    reader: TensorReader
    algebra: Algebra

    def read(self, slot: int, shape: Shape, dtype: str) -> Bits:
        """The bits of the tensor in an input slot."""
        return self.reader.tensor(self.references[slot], dtype, shape)


def run_call(
    call: KernelCall[TensorRef, Hashable], reader: TensorReader, algebra: Algebra = NATIVE
) -> dict[int, Array]:
    """The outputs of a program by slot, exact: not yet rounded to their dtypes.

    Raises:
        Failure: InputNotFinite, TooLarge on the way, Undefined, and as TensorReader.read.
    """
    program = call.program
    done_with = _done_with(program)
    slots = _ReferencedInputs(call.inputs, call.constants, reader, algebra)
    values: dict[int, Computed] = {}
    outputs: dict[int, Array] = {}
    try:
        with finite():
            for number, step in enumerate(program.steps):
                args: list[Array] = [values[arg] for arg in step.args]  # type: ignore[misc]
                if step.is_result:
                    assert isinstance(step, ResultStep)
                    outputs[step.output] = args[0]
                else:
                    values[number] = step.compute(args, slots)
                for arg in done_with[number]:
                    del values[arg]
    except NotFinite:
        raise _culprit(call, reader) from None
    return outputs


def by_tiles(call: KernelCall[TensorRef, Hashable]) -> bool:
    """Whether a program treats every element alike, so that it can run over some of them after
    others."""
    steps = [step for step in call.program.steps if not step.is_result]
    alike = all(step.elementwise and not step.ends_scan and not step.whole for step in steps)
    return alike and len({step.shape for step in steps}) == 1


def run_tiles(
    call: KernelCall[TensorRef, Hashable], reader: TensorReader, size: int
) -> Iterator[dict[int, Array]]:
    """The outputs of a program as run_call gives them, of a tile of elements after the other, each
    in one dimension.

    Args:
        call: one that goes by tiles.
        reader: reads its inputs.
        size: the elements of a tile.

    Raises:
        Failure: as run_call.
    """
    count = math.prod(call.program.steps[0].shape)
    for start in range(0, count, size):
        program = _of_tile(call.program, min(size, count - start))
        references = [
            replace(ref, start=ref.start + start * DTYPES[load.dtype].size)
            for ref, load in zip(call.inputs, call.program.loads, strict=True)
        ]
        yield run_call(replace(call, program=program, inputs=tuple(references)), reader)


@lru_cache(maxsize=256)
def _of_tile(program: Program, size: int) -> Program:
    """A program that treats every element alike, over some of them in one dimension."""
    return Program(tuple(replace(step, shape=(size,)) for step in program.steps))


def _culprit(call: KernelCall[TensorRef, Hashable], reader: TensorReader) -> InputNotFinite:
    """The input of a call that is not finite."""
    for load in call.program.loads:
        reference = call.inputs[load.input]
        numbers = decoded(reader.tensor(reference, load.dtype, load.shape), load.dtype, "F64")
        if not np.isfinite(numbers).all():
            return not_finite(reference, numbers)
    raise AssertionError("a step met what no input holds")


def not_finite(reference: TensorRef, numbers: Array) -> InputNotFinite:
    """What is wrong with a tensor that holds infinity or NaN."""
    return InputNotFinite(reference.file, reference.key, bool(np.isnan(numbers).any()))


@lru_cache(maxsize=4096)
def bytes_at_work(program: Program) -> int:
    """The most bytes that the values of a program take at once, its steps' own room included."""
    last = _last_uses(program)
    kept = [step.kept(program.shapes(step)) for step in program.steps]
    alive, most = 0, 0
    for number, step in enumerate(program.steps):
        most = max(most, alive + kept[number] + step.workspace(program.shapes(step)))
        alive += kept[number]
        alive -= sum(kept[arg] for arg in set(step.args) if last[arg] == number)
    return most


@lru_cache(maxsize=4096)
def bytes_beside(program: Program) -> int:
    """The most bytes that a thread takes which helps with a step; 0 where none has parts."""
    return max(step.beside(program.shapes(step)) for step in program.steps)


@lru_cache(maxsize=4096)
def _done_with(program: Program) -> list[list[int]]:
    """The values that no step after each one needs."""
    done: list[list[int]] = [[] for _ in program.steps]
    for arg, number in _last_uses(program).items():
        done[number].append(arg)
    return done


def _last_uses(program: Program) -> dict[int, int]:
    """The last step that needs each value. The results of a decomposition live while any does."""
    last: dict[int, int] = {}
    for number, step in enumerate(program.steps):
        for arg in step.args:
            last[arg] = number
            taken = program.steps[arg]
            if taken.is_part:
                last[taken.args[0]] = number
    return last
