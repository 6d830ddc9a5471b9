"""JSON that anyone may have written."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 64  # far from where a program that walks it runs out of stack


def parse_json(data: bytes | str) -> Any:
    """The value in a text; raises ValueError for what is no JSON, is nested too deeply, or has half
    a character in it, which JSON can say and no file can hold."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        "".join(text for text in level if isinstance(text, str)).encode()
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []
