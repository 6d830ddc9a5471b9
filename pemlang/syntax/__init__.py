"""Text to tree."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    parser="parse",
    files="decoded read_source",
    format="formatted laid_out same",
    boxes="WIDTH",
)
