"""Ranks that a recipe asks for: whole numbers, known before weights are read, that every site has
room for."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from pemlang.diagnostics import Fault, listed, visible
from pemlang.graph.node import Num, NumberNode
from pemlang.graph.numbers import shown
from pemlang.modules import Shapes
from pemlang.ops.record import Context

MAX_RANK = 1 << 20


def unmeasured(value: Num, what: str) -> Fraction:
    """A number that decides shapes; raises PEM0314 when it is measured."""
    if isinstance(value, NumberNode):
        raise Fault(
            "PEM0314",
            f"{what} is measured from weights, but has to be known before they are read",
            "write a number or a param",
        )
    return value


def whole_rank(value: Num, what: str) -> int:
    """A rank as a whole number of at least 1; raises PEM0312, or PEM0314 when it is measured."""
    rank = unmeasured(value, what)
    if rank.denominator != 1 or not 1 <= rank <= MAX_RANK:
        whole = f"a whole number from 1 to {MAX_RANK}"
        raise Fault(
            "PEM0312", f"{what} is {shown(rank)}, not {whole}", f"write one, as in {what}=16"
        )
    return int(rank)


def hold_rank(ctx: Context, rank: int, shapes: Shapes) -> None:
    """Raise PEM0310 for a rank that a site has no room for."""
    above = [site for site, shape in shapes.items() if rank > shape.full_rank]
    if above:
        raise Fault(
            "PEM0310",
            f"rank {rank} is above min(out, in) at {listed(above)}",
            _within_room(ctx, rank, shapes, above),
            (f"{visible(above[0])} is {shapes[above[0]]}",),
        )


def _within_room(ctx: Context, rank: int, shapes: Shapes, above: Sequence[str]) -> str:
    """What to write instead of a rank that some sites have no room for: the most that they have,
    where that is the same for all; else it would cut each to what the smallest allows."""
    room = {shape.full_rank for shape in shapes.values()}
    if len(room) == 1:
        return ctx.having("rank", str(min(room)))
    least, names = min(room), sorted({site.rpartition(".")[2] for site in above})
    patterns = ", ".join(f'"*{visible(name)}"' for name in names[:4])
    return (
        f"a rank of {least} has room everywhere; for more elsewhere, cut x[{patterns}] apart from "
        "the rest, and join the two"
    )
