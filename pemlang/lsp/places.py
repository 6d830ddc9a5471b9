"""Places in a text, as an editor counts them: lines and columns from 0, columns in its units."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping

from lsprotocol.types import Position, PositionEncodingKind, Range

from pemlang.source import Span

_LINE_END = re.compile(r"\r\n|\n|\r")

_UNITS: Mapping[str, Callable[[str], int]] = {
    PositionEncodingKind.Utf8: lambda text: len(text.encode(errors="surrogatepass")),
    PositionEncodingKind.Utf16: lambda text: len(text) + sum(char > "\uffff" for char in text),
    PositionEncodingKind.Utf32: len,
}
"""How long a text is, by what the editor counts."""


class TextPlaces:
    """The places of one text.

    Args:
        text: with `\\n` at the end of its lines.
        encoding: what columns count.
    """

    def __init__(self, text: str, encoding: str = PositionEncodingKind.Utf16) -> None:
        self._text = text
        self._units = _UNITS[encoding]
        self._starts = [0, *(match.end() for match in _LINE_END.finditer(text))]

    def position(self, offset: int) -> Position:
        """The place of a character."""
        line = bisect_right(self._starts, offset) - 1
        return Position(line, self._units(self._text[self._starts[line] : offset]))

    def offset(self, position: Position) -> int:
        """The character at a place; the last one of a line for what is beyond it."""
        if position.line >= len(self._starts):
            return len(self._text)
        start = self._starts[position.line]
        end = len(self._text)
        if position.line + 1 < len(self._starts):
            end = self._starts[position.line + 1] - 1
        line = self._text[start:end]
        if line.isascii():
            return start + min(position.character, len(line))
        count = 0
        for index, char in enumerate(line):
            if count >= position.character:
                return start + index
            count += self._units(char)
        return end

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
