"""Names, kinds and types: tree to typed graph."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    check="PASSES CheckState",
    checked="Checked",
    published="PublishedRecipe",
    statements="FileElaborator",
    values="Sample",
)
