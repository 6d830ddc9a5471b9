"""Ranks that a recipe asks for: whole numbers, known before weights are read, that some site has
room for."""

from __future__ import annotations

from fractions import Fraction

from pemlang.diagnostics import Fault, listed, visible
from pemlang.graph.node import Num, NumberNode
from pemlang.graph.numbers import shown
from pemlang.modules import Shapes, SiteShape
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


def room_for(rank: int, shape: SiteShape) -> int:
    """The rank that a site gets where a recipe asks for one: no more than min(out, in)."""
    return min(rank, shape.full_rank)


def hold_rank(ctx: Context, rank: int, shapes: Shapes) -> None:
    """Raise PEM0310 for a rank that no site has room for; notice PEM0708 where some have not.
    `shapes` are the sites that have a rank."""
    above = [site for site, shape in shapes.items() if rank > shape.full_rank]
    if not above:
        return
    note = f"{visible(above[0])} is {shapes[above[0]]}"
    if len(above) == len(shapes):
        raise Fault(
            "PEM0310",
            f"rank {rank} is above min(out, in) at {listed(above)}",
            ctx.having("rank", str(max(shape.full_rank for shape in shapes.values()))),
            (note,),
        )
    rooms = sorted({shapes[site].full_rank for site in above})
    ctx.noticed.append(
        Fault(
            "PEM0708",
            f"rank {rank} is above min(out, in) at {listed(above)}: it is "
            f"{' or '.join(map(str, rooms[:3]))} there",
            "leave it so: a rank is an upper bound, and nothing is lost there",
            (note,),
        )
    )
