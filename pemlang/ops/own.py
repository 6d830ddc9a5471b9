"""Adapters that have no Δ of their own: what they change depends on the weights of their base."""

from __future__ import annotations

from collections.abc import Iterable

from pemlang.diagnostics import Fault, visible
from pemlang.formats.adapter import kinds_text
from pemlang.graph.node import AdapterNode
from pemlang.ops.mend import operand
from pemlang.ops.record import Context, Result, Signature

_BASE = "origin"


def applied(signature: Signature, ctx: Context, *values: object) -> Result:
    """What an operator gives; raises Fault as its rule, and PEM0369 as `hold_own`."""
    if not signature.on_model:
        hold_own(ctx, values)
    return signature.rule(ctx, *values)


def hold_own(ctx: Context, values: Iterable[object]) -> None:
    """Raise PEM0369 for an adapter among some values, or in a list of them, that has no Δ of its
    own."""
    for value in values:
        if isinstance(value, tuple):
            hold_own(ctx, value)
        elif isinstance(value, AdapterNode) and value.type.needs_base:
            raise _needs_base(ctx, value)


def _needs_base(ctx: Context, x: AdapterNode) -> Fault:
    operands = ctx.use.operands if ctx.use is not None else ()
    text = next((span.text for span, value in operands if value is x), ctx.text(0))
    mended = None
    if ctx.use is not None and operands:
        changed = "{}" if ctx.use.function is not None else "({})"
        texts = (
            changed.format(_changed(span.text)) if isinstance(value, AdapterNode) else span.text
            for span, value in operands
        )
        mended = ctx.use.with_operands(texts)
    base = "" if x.type.base is None else f", {visible(x.type.base)!r},"
    return Fault(
        "PEM0369",
        f"`{visible(text, 60)}` is {kinds_text(x.type.kinds)}: what it changes depends on the "
        "weights of its base",
        f'declare its base{base} as a model, model {_BASE} = "…", and write '
        + (mended or f"{_changed(text)} for {text}"),
    )


def _changed(text: str) -> str:
    """What an adapter changes of its base."""
    return f"({_BASE} + {operand(text)}) - {_BASE}"
