"""What one native call is told of the blocks that it reads, computes and writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import NamedTuple

from pemlang.dataclass import dataclass


class Row(NamedTuple):
    """A part of a tensor in a loop.

    Attributes:
        tensor: its number among those of the loop.
        first, end: its first element in the loop, and the one after its last.
    """

    tensor: int
    first: int
    end: int


@dataclass
class Stream:
    """Blocks one after the other, and the parts of tensors in them.

    Attributes:
        blocks: BLOCK_NUMBERS of each, see llvm_stream.py.
        ends: where the parts of each block end in it.
        rows: all parts of tensors; one that goes on in the next block is one.
        most: the most parts of a block.
    """

    blocks: list[tuple[int, ...]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    most: int = 0

    def add(self, parts: Iterable[Row]) -> None:
        """A block that is made of some parts."""
        first, *others = parts
        ends, begins = len(self.ends), first.first
        if self.rows and self.rows[-1].tensor == first.tensor and self.rows[-1].end == begins:
            self.rows[-1] = self.rows[-1]._replace(end=first.end)
        else:
            self.rows.append(first)
        row = len(self.rows) - 1
        self.rows += others
        self.ends += [part.end - begins for part in (first, *others)]
        count = 1 + len(others)
        self.most = max(self.most, count)
        self.blocks.append((begins, self.ends[-1], count, ends, row))
