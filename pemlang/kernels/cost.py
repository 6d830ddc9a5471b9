"""About how many floating point operations a program takes: what its loops do, and the leading
terms of what decompositions do."""

from __future__ import annotations

import math

from pemlang.kernels.program import Instr, Program

_EACH = dict.fromkeys(
    "scale add sub mul div sign abs less equal select reduce".split(), 1
) | {"fma": 2}  # fmt: skip
_SKETCH_PASSES = 6  # of a block Krylov SVD over Δ, forth and back


def flops(program: Program, elements: int | None = None) -> int:
    """Operations of one run of a program.

    Args:
        program: what is run.
        elements: of a span, where it treats every element alike.
    """
    return sum(_of(program, instr, elements) for instr in program.instrs)


def _of(program: Program, instr: Instr, elements: int | None) -> int:
    if instr.op in _EACH:
        return _EACH[instr.op] * (math.prod(instr.shape) if elements is None else elements)
    shapes = [program.instrs[arg].shape for arg in instr.args]
    if instr.op == "matmul":
        return 2 * math.prod(instr.shape) * shapes[0][-1]
    if instr.op in ("core_svd", "whole"):
        rank, ends = shapes[0][0], math.prod(shapes[0]) + math.prod(shapes[1])
        # Two QR decompositions with their Q, an SVD of the core, and Q times what is kept.
        kept = int(instr.attrs[1].removeprefix("rank=")) if instr.op == "core_svd" else 0
        return 4 * ends * rank + 24 * rank**3 + 2 * ends * kept
    if instr.op == "merge":
        return _merge(instr, shapes)
    return 0


def _merge(instr: Instr, shapes: list[tuple[int, ...]]) -> int:
    """A merge: over factors a few operations an element; over Δ its tiles, and the cut."""
    ask = instr.attrs[0]
    elements = sum(math.prod(shape) for shape in shapes)
    if len(shapes) < 2 or ask.over == "factors":
        return 10 * elements
    (rank, *ins), outs = shapes[0], shapes[1]
    full = math.prod(ins) * math.prod(outs) // max(1, rank)
    total = elements // max(1, math.prod(ins) + math.prod(outs) // max(1, rank))
    rank_out = int(ask.rank)
    return 2 * full * total + 2 * full * rank_out * _SKETCH_PASSES
