"""Programs over the whole tensors of one site: what concatenates, pads, multiplies or truncates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pemlang.kernels import methods as merging
from pemlang.kernels.lowrank import Arrays, finite, norm, truncate
from pemlang.kernels.program import Instr, Program, slot
from pemlang.tensorfiles.dtypes import Array, decoded, stored_dtype

Bits = NDArray[np.generic]


class InputNotFinite(Exception):
    """The input in a slot holds infinity or NaN."""

    def __init__(self, slot: int) -> None:
        super().__init__(slot)
        self.slot = slot


def execute(
    program: Program, read: Callable[[int, tuple[int, ...], str], Bits], consts: Sequence[float]
) -> dict[int, Array]:
    """The outputs of a program by slot, exact: not yet rounded to their dtypes.

    Args:
        program: what to compute, with shapes.
        read: an input slot, its shape and its dtype to its stored bits.
        consts: the numbers of the constant slots.

    Raises:
        InputNotFinite: an input holds infinity or NaN.
        Fault: PEM0503 a number too large on the way.
    """
    last = _last_uses(program)
    values: dict[int, Any] = {}
    outputs: dict[int, Array] = {}
    for index, instr in enumerate(program.instrs):
        args = [values[arg] for arg in instr.args]
        with finite():
            values[index] = _value(program, instr, args, read, consts)
        if instr.op in ("store", "report"):
            outputs[slot(instr.attrs[0])] = args[0]
        for arg in instr.args:
            if last[arg] == index:
                values.pop(arg, None)
    return outputs


def bytes_at_work(program: Program) -> int:
    """The most bytes that the values of a program take at once, its steps' own room included."""
    last = _last_uses(program)
    sizes = [_size(program, instr) for instr in program.instrs]
    alive, most = 0, 0
    for index, instr in enumerate(program.instrs):
        kept = 0 if instr.op in ("store", "report", "item") else sizes[index]
        most = max(most, alive + kept + _room(program, instr))
        alive += kept
        for arg in set(instr.args):
            if last[arg] == index and program.instrs[arg].op != "item":
                alive -= sizes[arg]
    return most


def _last_uses(program: Program) -> dict[int, int]:
    """The last step that needs each value. The results of a decomposition live while any does."""
    found: dict[int, int] = {}
    for index, instr in enumerate(program.instrs):
        for arg in instr.args:
            found[arg] = index
            if program.instrs[arg].op == "item":
                found[program.instrs[arg].args[0]] = index
    return found


def _size(program: Program, instr: Instr) -> int:
    if instr.op == "merge":
        shapes = [program.instrs[arg].shape for arg in instr.args]
        return merging.results(instr.attrs[0], shapes) * stored_dtype(instr.dtype).itemsize
    if instr.op == "core_svd":
        a, b = (program.instrs[arg].shape for arg in instr.args)
        rank = int(instr.attrs[1].removeprefix("rank="))
        return 8 * rank * (math.prod(a) + math.prod(b)) // a[0]
    return math.prod(instr.shape) * stored_dtype(instr.dtype).itemsize


def _room(program: Program, instr: Instr) -> int:
    """Bytes that a step needs beside its arguments and its result."""
    if instr.op in ("core_svd", "whole"):
        a, b = (program.instrs[arg].shape for arg in instr.args)
        # A copy of each factor, and what a QR decomposition takes: a working copy and Q.
        return 8 * (4 * (math.prod(a) + math.prod(b)) + 12 * a[0] ** 2)
    if instr.op == "merge":
        return merging.room(instr.attrs[0], [program.instrs[arg].shape for arg in instr.args])
    if instr.op == "store":  # the rounded bits, and a look at them in float64
        return math.prod(instr.shape) * 32
    return math.prod(instr.shape) * 8 if instr.op in ("cast", "fma", "load") else 0


def _value(
    program: Program,
    instr: Instr,
    args: Sequence[Any],
    read: Callable[[int, tuple[int, ...], str], Bits],
    consts: Sequence[float],
) -> Any:
    numbers = [consts[slot(a)] for a in instr.attrs if isinstance(a, str) and a[1:].isdigit()]
    if instr.op == "load":
        where = slot(instr.attrs[0])
        return _finite(read(where, instr.shape, instr.dtype), instr.dtype, where)
    if instr.op == "cast":
        source = program.instrs[instr.args[0]]
        if source.op != "load":
            return args[0].astype(stored_dtype(instr.dtype))
        wide = decoded(args[0], source.dtype, instr.dtype)
        return _finite(wide, instr.dtype, slot(source.attrs[0]))
    if instr.op in ("store", "report"):
        return None
    return _STEPS[instr.op](instr, numbers, *args)


def _fma(instr: Instr, numbers: Sequence[float], x: Array, y: Array) -> Array:
    product = np.multiply(x, x.dtype.type(numbers[0]))
    return np.add(y, product, out=product)


def _reduce(instr: Instr, numbers: Sequence[float], x: Array) -> Array:
    found = np.sum(x, dtype="f8") if instr.attrs[0] == "sum" else np.max(x)
    return np.full_like(x, found)


def _pad(instr: Instr, numbers: Sequence[float], x: Array) -> Array:
    return np.pad(x, [(0, n - m) for n, m in zip(instr.shape, x.shape, strict=True)])


def _core_svd(instr: Instr, numbers: Sequence[float], a: Array, b: Array) -> tuple[Array, ...]:
    return truncate(Arrays(a, b, numbers[0]), int(instr.attrs[1].removeprefix("rank=")))


def _merge(instr: Instr, numbers: Sequence[float], *xs: Array) -> tuple[Array, ...]:
    found = merging.merged(instr.attrs[0], xs, numbers)
    return tuple(x.astype(stored_dtype(instr.dtype), copy=False) for x in found)


def _whole(instr: Instr, numbers: Sequence[float], a: Array, b: Array) -> Array:
    return np.array([0.0, norm(Arrays(a, b, numbers[0]))])


_STEPS: dict[str, Callable[..., Any]] = {
    "const": lambda i, c: np.full(i.shape, c[0], stored_dtype(i.dtype)),
    "scale": lambda i, c, x: np.multiply(x, x.dtype.type(c[0])),
    "fma": _fma,
    "add": lambda i, c, x, y: x + y,
    "sub": lambda i, c, x, y: x - y,
    "mul": lambda i, c, x, y: x * y,
    "div": lambda i, c, x, y: x / y,
    "sign": lambda i, c, x: np.sign(x),
    "abs": lambda i, c, x: np.abs(x),
    "less": lambda i, c, x, y: x < y,
    "equal": lambda i, c, x, y: x == y,
    "select": lambda i, c, where, x, y: np.where(where, x, y),
    "reduce": _reduce,
    "concat": lambda i, c, *xs: np.concatenate(xs, i.attrs[0], dtype=stored_dtype(i.dtype)),
    "pad": _pad,
    "matmul": lambda i, c, x, y: x @ y,
    "item": lambda i, c, results: results[i.attrs[0]],
    "core_svd": _core_svd,
    "whole": _whole,
    "merge": _merge,
}  # fmt: skip


def _finite(x: Bits, dtype: str, where: int) -> Bits:
    """x, if it can be looked at as it is and holds neither infinity nor NaN."""
    if dtype in ("F32", "F64") and not np.isfinite(x).all():
        raise InputNotFinite(where)
    return x
