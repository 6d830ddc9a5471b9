"""Where the grammar and the standard library are, in a checkout and in an installed wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def resource(folder: str) -> Path:
    """The directory `grammar` or `stdlib`: inside the package when installed from a wheel, else
    beside it, as in a checkout or an editable install."""
    package = Path(__file__).parent
    inside = package / "_data" / folder
    return inside if inside.is_dir() else package.parent / folder
