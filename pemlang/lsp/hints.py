"""What is shown beside the text of a recipe: types after names, normal forms above saves."""

from __future__ import annotations

from collections.abc import Iterator

from lsprotocol.types import CodeLens, Command, InlayHint, InlayHintKind

from pemlang.check.values import RecipeValue
from pemlang.diagnostics import visible
from pemlang.graph.formula import type_text
from pemlang.graph.node import Node, NumberNode
from pemlang.lsp.analysis import Analysis
from pemlang.lsp.hover import value_text
from pemlang.lsp.places import TextPlaces
from pemlang.syntax import tree as t


def inlay_hints(analysis: Analysis, places: TextPlaces, start: int, end: int) -> list[InlayHint]:
    """The type, with its rank, of each adapter, model and `let` between two places that has none
    written."""
    hints = []
    for statement in _statements(analysis):
        if not isinstance(statement, t.Let | t.AdapterStatement | t.ModelStatement):
            continue
        if statement.name.span.end < start or statement.name.span.start > end:
            continue
        if not isinstance(statement, t.ModelStatement) and statement.type is not None:
            continue
        value = _value(analysis, statement)
        if isinstance(value, Node) and not isinstance(value, NumberNode):
            hint = InlayHint(
                places.position(statement.name.span.end),
                f": {type_text(value)}",
                InlayHintKind.Type,
                tooltip=value_text(value, analysis.formula),
            )
            hints.append(hint)
    return hints


def code_lenses(analysis: Analysis, places: TextPlaces) -> list[CodeLens]:
    """The normal form of what each `save` writes, above it."""
    if analysis.checked is None:
        return []
    lenses = []
    for output in analysis.checked.outputs:
        title = visible(f"{analysis.formula.value(output.node)}: {type_text(output.node)}", 400)
        lenses.append(CodeLens(places.range_of(output.span), Command(title, "")))
    return lenses


def _statements(analysis: Analysis) -> Iterator[t.Statement]:
    for statement in analysis.tree.statements if analysis.tree is not None else ():
        yield statement
        if isinstance(statement, t.Test):
            yield from statement.statements


def _value(analysis: Analysis, statement: t.Declaration) -> RecipeValue | None:
    if isinstance(statement, t.Let):
        return analysis.values.get(statement.value)
    assert analysis.checked is not None
    return analysis.checked.names.get(statement.name.name)
