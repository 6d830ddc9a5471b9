"""A recipe as a notebook shows it: what it saves in normal form, and its graph."""

from __future__ import annotations

from collections.abc import Iterable

from pemlang.check.checked import Checked
from pemlang.diagnostics import Diagnostic, render
from pemlang.graph.formula import Formula, type_text
from pemlang.graph.node import AdapterNode, ModelNode, Node
from pemlang.show.graph import TooMany, picture
from pemlang.show.page import escaped, paragraph
from pemlang.show.svg import as_svg

_LINE = 2000  # characters of one line that are shown
_CELL = 'style="text-align: left; font-family: monospace"'


def recipe_html(checked: Checked) -> str:
    """What is wrong with a recipe; then what it saves, or gives names to where it saves nothing;
    then its graph. An HTML fragment in which all that comes from files is text."""
    parts = [diagnostics_html(checked.diagnostics)] if checked.diagnostics else []
    write = Formula(checked.leaf_name)
    rows = [(output.path, output.node) for output in checked.outputs]
    rows = rows or [
        (name, value)
        for name, value in checked.names.items()
        if isinstance(value, AdapterNode | ModelNode)
    ]
    if rows:
        parts.append(f"<table>{''.join(_row(write, *row) for row in rows)}</table>")
    if checked.outputs:
        try:
            parts.append(f'<div style="overflow-x: auto">{as_svg(picture(checked))}</div>')
        except TooMany as error:
            parts.append(paragraph(f"There is no picture: {error}."))
    return "\n".join(parts)


def _row(write: Formula, name: str, node: Node) -> str:
    cells = (escaped(text, _LINE) for text in (name, write.value(node), type_text(node)))
    return f"<tr>{''.join(f'<td {_CELL}>{cell}</td>' for cell in cells)}</tr>"


def diagnostics_html(diagnostics: Iterable[Diagnostic]) -> str:
    """Messages with their carets, as text."""
    lines = "\n\n".join(map(render, diagnostics)).split("\n")
    text = "\n".join(escaped(line, _LINE) for line in lines)
    return f"<pre>{text}</pre>"
