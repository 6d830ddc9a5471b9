"""Recipes in an editor: the language server."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    server="serve server_in",
    analysis="analysed",
    open_files="OpenFiles",
    resolver="EditorResolver MOST_ASKED_AT_ONCE",
    norms="MOST_BYTES NormMeter",
    renaming="hold_free hold_renamable uses_of",
    cursor="cursor_at",
    places="TextPlaces",
    tokens="TOKEN",
)
