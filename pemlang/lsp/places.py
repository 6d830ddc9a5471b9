"""Places in a text, as an editor counts them: lines and columns from 0, columns in its units."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping

from lsprotocol.types import Position, PositionEncodingKind, Range

from pemlang.source import Span

_LINE_END = re.compile(r"\r\n|\n|\r")

_MORE: Mapping[str, tuple[str, ...]] = {
    PositionEncodingKind.Utf8: ("\u0080", "\u0800", "\U00010000"),
    PositionEncodingKind.Utf16: ("\U00010000",),
    PositionEncodingKind.Utf32: (),
}
"""The characters from which on a character is one unit more, by what the editor counts."""


class TextPlaces:
    """The places of one text.

    Args:
        text: with `\\n` at the end of its lines.
        encoding: what columns count.
    """

    def __init__(self, text: str, encoding: str = PositionEncodingKind.Utf16) -> None:
        self._text = text
        self._starts = [0, *(match.end() for match in _LINE_END.finditer(text))]
        more = [
            index
            for least in _MORE[encoding]
            for index, char in enumerate(text if not text.isascii() else "")
            if char >= least
        ]
        self._more = sorted(more)

    def position(self, offset: int) -> Position:
        """The place of a character."""
        line = bisect_right(self._starts, offset) - 1
        start = self._starts[line]
        return Position(line, offset - start + self._more_between(start, offset))

    def offset(self, position: Position) -> int:
        """The character at a place; the last one of a line for what is beyond it."""
        if position.line >= len(self._starts):
            return len(self._text)
        start = self._starts[position.line]
        end = len(self._text)
        if position.line + 1 < len(self._starts):
            end = self._starts[position.line + 1] - 1
        places = range(start, end)
        return start + bisect_left(
            places, position.character, key=lambda x: x - start + self._more_between(start, x)
        )

    def _more_between(self, start: int, end: int) -> int:
        """How many units two places are further apart than characters."""
        return bisect_left(self._more, end) - bisect_left(self._more, start)

    def range(self, start: int, end: int) -> Range:
        """What is between two characters."""
        return Range(self.position(start), self.position(end))

    def range_of(self, span: Span) -> Range:
        """Where something is written."""
        return self.range(span.start, span.end)

    @property
    def whole(self) -> Range:
        """All of the text."""
        return self.range(0, len(self._text))
