"""What a recipe names, by what cards, locks and provenance call it: seen from its folder."""

from __future__ import annotations

import os
from pathlib import Path

from pemlang.check.checked import Checked
from pemlang.resources import resource
from pemlang.tensorfiles.digests import text_digest


def imports_of(checked: Checked) -> dict[str, str]:
    """The files that a recipe imports, seen from its folder, with the digests of their text."""
    digests = {}
    for path, tree in checked.files.trees.items():
        if path != checked.path:
            name = import_name(path, checked.source.directory)
            digests[name] = text_digest(tree.span.source.text)
    return dict(sorted(digests.items()))


def import_name(path: Path, directory: Path) -> str:
    """What an imported file is called, seen from a folder."""
    if path.parent == resource("stdlib"):
        return f"std.{path.stem}"
    return Path(os.path.relpath(path, directory)).as_posix()
