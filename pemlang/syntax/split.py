"""Where statements begin and end: at newlines outside brackets, strings and comments."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, Report
from pemlang.source import Source, Span

MAX_BRACKETS = 100

TOKEN = re.compile(
    r'(?P<doc>\#\#[^\n]*)|(?P<comment>\#[^\n]*)|(?P<string>"(?:\\.|[^"\\\n])*")|(?P<quote>")'
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<newline>\n)|(?P<word>[^\s#\"()\[\]{}]+)"
)
_PAIRS = {"(": ")", "[": "]", "{": "}"}
# Control characters, and those that make text read in another order than it is parsed in.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


@dataclass(frozen=True)
class Chunk:
    """The characters of one statement, and the `##` lines right above it."""

    start: int
    end: int
    doc: str


def split(source: Source, report: Report) -> Iterator[Chunk]:
    """The statements of a source. Brackets and strings that do not close are reported."""
    for match in _FORBIDDEN.finditer(source.text):
        report.add(
            Fault(
                "PEM0105",
                f"the character U+{ord(match.group()):04X} may not stand in a recipe: "
                "it is invisible or changes the order in which text is shown",
                "delete it",
            ).at(Span(source, match.start(), match.end()))
        )
        return
    doc: list[str] = []
    start: int | None = None
    end = at = 0
    brackets: list[re.Match[str]] = []
    while token := TOKEN.search(source.text, at):
        kind, at = token.lastgroup, token.end()
        if kind == "newline" and not brackets:
            if start is not None:
                yield Chunk(start, end, "\n".join(doc))
            if start is not None or _is_blank(source, token.start()):
                start, doc = None, []
        elif kind == "doc" and start is None:
            doc.append(token.group()[2:].strip())
        elif kind not in ("newline", "doc", "comment"):
            fault = _mismatch(token, brackets)
            start, end = (token.start() if start is None else start), token.end()
            if fault is not None:
                report.add(fault.at(Span(source, token.start(), token.end())))
                newline = source.text.find("\n", at)
                at = len(source.text) if newline < 0 else newline + 1
                start, doc, brackets = None, [], []
    if brackets:
        last = brackets[-1]
        fault = Fault(
            "PEM0106",
            f"this `{last.group()}` is never closed",
            f"close it with `{_PAIRS[last.group()]}`",
        )
        report.add(fault.at(Span(source, last.start(), last.end())))
    elif start is not None:
        yield Chunk(start, end, "\n".join(doc))


def _is_blank(source: Source, end: int) -> bool:
    """Whether nothing stands on the line that ends there."""
    return not source.text[source.text.rfind("\n", 0, end) + 1 : end].strip()


def _mismatch(token: re.Match[str], brackets: list[re.Match[str]]) -> Fault | None:
    """Keep count of the open brackets; the fault in a quote or bracket that does not pair."""
    if token.lastgroup == "quote":
        return Fault("PEM0106", "this string is never closed", 'end it with `"` on the same line')
    if token.lastgroup == "open":
        brackets.append(token)
        if len(brackets) > MAX_BRACKETS:
            return Fault(
                "PEM0109",
                f"brackets are nested more than {MAX_BRACKETS} deep",
                "name the inner parts with `let`",
            )
    if token.lastgroup == "close":
        if not brackets:
            return Fault("PEM0106", f"this `{token.group()}` closes nothing", "remove it")
        opening = brackets.pop().group()
        if _PAIRS[opening] != token.group():
            return Fault(
                "PEM0106",
                f"this `{token.group()}` does not close the `{opening}` before it",
                f"close that with `{_PAIRS[opening]}`",
            )
    return None
