"""Text to tree: statements are split at top-level newlines, then parsed one by one with Lark."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from lark import Lark
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError
from lark.utils import TextSlice

from pemlang.diagnostics import Fault, Report, nearest, visible
from pemlang.resources import resource
from pemlang.source import Source, Span
from pemlang.syntax import tree as t
from pemlang.syntax.builder import TreeBuilder
from pemlang.syntax.split import Chunk, split

MAX_DEPTH = 100
STATEMENTS = ("language import base model adapter param let def assert save test").split()


def parse(source: Source, report: Report) -> t.File:
    """The tree of a whole source.

    Statements that do not parse are reported and left out, so that the rest is still checked.
    """
    statements: list[t.Statement] = []
    for chunk in split(source, report):
        try:
            statements.append(_statement(source, chunk))
        except _Misread as mistake:
            report.add(mistake.fault.at(mistake.span))
    return t.File(Span(source, 0, len(source.text)), tuple(statements))


class _Misread(Exception):
    def __init__(self, fault: Fault, span: Span) -> None:
        self.fault, self.span = fault, span


@cache
def _lark() -> Lark:
    text = (resource("grammar") / "pem.lark").read_text(encoding="utf-8")
    return Lark(
        text,
        parser="lalr",
        lexer="contextual",
        propagate_positions=True,
        maybe_placeholders=True,
    )


def _statement(source: Source, chunk: Chunk) -> t.Statement:
    try:
        # A TextSlice is parsed in place and keeps the offsets of the whole file.
        parsed = _lark().parse(TextSlice(source.text, chunk.start, chunk.end))
        found = TreeBuilder(source, chunk.doc).transform(parsed)
    except VisitError as error:
        if isinstance(error.orig_exc, Fault):
            place: Any = getattr(error.obj, "meta", error.obj)  # of a tree, or of a token
            span = Span(source, int(place.start_pos), int(place.end_pos))
            raise _Misread(error.orig_exc, span) from None
        raise
    except UnexpectedInput as error:
        raise _misread(source, chunk, error) from None
    _bound_depth(found)
    return found


def _bound_depth(statement: t.Statement) -> None:
    stack: list[tuple[t.Tree, int]] = [(statement, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise _Misread(
                Fault(
                    "PEM0109",
                    f"this expression is nested more than {MAX_DEPTH} deep",
                    "name the inner parts with `let`",
                ),
                statement.span,
            )
        stack.extend((child, depth + 1) for child in node.children())


_READABLE = {
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a string in double quotes",
    "SUM_OP": "an operator",
    "PRODUCT_OP": "an operator",
    "COMPARE": "a comparison",
    "$END": "the end of the line",
    "EQUAL": "`=`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "COMMA": "`,`",
    "COLON": "`:`",
    "DOT": "`.`",
}
_WORD = re.compile(r"\w+")
_VALUE_START = {"NUMBER", "STRING", "NAME", "TRUE", "FALSE", "LPAR"}


def _misread(source: Source, chunk: Chunk, error: UnexpectedInput) -> _Misread:
    """A syntax error in the reader's words: what stands there, what could stand there."""
    wanted: set[str] = set()
    start, end = chunk.end, chunk.end
    if isinstance(error, UnexpectedToken):
        wanted = set(error.accepts or error.expected)
        if error.token.type != "$END":
            start, end = int(error.token.start_pos or 0), int(error.token.end_pos or 0)
    elif isinstance(error, UnexpectedCharacters):
        wanted = set(error.allowed or ())
        start = int(error.pos_in_stream or 0)
        word = _WORD.match(source.text, start, chunk.end)
        end = word.end() if word else start + 1
    found = source.text[start:end]
    span = Span(source, start, end)
    if start == chunk.start:
        return _Misread(_unknown_statement(found), span)
    expected = _expected(wanted)
    if not found.strip():
        message = f"the line ends where {expected} should follow"
        hint = "an expression that goes on over several lines stands in brackets: ( … )"
        return _Misread(Fault("PEM0108", message, hint), span)
    equals = found == "=" and "COMPARE" in wanted
    message = f"`{visible(found, 40)}` is out of place: {expected} should stand here"
    return _Misread(Fault("PEM0108", message, "compare with `==`" if equals else None), span)


def _unknown_statement(word: str) -> Fault:
    if word == "test":
        return Fault(
            "PEM0112",
            "`test` blocks are not part of this version of pemlang",
            'state what must hold with `assert … else "…"`',
        )
    close = nearest(word, STATEMENTS)
    return Fault(
        "PEM0107",
        f"no statement starts with `{visible(word, 40)}`",
        f"did you mean `{close}`?"
        if close
        else "a line starts with one of: " + ", ".join(STATEMENTS[:-1]),
    )


def _expected(wanted: set[str]) -> str:
    if wanted >= _VALUE_START:
        return "a value"
    words = [_READABLE.get(name, f"`{name.strip('_').lower()}`") for name in sorted(wanted)]
    words = sorted(set(words), key=lambda word: (word.startswith("an "), word))
    if not words:
        return "something else"
    if len(words) > 5:
        words = [*words[:5], "…"]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" or {words[-1]}"
