"""Lists, and what is chosen: `[f(x) for x in xs]`, `xs[0]`, `if c then x else y`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from pemlang.check.kinds import article
from pemlang.check.values import Plain, RecipeValue
from pemlang.check.wanted import list_kind
from pemlang.diagnostics import Fault, visible
from pemlang.graph.numbers import shown
from pemlang.ops.ranks import unmeasured
from pemlang.ops.record import kind_of
from pemlang.source import Span
from pemlang.syntax import tree as t

if TYPE_CHECKING:
    from pemlang.check.elaborate import Elaborator
    from pemlang.check.scope import Scope


def list_of(elaborator: Elaborator, tree: t.ListOf, scope: Scope) -> tuple[Plain, ...]:
    """`[a, b]`."""
    values = tuple(elaborator.value(item, scope) for item in tree.items)
    return _of_one_kind(elaborator, values, tree.span)


def for_each(elaborator: Elaborator, tree: t.ForEach, scope: Scope) -> tuple[Plain, ...]:
    """`[f(x) for x in xs]`: the names stand for the items of one list after the other."""
    columns = _columns(elaborator, tree, scope)
    values = []
    for number, row in enumerate(zip(*columns, strict=True)):
        inner = scope.child()
        inner.values.update((name.name, x) for name, x in zip(tree.names, row, strict=True))
        with elaborator.expansion.inside(f"for item {number} of the list", tree.span):
            values.append(elaborator.value(tree.body, inner))
    return _of_one_kind(elaborator, tuple(values), tree.span)


def _columns(elaborator: Elaborator, tree: t.ForEach, scope: Scope) -> Sequence[tuple[Plain, ...]]:
    """The lists whose items the names of a loop stand for."""
    names = tree.names
    columns: list[tuple[Plain, ...]] = []
    for each in tree.lists:
        with elaborator.at(each.span):
            if isinstance(each, t.NamedArg):
                raise Fault(
                    "PEM0319",
                    f"`zip` has no parameter `{visible(each.name, 40)}`",
                    "leave the name out: zip(weights, xs)",
                    place=each.name_span,
                )
        value = elaborator.value(each, scope)
        with elaborator.at(each.span):
            if not isinstance(value, tuple):
                message = f"this is {article(list_kind(value))}, a list is wanted"
                raise Fault("PEM0301", message, "put it in brackets: […]")
            columns.append(value)
    with elaborator.at(tree.source.span):
        if len(columns) != len(names):
            raise Fault(
                "PEM0380",
                f"{len(names)} name{'s' * (len(names) > 1)} stand{'s' * (len(names) == 1)} for the "
                f"items of {len(columns)} list{'s' * (len(columns) != 1)}",
                "give a list for each name, as in [w * x for w, x in zip(weights, xs)]",
            )
        if len({len(column) for column in columns}) > 1:
            lengths = [str(len(column)) for column in columns]
            raise Fault(
                "PEM0380",
                f"the lists have {' and '.join(lengths)} items",
                "give lists of one length",
            )
    return columns


def _of_one_kind(
    elaborator: Elaborator, values: tuple[RecipeValue, ...], span: Span
) -> tuple[Plain, ...]:
    """The items of a list, held to be of one kind that a list has."""
    with elaborator.at(span):
        if any(isinstance(value, tuple) for value in values):
            raise Fault("PEM0301", "an item of a list is no list itself", "write one list")
        kinds = {list_kind(value) for value in values}
        if len(kinds) > 1 and kinds != {"number", "schedule"}:
            raise Fault(
                "PEM0301",
                f"the items of a list are of one kind, these are {' and '.join(sorted(kinds))}",
                "write a list for each kind",
            )
    return cast("tuple[Plain, ...]", values)


def item_of(elaborator: Elaborator, tree: t.Index, scope: Scope) -> Plain:
    """`xs[0]`, counted from 0."""
    operand = elaborator.value(tree.operand, scope)
    number = elaborator.number(tree.number, scope)
    with elaborator.at(tree.span):
        if not isinstance(operand, tuple):
            kind = kind_of(operand)
            message = f"{article(kind)} has no items"
            layer = f"{tree.operand.span.text}[layers {tree.number.span.text}]"
            help = layer if kind in ("adapter", "model") else "take an item of a list: xs[0]"
            raise Fault("PEM0302", message, help)
    with elaborator.at(tree.number.span):
        index = unmeasured(number, "the number of an item")
        if index.denominator != 1 or not 0 <= index < len(operand):
            last = len(operand) - 1
            raise Fault(
                "PEM0381",
                f"there is no item {shown(index)}: the list has {len(operand)}",
                f"items are counted from 0, the last is [{last}]"
                if operand
                else "the list is empty",
            )
        return operand[int(index)]


def chosen(elaborator: Elaborator, tree: t.If, scope: Scope) -> RecipeValue:
    """`if c then x else y`: of the one that is not chosen only the names are looked at."""
    condition = elaborator.condition(tree.condition, scope)
    with elaborator.at(tree.condition.span):
        if condition.truth is None:
            raise Fault(
                "PEM0314",
                "the condition is measured from weights, but it decides what is computed",
                "decide by a param or a number that is written: --set changes it from outside",
            )
    return elaborator.value(tree.then if condition.truth else tree.otherwise, scope)
