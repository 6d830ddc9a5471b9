"""What a recipe names, by what cards, locks and provenance call it: seen from its folder."""

from __future__ import annotations

import os
from pathlib import Path

from pemlang.check.checked import Checked
from pemlang.check.published import PublishedRecipe
from pemlang.resources import resource
from pemlang.syntax.files import decoded
from pemlang.tensorfiles.digests import text_digest


def imports_of(checked: Checked) -> dict[str, str]:
    """The files that a recipe imports, seen from its folder, with the digests of their text."""
    digests = {}
    for path, tree in checked.files.trees.items():
        if path != checked.path:
            name = import_name(checked, path)
            digests[name] = text_digest(tree.span.source.text)
    return dict(sorted(digests.items()))


def import_name(checked: Checked, path: Path) -> str:
    """What an imported file of a recipe is called: a published one by its name, any other by its
    path as seen from the recipe's folder."""
    if path in checked.files.published:
        return checked.files.published[path].name
    if path.parent == resource("stdlib"):
        return f"std.{path.stem}"
    return Path(os.path.relpath(path, checked.source.directory)).as_posix()


def published_digest(recipe: PublishedRecipe) -> str:
    """The digest of its text, as `imports_of` has it; raises as decoded."""
    return text_digest(decoded(recipe.data, recipe.name, recipe.path.parent).text)
