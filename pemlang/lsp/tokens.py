"""The words of a recipe by what they are: what an editor colours beyond what a grammar knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from lsprotocol.types import SemanticTokensLegend

from pemlang.check.kinds import PLAIN
from pemlang.lsp.analysis import Analysis
from pemlang.lsp.names import Role
from pemlang.lsp.places import TextPlaces
from pemlang.modules import PARAMETRISATIONS
from pemlang.ops import FUNCTIONS
from pemlang.syntax import tree as t
from pemlang.syntax.tree import FORMS, KEYWORDS

_TYPES = (
    "keyword", "variable", "parameter", "function", "namespace", "property", "string", "number",
    "operator", "comment", "type",
)  # fmt: skip
_MODIFIERS = ("declaration", "defaultLibrary", "documentation")
LEGEND = SemanticTokensLegend(list(_TYPES), list(_MODIFIERS))

_ROLES: dict[Role, str] = {
    "value": "variable",
    "parameter": "parameter",
    "function": "function",
    "module": "namespace",
}
WORDS_OF_SELECTIONS = ("layers", "like")
TOKEN = re.compile(
    r"(?P<documentation>\#\#[^\n]*)|(?P<comment>\#[^\n]*)"
    r'|(?P<string>"(?:\\.|[^"\\\n])*")'
    r"|(?P<number>\b[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?\b)"
    r"|(?P<word>[^\W\d][\w\u0300-\u036f]*)"
    r"|(?P<operator>\.[-+*]|[-+*/⊕⊖⊗]|<=|>=|==|!=|->|[<>=])"
)
"""The tokens of a recipe, for what colours it."""

_TYPE_WORDS = {*PLAIN, *PARAMETRISATIONS}


class ColouredToken(NamedTuple):
    """A token: where it stands, what it is, and what else is to be said of it."""

    start: int
    end: int
    type: str
    modifiers: tuple[str, ...] = ()


def coloured(analysis: Analysis) -> Iterator[ColouredToken]:
    """The tokens of a recipe, in order."""
    if analysis.source is None:
        return
    text = analysis.source.text
    names = {x.span.start: x for x in analysis.names[analysis.path].occurrences}
    modules = set(_modules(analysis))
    for match in TOKEN.finditer(text):
        start, end, kind = match.start(), match.end(), str(match.lastgroup)
        if kind == "string":
            at = start  # with the names that stand in it
            for hole in (x for x in range(start, end) if x in names and x > start):
                inner = names[hole].span
                yield ColouredToken(at, inner.start, "string")
                yield ColouredToken(inner.start, inner.end, _ROLES[names[hole].bound.role])
                at = inner.end
            yield ColouredToken(at, end, "string")
        elif kind == "documentation":
            yield ColouredToken(start, end, "comment", ("documentation",))
        elif kind != "word":
            yield ColouredToken(start, end, kind)
        elif start in names:
            occurrence = names[start]
            declares = occurrence.bound.span == occurrence.span
            modifiers = ("declaration",) if declares else ()
            yield ColouredToken(start, end, _ROLES[occurrence.bound.role], modifiers)
        elif start in modules:
            yield ColouredToken(start, end, "namespace")
        else:
            told = _word(text, match)
            if told is not None:
                yield told


def _modules(analysis: Analysis) -> Iterator[int]:
    """Where the words of the modules begin that are imported by name."""
    for statement in analysis.tree.statements if analysis.tree is not None else ():
        if isinstance(statement, t.Import) and isinstance(statement.module, tuple):
            words = [x.start() for x in re.finditer(r"\w+", statement.span.text)]
            first = 2 if statement.hands_on else 1
            for start in words[first : first + len(statement.module)]:
                yield statement.span.start + start


def _word(text: str, match: re.Match[str]) -> ColouredToken | None:
    """A word that is no name of the recipe."""
    start, end, word = match.start(), match.end(), match.group()
    after = text[end : end + 20].lstrip(" \t")
    before = text[max(0, start - 20) : start].rstrip(" \t")
    if after.startswith("=") and not after.startswith("=="):
        return ColouredToken(start, end, "property")
    if word in WORDS_OF_SELECTIONS:
        return ColouredToken(start, end, "keyword") if before.endswith("[") else None
    if word in KEYWORDS:
        return ColouredToken(start, end, "keyword")
    if word in _TYPE_WORDS and before.endswith((":", "->", "[", "(")):
        return ColouredToken(start, end, "type")
    if (word in FUNCTIONS or word in FORMS) and after.startswith("("):
        return ColouredToken(start, end, "function", ("defaultLibrary",))
    return ColouredToken(start, end, "variable") if not after.startswith("(") else None


def encoded(tokens: Iterator[ColouredToken], places: TextPlaces) -> list[int]:
    """Tokens as the protocol has them: five numbers each, lines and columns by their distance."""
    numbers: list[int] = []
    line = column = 0
    for token in tokens:
        start, end = places.position(token.start), places.position(token.end)
        if start == end or start.line != end.line:  # after a lone \r an editor begins a line
            continue
        numbers += [
            start.line - line,
            start.character - (column if start.line == line else 0),
            end.character - start.character,
            _TYPES.index(token.type),
            sum(1 << _MODIFIERS.index(modifier) for modifier in token.modifiers),
        ]
        line, column = start.line, start.character
    return numbers
