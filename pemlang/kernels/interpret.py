"""What each step of a program means: an interpreter in float64 that rounds nowhere.

It is the reference that every kernel is held to, written for reading and not for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pemlang.kernels.program import Instr, Program, slot

Dense = NDArray[np.float64]

MEANING: dict[str, Callable[..., Any]] = {
    "cast": lambda x: np.asarray(x, np.float64),  # a comparison is 1 where it holds
    "scale": lambda x, c: c * x,
    "fma": lambda x, y, c: c * x + y,
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "sign": np.sign,
    "abs": np.abs,
    "less": lambda x, y: x < y,
    "equal": lambda x, y: x == y,
    "select": np.where,
    "matmul": lambda x, y: x @ y,
    "item": lambda results, n: results[n],
}


def interpret(program: Program, inputs: Sequence[Dense], consts: Sequence[float]) -> list[Dense]:
    """The outputs of a program, one for each slot, not yet rounded to their dtypes.

    Args:
        program: what to compute.
        inputs: a tensor for each input slot; any shape where the program is elementwise.
        consts: a number for each constant slot.
    """
    values: list[Any] = []
    outputs: dict[int, Dense] = {}
    for instr in program.instrs:
        args = [values[arg] for arg in instr.args]
        values.append(_value(instr, args, inputs, consts))
        if instr.op in ("store", "report"):
            around = consts[slot(instr.attrs[1])] if len(instr.attrs) > 1 else 0.0
            outputs[slot(instr.attrs[0])] = args[0] + around
    return [outputs[index] for index in sorted(outputs)]


def _value(
    instr: Instr, args: Sequence[Any], inputs: Sequence[Dense], consts: Sequence[float]
) -> Any:
    attrs: list[Any] = [consts[slot(a)] if _names_const(a) else a for a in instr.attrs]
    match instr.op:
        case "store" | "report":
            return None
        case "load":
            return np.asarray(inputs[slot(instr.attrs[0])], np.float64)
        case "const":
            return np.full(instr.shape or (inputs[0].shape if inputs else (1,)), attrs[0])
        case "reduce":
            found = np.sum(args[0]) if attrs[0] == "sum" else np.max(args[0])
            return np.full_like(args[0], found)
        case "concat":
            return np.concatenate(args, axis=attrs[0])
        case "pad":
            [x], axis = args, attrs[0]
            width = [(0, n - m) for n, m in zip(instr.shape, x.shape, strict=True)]
            assert width[axis][1] >= 0
            return np.pad(x, width)
        case "core_svd":
            return _cut(args[0], args[1], attrs[0], int(attrs[1].removeprefix("rank=")))
        case "whole":
            return np.array([0.0, np.linalg.norm(_delta(args[0], args[1], attrs[0]))])
    return MEANING[instr.op](*args, *attrs)


def _names_const(attr: Any) -> bool:
    return isinstance(attr, str) and attr[0] == "c" and attr[1:].isdigit()


def _delta(a: Dense, b: Dense, scale: float) -> Dense:
    """The dense Δ = scale·B·A, which no kernel ever forms."""
    return scale * b.reshape(b.shape[0], -1) @ a.reshape(a.shape[0], -1)


def _cut(a: Dense, b: Dense, scale: float, rank: int) -> tuple[Dense, Dense, Dense]:
    u, values, vt = np.linalg.svd(_delta(a, b, scale), full_matrices=False)
    left, right, kept = u[:, :rank], vt[:rank], np.sqrt(values[:rank])
    signs = np.where(left.max(axis=0) >= -left.min(axis=0), 1, -1)
    new_a = (signs * kept)[:, None] * right
    new_b = left * (signs * kept / scale if scale else 0 * kept)
    cost = np.array([np.linalg.norm(values[rank:]), np.linalg.norm(values)])
    return new_a.reshape(-1, *a.shape[1:]), new_b.reshape(b.shape[0], -1, *b.shape[2:]), cost
