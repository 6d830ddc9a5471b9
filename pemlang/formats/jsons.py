"""JSON that anyone may have written."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 64  # far from where a program that walks it runs out of stack


def parse_json(data: bytes | str) -> Any:
    """The value in a text; raises ValueError for what is no JSON or nested too deeply."""
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [found]
    for _ in range(MAX_DEPTH):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return found
    raise ValueError("it is nested too deeply")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
