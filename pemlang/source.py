"""Source text and places in it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import field
from functools import cached_property
from pathlib import Path

from pemlang.dataclass import dataclass


@dataclass(frozen=True, eq=False)
class Source:
    """One file of recipe text.

    `name` is what messages call the file; `directory` is what its relative paths start from.
    `memory` has what was parsed of earlier texts, where one is parsed again after each key, or at
    many values of its params.
    """

    name: str
    text: str
    directory: Path = field(default_factory=Path)
    memory: dict[tuple[str, str], object] | None = None

    @cached_property
    def line_starts(self) -> list[int]:
        starts = [0]
        starts.extend(i + 1 for i, char in enumerate(self.text) if char == "\n")
        return starts

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both counted from 1, columns in characters."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of one line, counted from 1, without its newline."""
        start = self.line_starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start : len(self.text) if end < 0 else end].rstrip("\r")


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of characters of one source."""

    source: Source
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def contains(self, other: Span) -> bool:
        """Whether another lies in it."""
        within = self.start <= other.start and other.end <= self.end
        return within and self.source is other.source

    def to(self, other: Span) -> Span:
        return Span(self.source, self.start, other.end)
