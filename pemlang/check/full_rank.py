"""A method that treats each entry of Δ by itself fills the matrices of a LoRA. Nothing is saved at
that rank unless the recipe says so: what two adapters make may be thirty times their size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pemlang.check.options import saved_with
from pemlang.diagnostics import Fault, visible
from pemlang.graph.node import AdapterNode
from pemlang.ops.use import Use, after, before
from pemlang.source import Span
from pemlang.syntax import tree as t

Filling = Mapping[AdapterNode, tuple[Use, ...] | None]
"""The calls of each value that fills the matrices; None where one of them says rank=full."""


def rank_not_said(
    statement: t.Save, saved: AdapterNode, filling: Filling
) -> Iterator[tuple[Fault, Span]]:
    """PEM0349 and its place, where a value is saved that fills the matrices and nobody has said
    so: at each of its calls, or at the `save` where the call is in a file that is imported."""
    told = set()  # one call makes several values where a setting of it varies by site
    for node in _filled(saved):
        for call in filling.get(node) or ():
            if call.whole not in told:
                told.add(call.whole)
                yield _not_said(statement, saved, node, call)


def _not_said(
    statement: t.Save, saved: AdapterNode, node: AdapterNode, call: Use
) -> tuple[Fault, Span]:
    own = [x.ranks.values() for x in node.args if isinstance(x, AdapterNode)]
    rank = max(max(ranks, default=1) for ranks in own)
    line, _ = statement.span.source.position(statement.span.start)
    here = call.whole.source is statement.span.source
    name = visible(call.whole.source.name)
    where = f"line {line} saves it" if here else f"{name} calls it"
    fault = Fault(
        "PEM0349",
        f"`{node.name}` fills the matrices: saved as it is it has rank "
        f"{max(node.ranks.values())}, and the adapters have {rank}",
        _call_with(call, rank, node) if here else _saved_with(statement, rank, saved),
        (f"{where}; rank=full says that all of it is meant",),
    )
    return fault, call.whole if here else statement.span


def _filled(saved: AdapterNode) -> Iterator[AdapterNode]:
    """What fills the matrices and comes through to what is saved, cut nowhere on the way."""
    seen, pending = {saved}, [saved]
    while pending:
        node = pending.pop()
        if node.fills:
            yield node
        elif not node.is_cut and _is_full(node):
            new = {x for x in node.args if isinstance(x, AdapterNode)} - seen
            seen |= new
            pending += sorted(new, key=lambda x: x.key)


def _is_full(node: AdapterNode) -> bool:
    return any(rank >= node.shapes[site].full_rank for site, rank in node.ranks.items())


def _call_with(call: Use, rank: int, node: AdapterNode) -> str:
    """The call with a rank; with a cut by energy around it where a matrix is too small for that."""
    if _has_room(rank, node):
        return call.having("rank", str(rank)) or f"give it a rank: rank={rank}"
    around = [before(call.whole, "compress("), after(call.whole, ", energy=0.99)")]
    return call.replaced(around) or "compress what it gives, with energy=0.99"


def _saved_with(statement: t.Save, rank: int, saved: AdapterNode) -> str:
    """The `save` with a rank, or with an energy where a matrix is too small for that."""
    option = f"rank={rank}" if _has_room(rank, saved) else "energy=0.99"
    return saved_with(statement, option)


def _has_room(rank: int, node: AdapterNode) -> bool:
    return all(rank <= shape.full_rank for shape in node.shapes.values())
