"""JSON that anyone may have written."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 64  # far from where a program that walks it runs out of stack
MAX_VALUES = 1 << 22  # each takes some hundred bytes of memory, of two in the file


def parse_json(data: bytes, halves: bool = False) -> Any:
    """The value in a text; raises ValueError for what is no JSON, is nested too deeply, holds too
    many values, or, unless halves says so, half a character, which JSON can say and no file can
    hold."""
    try:
        value = load_json(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        if not halves:
            "".join(text for text in level if isinstance(text, str)).encode()
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def load_json(data: bytes) -> object:
    """The value in a text; raises ValueError for what is no JSON or holds too many values, and
    RecursionError for what is nested too deeply."""
    if holds_too_much(data):
        raise ValueError("it holds too many values")
    return json.loads(data)


def holds_too_much(data: bytes) -> bool:
    """Whether a text may hold more values than are read."""
    return sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []
