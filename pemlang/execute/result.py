"""What running a plan gives beside the bytes it writes, and where those go."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Protocol

from pemlang.dataclass import dataclass
from pemlang.kernels.plan import NumberSink
from pemlang.kernels.rounding import Rounding
from pemlang.tensorfiles.dtypes import Array


class Target(Protocol):
    """Takes the bytes of an output at any place, from any thread.

    Attributes:
        handle: the open file that it is; None where it is none.
    """

    @property
    def handle(self) -> int | None: ...

    def write(self, start: int, data: memoryview) -> None:
        """Write bytes from a place on."""


@dataclass
class FileTarget:
    """An open file."""

    handle: int

    def write(self, start: int, data: memoryview) -> None:
        """Write bytes from a place on; raises OSError."""
        while data:
            count = os.pwrite(self.handle, data, start)
            start, data = start + count, data[count:]


@dataclass
class MemoryTarget:
    """The bytes of a file, in memory."""

    data: bytearray
    handle: None = None

    def write(self, start: int, data: memoryview) -> None:
        """Write bytes from a place on."""
        self.data[start : start + len(data)] = data


class OutputFailed(Exception):
    """Something is wrong with one output.

    Attributes:
        output: its number.
        error: a Failure; an OSError where it cannot be written; of a plan that cannot be made, a
            Fault.
    """

    def __init__(self, output: int, error: Exception) -> None:
        super().__init__(output, error)
        self.output, self.error = output, error


@dataclass
class OutputSeen:
    """What was seen of one output while it was written.

    Attributes:
        rounding: what rounding changed, by factor.
    """

    rounding: dict[str, Rounding] = field(default_factory=dict)

    @property
    def worst_rounding(self) -> float:
        """How much the dtype of the file changes it, relative to its norm: the largest of its
        factors'."""
        return max((factor.share for factor in self.rounding.values()), default=0.0)

    @property
    def is_zero(self) -> bool:
        """Whether one of its factors is zero everywhere."""
        return not all(factor.kept for factor in self.rounding.values())


def together(files: Sequence[OutputSeen]) -> OutputSeen:
    """What was seen of the files of one output."""
    seen = OutputSeen()
    for file in files:
        for factor, rounding in file.rounding.items():
            seen.rounding.setdefault(factor, Rounding()).add(rounding)
    return seen


@dataclass(frozen=True)
class ExecutionResult:
    """What was seen while a plan ran.

    Attributes:
        outputs: of each output, in the plan's order.
        numbers: what programs told, by where they told it.
        failed: the first output in the plan's order with something wrong; then nothing else of
            this counts.
    """

    outputs: Sequence[OutputSeen] = ()
    numbers: Mapping[NumberSink, Array] = field(default_factory=dict)
    failed: OutputFailed | None = None
