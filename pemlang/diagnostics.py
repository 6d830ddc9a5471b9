"""What can be said about a recipe: one model of a message, for every surface that shows one."""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

from pemlang.dataclass import dataclass
from pemlang.source import Span

Severity = Literal["error", "warning"]

ALIKE = 60  # of 100: how near a name has to be for it to be meant
LONGEST_NAME = 200  # characters that are compared


class _Printer(Protocol):
    """What IPython has a value written by."""

    def text(self, text: str) -> None: ...


@dataclass(frozen=True)
class Diagnostic:
    """One thing said about a recipe.

    Attributes:
        code: stable, `PEM` and four digits; `pem explain CODE` tells more.
        severity: an error stops the build, a warning does not.
        message: what was found, in the reader's words.
        span: where; None when the place is not in a recipe (an adapter directory, say).
        help: what to write instead, in words or as text that can be pasted.
        notes: further facts, a line each.
    """

    code: str
    severity: Severity
    message: str
    span: Span | None = None
    help: str | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return render(self)

    def __repr__(self) -> str:
        place = ""
        if self.span is not None:
            line, column = self.span.source.position(self.span.start)
            place = f" at {visible(self.span.source.name)}:{line}:{column}"
        return f"<{self.severity} {self.code}{place}: {_lines_visible(self.message)}>"

    def _repr_pretty_(self, printer: _Printer, cycle: bool) -> None:
        """As IPython and notebooks show it: with its line of source and a caret."""
        printer.text(render(self))

    def as_json(self) -> dict[str, object]:
        fields: dict[str, object] = {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "help": self.help,
            "notes": list(self.notes),
        }
        if self.span is not None:
            source = self.span.source
            for end, offset in (("start", self.span.start), ("end", self.span.end)):
                line, column = source.position(offset)
                fields[end] = {"line": line, "column": column, "offset": offset}
            fields["file"] = source.name
        return fields


class Fault(Exception):
    """A mistake found where the place in the recipe is not known yet.

    Rooms below the checker raise it; the checker catches it and adds the place, but where `place`
    says it more closely.
    """

    def __init__(
        self,
        code: str,
        message: str,
        help: str,
        notes: Iterable[str] = (),
        place: Span | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.help, self.notes = code, message, help, tuple(notes)
        self.place = place

    def at(self, span: Span | None, severity: Severity = "error") -> Diagnostic:
        place = self.place or span
        return Diagnostic(self.code, severity, self.message, place, self.help, self.notes)


class PemError(Exception):
    """A recipe that does not check or build.

    Attributes:
        diagnostics: every error and warning found, in source order.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(render(d) for d in self.diagnostics))

    def _render_traceback_(self) -> list[str]:
        """As notebooks show it: what is wrong, without the lines of Python that found it."""
        return str(self).split("\n")


@contextmanager
def told_of(file: Path) -> Iterator[None]:
    """A Fault raised inside says which file it is about."""
    try:
        yield
    except Fault as fault:
        message = f"{visible(file)}: {fault.message}"
        raise Fault(fault.code, message, fault.help, fault.notes) from None


@contextmanager
def placed(span: Span | None) -> Iterator[None]:
    """Faults and file errors as diagnostics of a place in the recipe."""
    try:
        yield
    except Fault as fault:
        raise PemError([fault.at(span)]) from None
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "there is no space left on the disk" if full else str(error.strerror or error)
        name = f" ({visible(error.filename)})" if error.filename else ""
        unwritable = Fault(
            "PEM0512", f"cannot write: {what}{name}", "make room or change the path, and build "
            "again",
        )  # fmt: skip
        raise PemError([unwritable.at(span)]) from None


class PemWarning(UserWarning):
    """A warning about a recipe, where Python's own warnings are how to give one."""


class Report:
    """Collects diagnostics; each place is told a thing once."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], Diagnostic] = {}

    def add(self, diagnostic: Diagnostic) -> None:
        span = diagnostic.span
        place = (span.source.name, span.start, span.end) if span else None
        key = (diagnostic.code, place, diagnostic.message)
        self._found.setdefault(key, diagnostic)

    def __iter__(self) -> Iterator[Diagnostic]:
        def place(d: Diagnostic) -> tuple[object, ...]:
            if d.span is None:
                return (1, "", 0, 0, d.code)
            return (0, d.span.source.name, d.span.start, d.span.end, d.code)

        return iter(sorted(self._found.values(), key=place))

    @property
    def has_errors(self) -> bool:
        return any(d.severity == "error" for d in self._found.values())

    def raise_errors(self) -> None:
        """Raise PemError with everything collected if any of it is an error."""
        if self.has_errors:
            raise PemError(self)


UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of characters that are not printed as they are: they move the cursor, change colours,
or turn the direction of what follows."""


_NO_CHARACTERS = "\ufffe\uffff"  # XML holds neither, escaped or not


def visible(text: object, limit: int = 200) -> str:
    """Untrusted text made safe to print: control and direction-changing characters escaped."""
    shown = str(text)[: limit + 1]
    if not shown.isprintable():
        shown = "".join(
            c
            if unicodedata.category(c) not in UNSEEN and c not in _NO_CHARACTERS
            else f"\\u{ord(c):04x}"
            for c in shown
        )
    return shown[:limit] + "…" if len(shown) > limit else shown


MOST_SHOWN = 1000
"""Characters of a text that help shows."""


def showable(text: str) -> str | None:
    """A text that help shows to be pasted; None where it is too long for that, or has characters
    that are not printed as they are."""
    line = text.replace("\n", " ")
    return text if visible(line, MOST_SHOWN) == line else None


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The known name a misspelt one most likely means, if any is close; case does not count."""
    from rapidfuzz import fuzz, process

    match = process.extractOne(
        name[:LONGEST_NAME],
        list(names),
        scorer=fuzz.ratio,
        processor=str.casefold,
        score_cutoff=ALIKE,
    )
    return None if match is None else str(match[0])


def listed(names: Iterable[str], limit: int = 4) -> str:
    """Names in a sentence: the first few, then how many more."""
    names = [visible(n) for n in names]
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


_STYLES = {"error": "31;1", "warning": "33;1", "rule": "34;1", "help": "36"}


def render(diagnostic: Diagnostic, colour: bool = False) -> str:
    """The message with its line of source and a caret under the place."""

    def paint(style: str, text: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if colour else text

    d = replace(diagnostic, message=_lines_visible(diagnostic.message))
    out = [paint(d.severity, f"{d.severity}[{d.code}]") + f": {d.message}"]
    width = 1
    if d.span is not None:
        line, column = d.span.source.position(d.span.start)
        width = len(str(line))
        bar = paint("rule", " " * width + " |")
        out.append(
            paint("rule", " " * width + "-->") + f" {visible(d.span.source.name)}:{line}:{column}"
        )
        before, marked, after, more = _excerpt(d.span, line, column)
        carets = paint(d.severity, "^" * max(1, _columns(marked)) + more)
        out += [bar, paint("rule", f"{line} | ") + before + marked + after]
        out.append(f"{bar} {' ' * _columns(before)}{carets}")
    for label, texts in (("note", d.notes), ("help", (d.help,) if d.help else ())):
        for text in texts:
            first, *rest = _lines_visible(text).split("\n")
            out.append(paint("rule", " " * width + " = ") + paint("help", f"{label}: ") + first)
            out += [" " * (width + 3 + len(label) + 2) + line for line in rest]
    return "\n".join(out)


def in_lines(diagnostic: Diagnostic) -> str:
    """The message, its notes and its help, for what shows the place itself."""
    lines = [diagnostic.message, *(f"note: {note}" for note in diagnostic.notes)]
    if diagnostic.help:
        lines.append(f"help: {diagnostic.help}")
    return "\n".join(map(_lines_visible, lines))


def _lines_visible(text: str) -> str:
    return "\n".join(visible(line, 2000) for line in text.split("\n"))


def _excerpt(span: Span, line: int, column: int) -> tuple[str, str, str, str]:
    """The source line cut to a window around the place: before, marked, after, what trails."""
    text = span.source.line(line).replace("\t", " ")
    start = column - 1
    end = min(len(text), start + max(1, span.end - span.start))
    more = "…" if span.end - span.start > end - start > 0 else ""
    left = max(0, start - 60)
    end = min(end, left + 140)
    before = ("…" if left else "") + visible(text[left:start])
    after = visible(text[end : left + 160]) + ("…" if len(text) > left + 160 else "")
    return before, visible(text[start:end]), after, more


def _columns(text: str) -> int:
    """Terminal columns of a text: wide characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
