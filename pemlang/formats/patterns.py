"""Regular expressions of strangers, with the meaning that Python gives them, in bounded time.

Python's own engine tries one way after another, and some patterns have more ways than it could ever
try. RE2 follows all of them at once, in a time that grows with the length of a name alone. What RE2
does not know, look-around above all, is matched by trying, and given up when it takes too long.
"""

from __future__ import annotations

import re
import time
import warnings
from typing import Any, Protocol

from pemlang.lazy import re2, regex

LONGEST = 10_000
"""Characters of a pattern."""

PATIENCE, A_NAME = 1.0, 1e-4
"""Seconds that matching by trying may take, and more for each name."""

_PLAIN = re.compile(r"(?:\w|\\?\.)*", re.ASCII)
"""What no engine takes long over: letters and dots."""

_MEMORY = 2 << 20
"""Bytes that RE2 may take for a pattern."""

_OTHER_MEANING = re.compile(r"(?<!\\)(?:\[\^?\[|\{[^0-9,])")
"""What other engines take for a class by name, or for a mistake that is allowed."""

_OTHER_COUNT = re.compile(r"\{,")
"""At most so many, for Python; three letters, for RE2."""


class BadPattern(Exception):
    """Why a pattern cannot be used."""


class Found(Protocol):
    """A match."""

    def __getitem__(self, group: str, /) -> str | Any: ...


def is_plain(pattern: str) -> bool:
    """Whether a pattern is a name, or names that differ in what separates their parts."""
    return _PLAIN.fullmatch(pattern) is not None


class Pattern:
    """A pattern that matches as it does in Python."""

    def __init__(self, pattern: str, frame: str = "%") -> None:
        """Take a pattern, and what it stands in, where it is `%`; raises BadPattern where it is
        broken or too large."""
        text = frame.replace("%", pattern)
        python = _of_python(pattern, text)
        self._engine: Any = python if is_plain(pattern) else _linear(text)
        self._text, self._left = text, PATIENCE
        self._tried: Any = None

    def match(self, name: str, whole: bool = False) -> Found | None:
        """What it finds at the start of a name, or as the whole of it; raises BadPattern where
        that takes too long."""
        # Elsewhere Python's classes of letters and its `$` are not RE2's.
        if self._engine is None or not (name.isascii() and name.isprintable()):
            return self._by_trying(name, whole)
        found: Found | None = (self._engine.fullmatch if whole else self._engine.match)(name)
        return found

    def _by_trying(self, name: str, whole: bool) -> Found | None:
        if self._tried is None:
            self._tried = regex.compile(self._text)
        self._left = min(PATIENCE, self._left + A_NAME)
        start = time.perf_counter()
        try:
            match = self._tried.fullmatch if whole else self._tried.match
            found: Found | None = match(name, timeout=max(self._left, A_NAME))
        except TimeoutError:
            raise BadPattern("it takes too long to match") from None
        self._left -= time.perf_counter() - start
        return found


def _of_python(pattern: str, text: str) -> re.Pattern[str]:
    if len(pattern) > LONGEST:
        raise BadPattern("it is too long")
    if other := _OTHER_MEANING.search(pattern):
        raise BadPattern(f"a `{other[0][0]}` in it that is meant as such needs a `\\` before it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later Python may take for something else
            return re.compile(text)
    except re.error as error:
        raise BadPattern(error.msg) from None
    except (RecursionError, OverflowError):
        raise BadPattern("it is too large") from None


def _linear(text: str) -> Any:
    """A pattern of RE2's; None where it does not know it. Raises BadPattern."""
    if _OTHER_COUNT.search(text):
        return None
    options = re2.Options()
    options.log_errors, options.max_mem = False, _MEMORY
    try:
        return re2.compile(text, options)
    except re2.error as error:
        if "too large" in str(error) or "repetition size" in str(error):
            raise BadPattern("it is too large") from None
        return None
