"""Text to tree: statements are split at top-level newlines, then parsed one by one with Lark."""

from __future__ import annotations

import re
from functools import cache
from typing import Any
from unicodedata import normalize

from lark import Lark
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError
from lark.utils import TextSlice

from pemlang.diagnostics import Fault, Report, nearest, showable, visible
from pemlang.source import Source, Span
from pemlang.syntax import tree as t
from pemlang.syntax.builder import TreeBuilder
from pemlang.syntax.foreign import foreign
from pemlang.syntax.repair import LONGEST, Misread, corrected, printed_apart
from pemlang.syntax.split import Chunk, split
from pemlang.syntax.tables import load_parser

MAX_DEPTH = 100
MOST_MENDED = 50
"""Statements of a file for which it is tried what was meant."""
MOST_REMEMBERED = 2000
"""Statements that are kept of texts which are parsed after each key."""
_DECLARED = re.compile(r"(?:base|model|adapter|param|let|def)\s+([^\W\d]\w*)")
STATEMENTS = (
    "language import export base model adapter param let def assert print test save".split()
)


def parse(source: Source, report: Report) -> t.RecipeFile:
    """The tree of a whole source.

    Statements that do not parse are reported, so that the rest is still checked; a file of another
    language is reported as that alone.
    """
    statements: list[t.Statement] = []
    mistakes = Report()
    unparsed = 0
    for chunk in split(source, mistakes):
        try:
            statements.append(_statement(source, chunk, unparsed < MOST_MENDED))
        except _Unparsed as mistake:
            unparsed += 1
            mistakes.add(mistake.fault.at(mistake.span))
            statements += _unread(source, chunk)
    other = foreign(source) if mistakes.has_errors else None
    if other is not None:
        report.add(other)
        return t.RecipeFile(Span(source, 0, len(source.text)), ())
    for each in mistakes:
        report.add(each)
    return t.RecipeFile(Span(source, 0, len(source.text)), tuple(statements))


def _unread(source: Source, chunk: Chunk) -> list[t.Statement]:
    """The name that a statement which does not parse would have declared."""
    match = _DECLARED.match(source.text, chunk.start, chunk.end)
    if match is None:
        return []
    name = t.Name(Span(source, match.start(1), match.end(1)), normalize("NFC", match[1]))
    return [t.Unread(Span(source, chunk.start, chunk.end), "", name)]


class _Unparsed(Exception):
    def __init__(self, fault: Fault, span: Span) -> None:
        self.fault, self.span = fault, span


@cache
def _lark() -> Lark:
    return load_parser()


def _statement(source: Source, chunk: Chunk, mend: bool) -> t.Statement:
    if source.memory is None:
        return _parsed(source, chunk, mend)
    text = source.text[chunk.start : chunk.end]
    known = source.memory.get((text, chunk.doc))
    if isinstance(known, t.Statement):
        return t.moved(known, source, chunk.start)
    statement = _parsed(source, chunk, mend)
    if len(source.memory) >= MOST_REMEMBERED:
        source.memory.clear()
    source.memory[text, chunk.doc] = t.moved(statement, Source("", text), -chunk.start)
    return statement


def _parsed(source: Source, chunk: Chunk, mend: bool) -> t.Statement:
    try:
        # A TextSlice is parsed in place and keeps the offsets of the whole file.
        parsed = _lark().parse(TextSlice(source.text, chunk.start, chunk.end))
        statement = TreeBuilder(source, chunk.doc).transform(parsed)
    except VisitError as error:
        if isinstance(error.orig_exc, Fault):
            place: Any = getattr(error.obj, "meta", error.obj)  # of a tree, or of a token
            span = Span(source, int(place.start_pos), int(place.end_pos))
            raise _misused(chunk, error.orig_exc, span, mend) from None
        raise
    except UnexpectedInput as error:
        raise _misread(source, chunk, error, mend) from None
    _bound_depth(statement)
    return statement


def _bound_depth(statement: t.Statement) -> None:
    stack: list[tuple[t.Tree, int]] = [(statement, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise _Unparsed(
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
}
_GOES_ON = "an expression that goes on over several lines stands in brackets: ( … )"
_NO_SIGNS = {
    "%": "write a share as a number: 0.5 for 50 %",
    "^": "write the number that it stands for: a recipe has no powers",
}
_WITHIN = {"for": "[2 * x for x in xs]", "if": "if c then x else y"}
_IN_TESTS = ("let", "assert", "print")
_IN_LOOP = {
    "if": "write the list of what you want: a loop leaves none out",
    "for": "a list has one loop: for x, w in zip(xs, ws) goes through several side by side",
}
_NAMELESS = re.compile(r"param\s+(?:number|string|bool)")
_PRINT = re.compile(r"\bprint\s*\Z")
_WORD = re.compile(r"\w+")
_VALUE_START = {"NUMBER", "STRING", "NAME", "TRUE", "FALSE", "LPAR"}
# What may follow a whole value, said in one word.
_AFTER_VALUE = {"SUM_OP", "PRODUCT_OP", "COMPARE", "_AND", "_OR", "LPAR", "LSQB", "DOT"}


def _misused(chunk: Chunk, fault: Fault, span: Span, mend: bool) -> _Unparsed:
    """A value that reads as one and is none; where it is a text of `print` with expressions in
    braces, with those to be printed."""
    before = _PRINT.search(span.source.text, chunk.start, span.start)
    instead = printed_apart(span.text, _parses) if mend and before else None
    if before and instead and showable(instead):
        fault.help, span = instead, Span(span.source, before.start(), span.end)
    return _Unparsed(fault, span)


def _misread(source: Source, chunk: Chunk, error: UnexpectedInput, mend: bool) -> _Unparsed:
    """A syntax error in the reader's words: what stands there, what could stand there, and, where
    that is asked for, the statement as it was meant."""
    wanted: set[str] = set()
    start, end = chunk.end, chunk.end
    if isinstance(error, UnexpectedToken):
        wanted = set(error.accepts or error.expected)
        if error.token.type != "$END":
            start, end = int(error.token.start_pos or 0), int(error.token.end_pos or 0)
    elif isinstance(error, UnexpectedCharacters):
        start = int(error.pos_in_stream or 0)
        word = _WORD.match(source.text, start, chunk.end)
        end = word.end() if word else start + 1
    span = Span(source, start, end)
    whole = source.text[chunk.start : chunk.end]
    at = Misread(whole, start - chunk.start, end - chunk.start, frozenset(wanted))
    if start == chunk.start:
        fault = _unknown_statement(span.text, source.text[end : chunk.end])
    else:
        fault = _out_of_place(at)
    instead = corrected(at, _parses) if mend else None
    if instead is not None and showable(instead):
        fault.help, span = instead, Span(source, chunk.start, chunk.end)
    return _Unparsed(fault, span)


def _parses(text: str) -> bool:
    if text.startswith("#"):
        return "\n" not in text
    try:
        _lark().parse(text)
    except UnexpectedInput:
        return False
    return True


def _out_of_place(at: Misread) -> Fault:
    text = visible(at.token, 40)
    if not at.wanted:  # a character that begins no token at all
        help = _NO_SIGNS.get(text[:1], "leave it out; the operators are + - * / ⊕ ⊖ ⊗")
        return Fault("PEM0108", f"`{text}` means nothing in a recipe", help)
    expected = _expected(set(at.wanted))
    if not text.strip():
        message = f"the line ends where {expected} should follow"
        goes_on = at.wanted >= _VALUE_START or "SUM_OP" in at.wanted
        return Fault("PEM0108", message, _GOES_ON if goes_on else f"write {expected} after it")
    instead = set(at.wanted) - {"$END"}
    help = (f"write {_expected(instead)} here, or " if instead else "") + f"leave `{text}` out"
    if text in ("<", "<=", ">", ">=", "==", "!=") and "_AND" in at.wanted:
        help = "join two comparisons with `and`"
    elif at.wanted == {"COLON"} and text in (")", ","):
        help = "give each parameter its type, as in x: adapter"
    elif text == "," and re.search(r"\[\s*layers\b[^\]]*\Z", at.before[-LONGEST:]):
        help = "put layers that are apart together with join(x[layers 0], x[layers 5])"
    elif text in _IN_LOOP and at.in_brackets and re.search(r"\bfor\b", at.before[-LONGEST:]):
        help = _IN_LOOP[text]
    elif "_LAYERS" in at.wanted and text == "-":
        help = "items are counted from 0, the first is [0]"
    elif text == ":" and re.search(r"\[\s*\w+\Z", at.before[-LONGEST:]):
        help = "one item stands at a number, xs[0]; layers are x[layers 0..15]"
    elif at.before.startswith("test") and text in STATEMENTS and text not in _IN_TESTS:
        help = "move it out of the test, in which let, assert and print alone stand"
    elif at.before.startswith("print") and text == ",":
        help = "write a `print` for each, one a line"
    elif at.wanted == {"__ANON_0"}:
        help = "give both ends of the range, as in 0..1"
    elif _NAMELESS.fullmatch(at.before):
        help = "give it a name before its type, as in param weight: number"
    return Fault("PEM0108", f"`{text}` is out of place: {expected} should stand here", help)


def _unknown_statement(word: str, rest: str) -> Fault:
    close = nearest(word, STATEMENTS)
    if word in ("for", "if"):
        hint = f"choose and loop within an expression: {_WITHIN[word]}"
    elif re.match(r"\s*=(?!=)", rest):
        hint = f"say what it is: let {visible(word, 40)} = …, or adapter {visible(word, 40)} = …"
    elif close:
        hint = f"did you mean `{close}`?"
    elif word[0] in "+-*/.⊕⊖⊗<>=!":
        hint = _GOES_ON
    else:
        hint = "begin the line with one of: " + ", ".join(STATEMENTS)
    return Fault("PEM0107", f"no statement starts with `{visible(word, 40)}`", hint)


def _readable(terminal: str) -> str:
    if terminal in _READABLE:
        return _READABLE[terminal]
    pattern = _lark().get_terminal(terminal).pattern
    return f"`{pattern.value if pattern.type == 'str' else terminal.strip('_').lower()}`"


def _expected(wanted: set[str]) -> str:
    if wanted >= _VALUE_START:
        return "a value"
    if "SUM_OP" in wanted:
        wanted = wanted - _AFTER_VALUE | {"SUM_OP"}
    readable = {_readable(name) for name in wanted}
    words = sorted(readable, key=lambda word: (word.startswith("an "), word))
    if len(words) > 5:
        words = [*words[:5], "…"]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" or {words[-1]}"
