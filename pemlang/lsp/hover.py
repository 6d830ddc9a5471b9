"""What is told of a place in a recipe: a value and its type, an operator, a code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from pemlang.check.scope import Function, Module
from pemlang.check.values import BaseName, Poison, RecipeValue
from pemlang.diagnostics import visible
from pemlang.graph.formula import Formula, type_text
from pemlang.graph.node import AdapterNode, Node, NumberNode
from pemlang.graph.numbers import shown
from pemlang.lsp.analysis import Analysis
from pemlang.lsp.names import BoundName, Occurrence
from pemlang.markup import code, markdown
from pemlang.ops import FUNCTIONS, INFIX, PREFIX
from pemlang.ops.record import Operator, kind_of
from pemlang.show.codes import catalogue
from pemlang.show.operators import entry, settings_of
from pemlang.source import Span
from pemlang.syntax import tree as t

_CODE = re.compile(r"PEM\d{4}")


def hover_at(analysis: Analysis, offset: int, norm: float | None = None) -> tuple[str, Span] | None:
    """Markdown about what stands at a place, and where that is; None where there is nothing to
    tell.

    Args:
        analysis: the recipe.
        offset: the place.
        norm: of the adapter that is named there, where it is known.
    """
    if analysis.tree is None:
        return None
    occurrence = analysis.names[analysis.path].at(offset)
    if occurrence is not None:
        text = "\n\n".join(_of_name(analysis, occurrence, norm))
        return (text, occurrence.span) if text else None
    for tree, parent in innermost(analysis.tree, offset):
        told = _of_tree(analysis, tree, parent, offset)
        if told is not None:
            return told
    return None


def adapter_at(analysis: Analysis, offset: int) -> AdapterNode | None:
    """The adapter whose name stands at a place."""
    if analysis.tree is None:
        return None
    occurrence = analysis.names[analysis.path].at(offset)
    value = None if occurrence is None else _value_named(analysis, occurrence)
    return value if isinstance(value, AdapterNode) else None


def innermost(file: t.Tree, offset: int) -> list[tuple[t.Tree, t.Tree | None]]:
    """The trees at a place, each with the one around it, the smallest first."""
    around: list[tuple[t.Tree, t.Tree | None]] = []
    here: t.Tree | None = file
    while here is not None:
        within = [x for x in here.children() if x.span.start <= offset <= x.span.end]
        inner = within[-1] if within else None
        if inner is not None:
            around.insert(0, (inner, here))
        here = inner
    return around


def value_of(analysis: Analysis, bound: BoundName) -> RecipeValue | None:
    """What a name stands for, where it stands for one value."""
    if bound.role != "value" or analysis.checked is None:
        return None
    if isinstance(bound.tree, t.Let) and bound.tree.value in analysis.values:
        return analysis.values[bound.tree.value]
    own = bound.path == analysis.path
    value = analysis.checked.names.get(bound.name) if own else None
    return None if isinstance(value, Poison) else value


def value_text(value: RecipeValue, write: Formula) -> str:
    """The type of a value, and what it comes to: `LoRA, rank 8 = 0.5·a + b`."""
    if isinstance(value, NumberNode):
        return f"number = {write.value(value)}"
    if isinstance(value, Node):
        return f"{type_text(value)} = {write.value(value)}"
    if isinstance(value, tuple):
        many = "item" if len(value) == 1 else "items"
        kinds = sorted({kind_of(item) for item in value})
        return f"[{', '.join(kinds)}], {len(value)} {many}"
    if isinstance(value, Fraction):
        return f"number = {shown(value)}"
    if isinstance(value, str):
        return f'string = "{visible(value)}"'
    if isinstance(value, BaseName):
        return f"base {', '.join(map(visible, value.names))}"
    if isinstance(value, Module | Function | Poison):
        return ""
    return kind_of(value)


def _value_named(analysis: Analysis, occurrence: Occurrence) -> RecipeValue | None:
    value = analysis.values.get(occurrence.tree) if occurrence.tree is not None else None
    return value_of(analysis, occurrence.bound) if value is None else value


def _of_name(analysis: Analysis, occurrence: Occurrence, norm: float | None) -> Iterator[str]:
    bound, tree = occurrence.bound, occurrence.bound.tree
    if isinstance(tree, t.Def):
        yield code(f"def {tree.signature}")
    elif isinstance(tree, t.DefParam):
        yield code(tree.span.text)
    elif isinstance(tree, t.Import):
        yield code(" ".join(tree.span.text.split()))
    else:
        value = _value_named(analysis, occurrence)
        written = "" if value is None else value_text(value, analysis.formula)
        kind = tree.span.text.split()[0] if isinstance(tree, t.Declaration) else ""
        yield code(f"{kind} {bound.name}".strip() + (f": {written}" if written else ""))
        if isinstance(tree, t.AdapterStatement | t.ModelStatement):
            yield markdown(tree.path.span.text)
        if norm is not None:
            yield f"{code(f'norm({occurrence.span.text})')} is {norm:.6g}"
    if isinstance(tree, t.Statement) and tree.doc:
        yield markdown(" ".join(tree.doc.split()))
    if bound.path != analysis.path:
        yield f"of {code(bound.path.name)}"


def _of_tree(
    analysis: Analysis, tree: t.Tree, parent: t.Tree | None, offset: int
) -> tuple[str, Span] | None:
    if isinstance(tree, t.String) and _CODE.fullmatch(tree.span.text[1:-1]):
        told = catalogue().get(tree.span.text[1:-1])
        if told is None:
            return None
        return f"**{tree.span.text[1:-1]}: {markdown(told.title)}**\n\n{told.text}", tree.span
    if isinstance(tree, t.Symbol):
        prefix = isinstance(parent, t.Unary)
        operator = (PREFIX if prefix else INFIX).get(tree.symbol)
        return None if operator is None else (_of_operator(operator), tree.span)
    if isinstance(tree, t.NamedArg) and isinstance(parent, t.Call):
        settings = dict(settings_of(FUNCTIONS[name])) if (name := _built_in(parent)) else {}
        if offset <= tree.name_span.end and tree.name in settings:
            return f"{code(tree.name)}: {markdown(settings[tree.name])}", tree.name_span
    if isinstance(tree, t.Name) and isinstance(parent, t.Call) and tree is parent.function:
        name = _built_in(parent)
        if name is not None:
            text = _of_operator(FUNCTIONS[name])
            value = analysis.values.get(parent)
            if value is not None and (written := value_text(value, analysis.formula)):
                text = f"{code(written)}\n\n{text}"
            return text, tree.span
    return None


def _built_in(call: t.Call) -> str | None:
    """The operator that is called."""
    name = call.function
    return name.name if name.module is None and name.name in FUNCTIONS else None


def _of_operator(operator: Operator) -> str:
    return "\n".join(entry(operator)).removeprefix("### ")
