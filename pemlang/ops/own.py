"""Adapters that have no Δ of their own: what they change depends on the weights of their base."""

from __future__ import annotations

from collections.abc import Iterable

from pemlang.diagnostics import Fault, visible
from pemlang.formats.adapter import kinds_text
from pemlang.graph.leaves import Leaf, combined_leaves
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


def hold_whole(ctx: Context, x: AdapterNode) -> None:
    """Raise PEM0369 for what is added to a model and would scale, or take a part of, what an
    adapter holds whole of its base."""
    for leaf in combined_leaves(x):
        if isinstance(leaf, Leaf) and leaf.adapter.layout.of_base and not all_of(x, leaf):
            raise of_base(leaf, visible(ctx.text(1), 60))


def all_of(x: AdapterNode, leaf: Leaf) -> bool:
    """Whether an adapter is another one, whole and as it is, and what else there may be."""
    return x.as_sum().get(leaf) == 1 and leaf.shapes.keys() <= x.shapes.keys()


def of_base(leaf: Leaf, text: str, options: str = "") -> Fault:
    """PEM0369: an expression of an adapter that holds trained parameters of its base whole.

    Args:
        leaf: the adapter.
        text: the expression.
        options: what else to do than to add it to its base.
    """
    layout = leaf.adapter.layout
    held = " and ".join(
        ["biases"] * bool(layout.of_base - layout.rows.keys())
        + ["rows of tokens"] * bool(layout.rows)
    )
    return Fault(
        "PEM0369",
        f"the adapter in {visible(leaf.adapter.place.name)} holds {held} of its base whole: what "
        f"they change depends on those of the base, and `{text}` has no value for them",
        f'{options}declare its base as a model, model {_BASE} = "…", and write '
        f"({_BASE} + x) - {_BASE} for such an adapter x",
    )


def _changed(text: str) -> str:
    """What an adapter changes of its base."""
    return f"({_BASE} + {operand(text)}) - {_BASE}"
