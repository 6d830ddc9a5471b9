"""What to write instead where operands do not fit each other: what the author wrote, with those
operands brought together that lie apart."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pemlang.diagnostics import MOST_SHOWN
from pemlang.graph.node import AdapterNode
from pemlang.ops.record import Context
from pemlang.ops.use import Edit, Use, after, before
from pemlang.source import Span

MOST = 40
"""Operands that are brought together; help for more would be too long to read."""

_NAME = re.compile(r"[\w.]+")
# A string or a comment may hold the characters of an operator; it stays as it is.
_SCALES = re.compile(r'"(?:\\.|[^"\\\n])*"|#[^\n]*|⊗|\.\*')


def operand(text: str) -> str:
    """An expression as written, in brackets where `[…]` would bind to a part of it only."""
    return text if _NAME.fullmatch(text) else f"({text})"


def brought_together(ctx: Context, factors: bool) -> str | None:
    """The use with every operand at the sites that all of them have; where their factors are
    combined, at one rank and one scale too. None where no text does that."""
    use = ctx.use
    if use is None or ctx.fixed is not None or len(use.operands) > MOST:
        return None
    xs = use.adapters
    if len(xs) < max(2, len(use.operands)):
        return None
    sites = frozenset(xs[0].shapes).intersection(*(x.shapes for x in xs))
    if not sites:
        return None
    texts = [_at_shared_sites(use, index) for index in range(len(xs))]
    if factors and all(x.type.ranked for x in xs):
        if not all(y.rows_in_order for x in xs for y in x.as_mix()):
            return None
        ranked = sites.intersection(*(x.type.ranked_shapes for x in xs))
        return _alike(use, texts, sorted(ranked)) if ranked else use.with_operands(texts)
    return use.with_operands(texts)


def _at_shared_sites(use: Use, index: int) -> str:
    left, selections = frozenset(use.adapters[index].shapes), ""
    for other, x in enumerate(use.adapters):
        if not left <= frozenset(x.shapes):
            selections += f"[like {use.text(other)}]"
            left &= frozenset(x.shapes)
    return operand(use.text(index)) + selections if selections else use.text(index)


def _alike(use: Use, texts: Sequence[str], sites: Sequence[str]) -> str | None:
    """The use with operands of one rank and one scale at each of some sites."""
    ranks = [[x.ranks[site] for site in sites] for x in use.adapters]
    scales = [[x.scales[site] for site in sites] for x in use.adapters]
    like = next((index for index, numbers in enumerate(scales) if all(numbers)), None)
    if like is None and scales.count(scales[0]) < len(scales):
        return None
    high = max(max(numbers) for numbers in ranks)
    unequal = ranks.count(ranks[0]) < len(ranks)
    mended = []
    for index, text in enumerate(texts):
        padded = unequal and set(ranks[index]) != {high}
        one = f"pad({text}, rank={high})" if padded else text
        moved = like is not None and scales[index] != scales[like]
        mended.append(f"rescale({one}, like={texts[like or 0]})" if moved else one)
    return use.with_operands(mended)


def joined(ctx: Context) -> str | None:
    """A chain of + and − as one `join`, of what stands before the operand that does not fit, of
    that, and of each one after."""
    use = ctx.use
    if use is None or not use.symbols:
        return None
    source = use.whole.source
    edits: list[Edit] = [before(use.whole, "join("), after(use.whole, ")")]
    for symbol, (last, _) in list(zip(use.symbols, use.operands, strict=False))[ctx.at - 1 :]:
        start = last.end + len(source.text[last.end : symbol.start].rstrip(" \t"))
        end = symbol.end + source.text[symbol.end : symbol.end + 1].isspace()
        sign = " -" if symbol.text == "-" else " "
        edits += [after(last, ","), (Span(source, start, end), sign)]
    return use.replaced(edits)


def exactly(ctx: Context) -> str | None:
    """What combines what the operands do: + or − for ⊕ or ⊖, and * for ⊗, which would scale Δ by
    the square; for a call, what its operator says."""
    if ctx.use is None:
        return None
    if ctx.use.symbols and _at_least(ctx.use.whole.text) > MOST_SHOWN:
        return None  # it would not be shown, and there may be as many as there are operands
    edits = _as_sum(ctx.use, ctx.at) if ctx.use.symbols else ctx.over_delta
    return ctx.use.replaced(edits) if edits else None


def _at_least(text: str) -> int:
    """How long a text is once the operators in it that are typed in ASCII are one sign each."""
    return len(text) - sum(map(text.count, (".+", ".-", ".*")))


def _as_sum(use: Use, at: int) -> list[Edit]:
    edits: list[Edit] = [
        (symbol, "-" if symbol.text in ("⊖", ".-") else "+") for symbol in use.symbols[at - 1 :]
    ]
    for span, _ in use.operands[0 if at == 1 else at :]:
        for match in _SCALES.finditer(span.source.text, span.start, span.end):
            if match[0] in ("⊗", ".*"):
                edits.append((Span(span.source, match.start(), match.end()), "*"))
    return edits


def full_rank(xs: Sequence[AdapterNode]) -> int:
    """The highest rank of some adapters that all their sites have room for."""
    room = min(shape.full_rank for x in xs for shape in x.type.ranked_shapes.values())
    return min(room, max(rank for x in xs for rank in x.ranks.values()))
