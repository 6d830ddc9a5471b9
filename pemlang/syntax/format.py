"""Tree to text: one layout for all recipes."""

from __future__ import annotations

from dataclasses import fields

from pemlang.diagnostics import Report
from pemlang.source import Source
from pemlang.syntax import layout
from pemlang.syntax import tree as t
from pemlang.syntax.notes import comments
from pemlang.syntax.parser import parse
from pemlang.syntax.split import split


def formatted(source: Source, ascii: bool = False) -> str:
    """The text of a recipe in the one layout, with its comments where they were.

    Args:
        source: the recipe.
        ascii: whether ⊕ ⊖ ⊗ are written as they are typed in ASCII.

    Raises:
        PemError: with every mistake, when it does not parse.
    """
    report = Report()
    file = parse(source, report)
    report.raise_errors()
    text = laid_out(source, file, ascii)
    return text if _says_the_same(file, text) else source.text


def laid_out(source: Source, file: t.RecipeFile, ascii: bool = False) -> str:
    """The text of a file that parsed, laid out; as formatted."""
    lines: list[str] = []
    at = 0
    for chunk, tree in zip(split(source, Report()), file.statements, strict=True):
        _add_lines(lines, source.text[at : chunk.start].split("\n")[:-1], at > 0)
        lines.append(layout.statement(source, chunk, tree, ascii))
        at = chunk.end
    _add_lines(lines, source.text[at:].split("\n"), at > 0)
    return "".join(line + "\n" for line in lines[: len(lines) - (lines[-1:] == [""])])


def _add_lines(lines: list[str], added: list[str], after_statement: bool) -> None:
    """Add the comments, and the blank lines squeezed to one, between two statements."""
    for i, text in enumerate(map(str.strip, added)):
        if after_statement and i == 0:
            lines[-1] += f"  {text}" if text else ""
        elif text or lines[-1:] not in ([], [""]):
            lines.append(text)


def _says_the_same(file: t.RecipeFile, text: str) -> bool:
    """Whether a text has the trees and the comments of a file: what has not is never written."""
    report = Report()
    again = parse(Source(file.span.source.name, text), report)
    return (
        not report.has_errors
        and same(file, again)
        and list(comments(file.span.text)) == list(comments(text))
    )


def same(left: object, right: object) -> bool:
    """Whether two trees are equal, wherever they stand."""
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if not isinstance(left, t.Tree):
        return left == right
    return type(left) is type(right) and all(
        same(getattr(left, field.name), getattr(right, field.name))
        for field in fields(left)
        if field.name != "span"
    )
