"""Regular expressions of strangers, with the meaning that Python gives them, in bounded time.

Python's own engine tries one way after another, and some patterns have more ways than it could ever
try. RE2 follows all of them at once, in a time that grows with the length of a name alone. What RE2
does not know, look-around above all, is matched by trying, and given up when it takes too long.

Both take the pattern as Python parsed it, written out again in what all three agree on.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import field
from re import _constants as op
from re import _parser as parser
from typing import Any, Protocol, TypeAlias

from pemlang.dataclass import dataclass
from pemlang.lazy import re2, regex

LONGEST = 10_000
"""Characters of a pattern."""

LARGEST = 20_000
"""Parts of a pattern, where what repeats counts as often as it may."""

MATCHES = 4_000_000
"""Of patterns with names, of one config: some seconds."""

OTHERS = 500
"""Patterns of one config that are more than names; each takes memory."""

PATIENCE = 1.0
"""Seconds of matching by trying, of one config."""

_MEMORY = 1 << 20
"""Bytes that RE2 may take for a pattern."""

_PLAIN = re.compile(r"\^?(?:\w|\\?[.-])*\$?", re.ASCII)
"""What no engine takes long over: letters and dots."""


class BadPattern(Exception):
    """Why a pattern cannot be used."""


class Found(Protocol):
    """A match."""

    def __getitem__(self, group: str | int, /) -> str: ...


Parsed: TypeAlias = "Any"
"""What Python's parser makes of a pattern, or a part of that, which has no types."""


@dataclass
class PatternWork:
    """The patterns of one config, each made once, and what matching them has taken.

    Attributes:
        made: by what was written, and what it stands in.
        matches: how many there were.
        others: the patterns that are more than names.
        tried: seconds of matching by trying.
    """

    made: dict[tuple[str, str], Pattern] = field(default_factory=dict)
    matches: int = 0
    others: int = 0
    tried: float = 0.0

    def match(self, pattern: str, frame: str, name: str, whole: bool) -> Found | None:
        """What a pattern finds at the start of a name, or as the whole of it.

        Args:
            pattern: as it is written.
            frame: what it stands in, where it is `%`.
            name: of a module.
            whole: whether it has to be all of the name.

        Raises:
            BadPattern: the pattern is broken or too large, or takes too long.
        """
        self.matches += 1
        if self.matches > MATCHES:
            raise BadPattern("there are too many patterns for so many modules")
        key = pattern, frame
        if key not in self.made:
            self.others += not _PLAIN.fullmatch(pattern)
            if self.others > OTHERS:
                raise BadPattern(f"there are more than {OTHERS} patterns like it")
            self.made[key] = Pattern(pattern, frame)
        made = self.made[key]
        if made.is_linear(name):
            return made.match(name, whole)
        if self.tried > PATIENCE:
            raise BadPattern("it and others take too long to match")
        start = time.perf_counter()
        try:
            return made.match(name, whole, PATIENCE - self.tried)
        finally:
            self.tried += time.perf_counter() - start


_work: ContextVar[PatternWork | None] = ContextVar("work", default=None)


@contextmanager
def one_config() -> Iterator[None]:
    """Inside are the patterns of one config."""
    before = _work.set(PatternWork())
    try:
        yield
    finally:
        _work.reset(before)


def matched(pattern: str, name: str, frame: str = "%", whole: bool = False) -> Found | None:
    """See PatternWork.match."""
    return (_work.get() or PatternWork()).match(pattern, frame, name, whole)


class Pattern:
    """A pattern that matches as it does in Python."""

    def __init__(self, pattern: str, frame: str = "%") -> None:
        """Take a pattern, and what it stands in; raises BadPattern where it is broken or too
        large."""
        if len(pattern) > LONGEST:
            raise BadPattern("it is too long")
        text = frame.replace("%", pattern)
        self._engine: Parsed = None
        self._tried: Parsed = None
        self._is_plain = _PLAIN.fullmatch(pattern) is not None
        if self._is_plain:
            self._engine = re.compile(text)
            return
        written = _Wording(_parsed(text))
        self._written = written.text
        if written.is_linear:
            options = re2.Options()
            options.log_errors, options.max_mem = False, _MEMORY
            try:
                self._engine = re2.compile(written.text.replace(r"\Z", r"\z"), options)
            except re2.error:
                raise BadPattern("it is too large") from None

    def is_linear(self, name: str) -> bool:
        """Whether a name is matched in a time that grows with its length alone."""
        # Elsewhere Python's classes of letters and its `$` are not those that are written out.
        seen = self._is_plain or (name.isascii() and name.isprintable())
        return seen and self._engine is not None

    def match(self, name: str, whole: bool = False, seconds: float = PATIENCE) -> Found | None:
        """What it finds at the start of a name, or as the whole of it; raises BadPattern where
        that takes longer than some seconds."""
        found: Found | None
        if self.is_linear(name):
            found = (self._engine.fullmatch if whole else self._engine.match)(name)
            return found
        if self._tried is None:
            self._tried = regex.compile(self._written)
        try:
            match = self._tried.fullmatch if whole else self._tried.match
            found = match(name, timeout=max(seconds, 1e-4))
        except TimeoutError:
            raise BadPattern("it takes too long to match") from None
        return found


def _parsed(text: str) -> Parsed:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later Python may take for something else
            return parser.parse(text)
    except re.error as error:
        raise BadPattern(error.msg) from None
    except (RecursionError, OverflowError):
        raise BadPattern("it is too large") from None


class _Wording:
    """A parsed pattern, written out in what RE2 and the engine that tries take as Python does.

    Attributes:
        text: the pattern.
        is_linear: whether RE2 knows all of it.
    """

    def __init__(self, parsed: Parsed) -> None:
        self.is_linear = True
        self._names = {number: name for name, number in parsed.state.groupdict.items()}
        self._parts = 0
        try:
            body = self._all(parsed, 1)
        except RecursionError:
            raise BadPattern("it is too large") from None
        flags = _letters(parsed.state.flags)
        self.text = f"(?{flags}:{body})" if flags else body

    def _all(self, parsed: Parsed, times: int) -> str:
        return "".join(self._one(code, value, times) for code, value in parsed)

    def _one(self, code: Parsed, value: Parsed, times: int) -> str:
        """One part, which may come so many times."""
        self._parts += times
        if self._parts > LARGEST:
            raise BadPattern("it is too large")
        if code not in _WRITERS:
            raise BadPattern("it is of a kind that is not known here")
        return _WRITERS[code](self, value, times)

    def literal(self, value: int, times: int) -> str:
        return _escaped(value)

    def not_literal(self, value: int, times: int) -> str:
        return f"[^{_escaped(value)}]"

    def any_(self, value: None, times: int) -> str:
        return "."

    def class_(self, items: Sequence[tuple[Parsed, Parsed]], times: int) -> str:
        self._parts += times * len(items)
        return f"[{''.join(self._in_class(code, value) for code, value in items)}]"

    def _in_class(self, code: Parsed, value: Parsed) -> str:
        if code is op.NEGATE:
            return "^"
        if code is op.RANGE:
            return f"{_escaped(value[0])}-{_escaped(value[1])}"
        return _CATEGORIES[value] if code is op.CATEGORY else _escaped(value)

    def branch(self, value: tuple[None, Sequence[Parsed]], times: int) -> str:
        return f"(?:{'|'.join(self._all(way, times) for way in value[1])})"

    def group(self, value: tuple[int | None, int, int, Parsed], times: int) -> str:
        number, add, remove, inner = value
        flags, off, body = _letters(add), _letters(remove), self._all(inner, times)
        if flags or off:
            body = f"(?{flags}{f'-{off}' if off else ''}:{body})"
        if number is None:
            return f"(?:{body})"
        name = self._names.get(number)
        return f"(?P<{name}>{body})" if name else f"({body})"

    def repeat(self, value: tuple[int, Parsed, Parsed], times: int, kind: str = "") -> str:
        low, high, inner = value
        endless = high is op.MAXREPEAT
        self.is_linear &= (low if endless else max(low, high)) <= _MOST_OF_RE2
        body = self._all(inner, times * max(1, low if endless else high))
        return f"(?:{body}){{{low},{'' if endless else high}}}{kind}"

    def lazy(self, value: tuple[int, Parsed, Parsed], times: int) -> str:
        return self.repeat(value, times, "?")

    def place(self, value: Parsed, times: int) -> str:
        return _PLACES[value]

    def look(self, value: tuple[int, Parsed], times: int, sign: str = "=") -> str:
        self.is_linear = False
        direction, inner = value
        if direction < 0 and len(set(inner.getwidth())) > 1:
            raise BadPattern("look-behind requires fixed-width pattern")
        return f"(?{'<' if direction < 0 else ''}{sign}{self._all(inner, times)})"

    def not_look(self, value: tuple[int, Parsed], times: int) -> str:
        return self.look(value, times, "!")

    def again(self, value: int, times: int) -> str:
        self.is_linear = False
        return f"(?:\\{value})"

    def if_(self, value: tuple[int, Parsed, Parsed], times: int) -> str:
        self.is_linear = False
        number, then, otherwise = value
        ways = [self._all(way, times) for way in (then, otherwise) if way is not None]
        return f"(?({number}){'|'.join(ways)})"

    def atomic(self, value: Parsed, times: int) -> str:
        self.is_linear = False
        return f"(?>{self._all(value, times)})"

    def possessive(self, value: tuple[int, Parsed, Parsed], times: int) -> str:
        self.is_linear = False
        return f"(?>{self.repeat(value, times)})"


def _letters(flags: int) -> str:
    return "".join(letter for letter, flag in _FLAGS.items() if flags & flag)


def _escaped(code: int) -> str:
    char = chr(code)
    return char if char.isalnum() or code > 0x7F else f"\\x{code:02x}"


_FLAGS = {"i": re.I, "m": re.M, "s": re.S}
_MOST_OF_RE2 = 1000
_CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d", op.CATEGORY_NOT_DIGIT: r"\D", op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W", op.CATEGORY_SPACE: r"\s", op.CATEGORY_NOT_SPACE: r"\S",
}  # fmt: skip
_PLACES = {
    op.AT_BEGINNING: "^", op.AT_BEGINNING_STRING: r"\A", op.AT_END: "$",
    op.AT_END_STRING: r"\Z",
    op.AT_BOUNDARY: r"\b", op.AT_NON_BOUNDARY: r"\B",
}  # fmt: skip
_WRITERS: dict[Parsed, Callable[[_Wording, Parsed, int], str]] = {
    op.LITERAL: _Wording.literal, op.NOT_LITERAL: _Wording.not_literal, op.ANY: _Wording.any_,
    op.IN: _Wording.class_, op.BRANCH: _Wording.branch, op.SUBPATTERN: _Wording.group,
    op.MAX_REPEAT: _Wording.repeat, op.MIN_REPEAT: _Wording.lazy, op.AT: _Wording.place,
    op.ASSERT: _Wording.look, op.ASSERT_NOT: _Wording.not_look, op.GROUPREF: _Wording.again,
    op.GROUPREF_EXISTS: _Wording.if_, op.ATOMIC_GROUP: _Wording.atomic,
    op.POSSESSIVE_REPEAT: _Wording.possessive,
}  # fmt: skip
