"""Random elementwise programs, and tensors for them.

Numbers are small multiples of 1/16, so that every dtype holds those it is given and no comparison
or sign is decided by a rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemlang.kernels import Abs, Add, Builder, Div, Equal, KernelCall, Less, Mul, Sign, Sub, Value
from pemlang.tensorfiles import FLOATS, decoded
from support.kernels.loops import encoded

STORED = tuple(FLOATS)
WORK = ("F32", "F64")
CONSTANTS = (0.0, 1.0, -1.0, 0.5, -0.25, 3.0)
KINDS = {
    "add": Add, "sub": Sub, "mul": Mul, "abs": Abs, "sign": Sign, "less": Less, "equal": Equal,
}  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """A program with the dtypes of its slots.

    Attributes:
        call: the program and its constants; its outputs are named by number.
        loads: the dtypes of its inputs.
        stores: the dtypes of its outputs.
        depth: at most so many roundings lie between an input and an output.
    """

    call: KernelCall
    loads: tuple[str, ...]
    stores: tuple[str, ...]
    depth: int


@st.composite
def programs(draw: st.DrawFn, reduces: bool = True, stored: Sequence[str] = STORED) -> Drawn:
    """A program of up to three inputs and outputs and a dozen steps between them."""
    builder = Builder()
    work = draw(st.sampled_from(WORK))
    shape = (3, 5)
    loads = draw(st.lists(st.sampled_from(stored), min_size=1, max_size=3))
    values: list[Value] = [
        builder.cast(builder.load(number, dtype, shape), work) for number, dtype in enumerate(loads)
    ]
    steps = draw(st.integers(1, 12))
    for _ in range(steps):
        values.append(_step(draw, builder, values, shape, reduces))
    stores = draw(st.lists(st.sampled_from(stored), min_size=1, max_size=3))
    for number, dtype in enumerate(stores):
        around = draw(st.sampled_from([0.0, 0.0, 1.0]))
        builder.store(draw(st.sampled_from(values[-4:])), number, dtype, around)
    # Every input is stored once more, so that the parts of the program are one.
    total = values[0]
    for value in values[1 : len(loads)]:
        total = builder.binary(Add, total, value)
    for number in range(len(stores)):
        builder.store(total, len(stores) + number, stores[number])
    call = draw(st.sampled_from(builder.calls()))
    return _named(call, loads, [*stores, *stores], steps + len(loads))


def _named(call: KernelCall, loads: Sequence[str], stores: Sequence[str], depth: int) -> Drawn:
    return Drawn(
        call,
        tuple(loads[number] for number in call.inputs),
        tuple(stores[number] for number in call.outputs),
        depth,
    )


def _step(
    draw: st.DrawFn,
    builder: Builder,
    values: Sequence[Value],
    shape: tuple[int, ...],
    reduces: bool,
) -> Value:
    x, y, z = (draw(st.sampled_from(values)) for _ in range(3))
    number = draw(st.sampled_from(CONSTANTS))
    words = ["scale", "fma", "const", "cast", "div", *KINDS]
    words += ["sum", "max", "kth", "draw"] * reduces
    match draw(st.sampled_from(words)):
        case "scale":
            return builder.scale(x, number)
        case "fma":
            return builder.fma(x, number, y)
        case "const":
            return builder.const(number, x.dtype, shape)
        case "cast":
            return builder.cast(x, draw(st.sampled_from(WORK)))
        case "div":  # by a power of two
            return builder.binary(Div, x, builder.const(4.0, x.dtype, shape))
        case "abs" | "sign" as word:
            return builder.unary(KINDS[word], x)
        case "less" | "equal" as word:
            return builder.select(builder.compare(KINDS[word], x, y), z, x)
        case "sum" | "max" as word:
            return builder.reduce(word, builder.unary(Sign, x))
        case "kth":
            k = builder.const(draw(st.sampled_from([0.0, 1.0])), "F64", shape)
            largest = builder.kth(builder.unary(Abs, x), 1.0, k)
            return builder.select(builder.compare(Less, x, largest), x, y)
        case "draw":
            chance = builder.compare(
                Less, builder.draw(x, 7.0, 1), builder.const(0.5, "F64", shape)
            )
            return builder.select(chance, x, y)
        case word:
            return builder.binary(KINDS[word], x, y)


def tensors(drawn: Drawn, size: int, seed: int) -> list[NDArray[np.float64]]:
    """Numbers for the inputs of a program, such as their dtypes hold exactly."""
    random = np.random.default_rng(seed)
    return [
        decoded(encoded(random.integers(-24, 25, size) / 16, dtype), dtype, "F64").astype("f8")
        for dtype in drawn.loads
    ]
