"""Programs over the whole tensors of one site: what concatenates, pads, multiplies or truncates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pemlang.kernels.dtypes import Array, decoded, stored_dtype
from pemlang.kernels.lowrank import Arrays, finite, norm, truncate
from pemlang.kernels.program import Instr, Program, slot

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
    match instr.op:
        case "load":
            where = slot(instr.attrs[0])
            return _finite(read(where, instr.shape, instr.dtype), instr.dtype, where)
        case "cast":
            [arg] = instr.args
            if program.instrs[arg].op != "load":
                return args[0].astype(stored_dtype(instr.dtype))
            wide = decoded(args[0], program.instrs[arg].dtype, instr.dtype)
            return _finite(wide, instr.dtype, slot(program.instrs[arg].attrs[0]))
        case "const":
            return np.full(instr.shape, numbers[0], stored_dtype(instr.dtype))
        case "scale":
            return np.multiply(args[0], args[0].dtype.type(numbers[0]))
        case "fma":
            product = np.multiply(args[0], args[0].dtype.type(numbers[0]))
            return np.add(args[1], product, out=product)
        case "select":
            return np.where(*args)
        case "reduce":
            what = np.sum(args[0], dtype="f8") if instr.attrs[0] == "sum" else np.max(args[0])
            return np.full_like(args[0], what)
        case "concat":
            return np.concatenate(args, axis=instr.attrs[0])
        case "pad":
            return np.pad(
                args[0], [(0, n - m) for n, m in zip(instr.shape, args[0].shape, strict=True)]
            )
        case "matmul":
            return args[0] @ args[1]
        case "item":
            return args[0][instr.attrs[0]]
        case "core_svd":
            rank = int(instr.attrs[1].removeprefix("rank="))
            return truncate(Arrays(args[0], args[1], numbers[0]), rank)
        case "whole":
            return np.array([0.0, norm(Arrays(args[0], args[1], numbers[0]))])
        case "store" | "report":
            return None
    return _UFUNCS[instr.op](*args)


_UFUNCS: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "less": np.less,
    "equal": np.equal, "sign": np.sign, "abs": np.abs,
}  # fmt: skip


def _finite(x: Bits, dtype: str, where: int) -> Bits:
    """x, if it can be looked at as it is and holds neither infinity nor NaN."""
    if dtype in ("F32", "F64") and not np.isfinite(x).all():  # type: ignore[arg-type]
        raise InputNotFinite(where)
    return x


