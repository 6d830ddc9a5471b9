"""JSON that someone has changed, at any place of it."""

from __future__ import annotations

import json
from typing import Any

Place = tuple[Any, ...]
"""The keys that lead to a value."""


def places(value: Any, at: Place = ()) -> list[Place]:
    """Every place in a JSON value."""
    inside = dict(enumerate(value)) if isinstance(value, list) else value
    every = [at] if at else []
    for key, inner in inside.items() if isinstance(inside, dict) else ():
        every += places(inner, (*at, key))
    return every


def changed(value: Any, place: Place, junk: Any) -> Any:
    """A copy of a JSON value with something else at a place."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = junk
    return copy
