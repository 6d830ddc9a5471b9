"""The comments of a statement, and where its brackets are."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from pemlang.source import Source
from pemlang.syntax.boxes import Box, Group, Line, Nest, Newline
from pemlang.syntax.split import TOKEN, Chunk

_BEFORE = re.compile(r"(?:\s|\(|#[^\n]*)*")  # what may stand before the first token of a tree


class NoPlace(Exception):
    """A comment stands where no line can end."""


class Note(NamedTuple):
    """A comment."""

    at: int
    alone: bool  # on its line
    text: str


class Places:
    """What of a statement its tree does not have, taken in the order of the text."""

    def __init__(self, source: Source, chunk: Chunk) -> None:
        self._text = source.text
        self._comments: deque[Note] = deque()
        self._opening: list[int] = []
        self._closing: dict[int, int] = {}
        opened: list[int] = []
        for token in TOKEN.finditer(source.text, chunk.start, chunk.end):
            at = token.start()
            if token.lastgroup in ("doc", "comment"):
                alone = not source.text[source.text.rfind("\n", 0, at) + 1 : at].strip()
                self._comments.append(Note(at, alone, token.group().rstrip()))
            elif token.lastgroup == "open":
                self._opening.append(at)
                opened.append(at)
            elif token.lastgroup == "close":
                self._closing[opened.pop()] = at

    def notes(self, end: int) -> list[Note]:
        """The comments up to a place that have none yet."""
        notes = []
        while self._comments and self._comments[0].at < end:
            notes.append(self._comments.popleft())
        return notes

    def pass_to(self, end: int) -> None:
        """Raise NoPlace if a comment up to there has not been written."""
        if self._comments and self._comments[0].at < end:
            raise NoPlace

    def brackets_after(self, at: int) -> tuple[int, int]:
        """Where the next bracket opens and closes."""
        opening = self._opening[bisect_left(self._opening, at)]
        return opening, self._closing[opening]

    def first_token(self, start: int) -> int:
        """Where something begins that may stand in round brackets."""
        before = _BEFORE.match(self._text, start)
        assert before is not None
        return before.end()


def written_out(notes: list[Note]) -> tuple[Box, ...]:
    """Comments, the first on the line that has been begun if it stood on such a line."""
    return tuple(
        "  " + note.text if not i and not note.alone else (Newline(), note.text)
        for i, note in enumerate(notes)
    )


def line_after(notes: list[Note], flat: str) -> Box:
    """A line's end, and the comments that stand there."""
    return (*written_out(notes), Newline()) if notes else Line(flat)


def around(opening: Box, closing: Box, before: list[Note], inner: Box, after: list[Note]) -> Group:
    """A tree between brackets, with the comments before and after it."""
    body = Nest((line_after(before, ""), inner, *written_out(after)))
    return Group((opening, body, Newline() if after else Line(), closing))


def comments(text: str) -> Iterator[str]:
    """The comments of a text, in order."""
    for token in TOKEN.finditer(text):
        if token.lastgroup in ("doc", "comment"):
            yield token.group().rstrip()
