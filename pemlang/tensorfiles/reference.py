"""References to tensors: where they lie, without a byte of them."""

from __future__ import annotations

from pathlib import Path

from pemlang.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor of a file.

    Attributes:
        file: that holds it.
        start: its first byte there.
        key: its name there.
    """

    file: Path
    start: int
    key: str
