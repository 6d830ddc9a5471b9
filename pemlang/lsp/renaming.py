"""Where a name is used, in all recipes of a folder, and other names for it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from pemlang.check.files import RecipeFiles, load_files
from pemlang.check.scope import PRIVATE
from pemlang.diagnostics import Fault, Report, visible
from pemlang.lsp.analysis import Analysis
from pemlang.lsp.names import BoundName, names_of
from pemlang.lsp.open_files import OpenFiles
from pemlang.ops import FUNCTIONS
from pemlang.resources import resource
from pemlang.source import Source, Span
from pemlang.syntax import tree as t
from pemlang.syntax.files import SUFFIX
from pemlang.syntax.parser import parse
from pemlang.syntax.written import is_name

MOST_RECIPES = 500
"""Recipes of a folder that are looked into."""

SKIPPED = ("node_modules", "__pycache__")


class UsesOfName:
    """The places of one name.

    Attributes:
        places: by file, where it stands.
        files: the trees of those files.
        whole: whether all recipes of the folders were looked into.
    """

    def __init__(self, bound: BoundName) -> None:
        self.bound = bound
        self.places: dict[Path, dict[int, Span]] = {}
        self.files: dict[Path, t.RecipeFile] = {}
        self.whole = True

    def add(self, files: RecipeFiles) -> None:
        """Look through a recipe and what it imports."""
        for path, names in names_of(files).items():
            for x in names.occurrences:
                if x.bound.place == self.bound.place:
                    self.places.setdefault(path, {})[x.span.start] = x.span
                    self.files[path] = files.trees[path]

    def __iter__(self) -> Iterator[tuple[Path, Span]]:
        for path, spans in sorted(self.places.items()):
            for start in sorted(spans):
                yield path, spans[start]


def uses_of(
    bound: BoundName,
    analyses: Iterable[Analysis],
    files: OpenFiles,
    folders: Iterable[Path],
    most: int = MOST_RECIPES,
) -> UsesOfName:
    """Where a name stands, in open recipes and in those of some folders.

    Args:
        bound: what it is bound to.
        analyses: the open recipes.
        files: their texts.
        folders: where other recipes may import it.
        most: recipes of the folders that are looked into.
    """
    uses = UsesOfName(bound)
    seen: set[Path] = set()
    for analysis in analyses:
        if analysis.checked is not None:
            seen |= analysis.files
            uses.add(analysis.checked.files)
    if bound.role in ("value", "function", "parameter"):
        for number, path in enumerate(islice(recipes_below(folders), most + 1)):
            if number == most:
                uses.whole = False
            elif path not in seen:
                loaded = _loaded(path, files)
                if loaded is not None:
                    uses.add(loaded)
    return uses


def recipes_below(folders: Iterable[Path]) -> Iterator[Path]:
    """The recipes in some folders, without those in hidden ones."""
    for folder in folders:
        for parent, below, names in os.walk(folder):
            below[:] = [x for x in sorted(below) if not x.startswith(".") and x not in SKIPPED]
            yield from (Path(parent, x) for x in sorted(names) if x.endswith(SUFFIX))


def _loaded(path: Path, files: OpenFiles) -> RecipeFiles | None:
    """A recipe and its imports, parsed; None for what is none."""
    try:
        source: Source = files.recipe(path, path.name)
    except Fault:
        return None
    return load_files(path, source, Report(), files)


def hold_renamable(bound: BoundName, folders: Iterable[Path], files: OpenFiles) -> None:
    """Raise PEM0386 for a name that is declared outside of the folders that are open."""
    inside = any(bound.path.is_relative_to(folder) for folder in folders)
    if bound.path.is_relative_to(resource("stdlib")) or not (inside or bound.path in files):
        raise Fault(
            "PEM0386",
            f"`{visible(bound.name)}` is declared in {visible(bound.path.name)}, outside of the "
            "folder that is open",
            "give it another name in your own file: let name = …, or import it under a module's "
            "name",
        )


def hold_free(new: str, uses: UsesOfName) -> None:
    """Raise PEM0386 unless a name may take the place of another wherever that stands."""
    if not is_name(new) or new in FUNCTIONS or new in t.FORMS:
        raise Fault(
            "PEM0386",
            f"nothing of a recipe can be called `{visible(new, 60)}`",
            "choose a word of letters, digits and _ that is no word of the language",
        )
    if not uses.whole:
        raise Fault(
            "PEM0386",
            f"the folder that is open has more than {MOST_RECIPES} recipes, and not all were "
            "looked into",
            "open the folder of the recipes alone",
        )
    if new.startswith(PRIVATE) and len(uses.places) > 1:
        raise Fault(
            "PEM0386",
            f"`{visible(uses.bound.name)}` is used in {len(uses.places)} files, and what begins "
            f"with `{PRIVATE}` is private to one",
            f"choose a name that does not begin with `{PRIVATE}`",
        )
    for path, file in uses.files.items():
        report = Report()
        parse(file.span.source, report)
        if report.has_errors:
            raise Fault(
                "PEM0386",
                f"a statement of {visible(path.name)} does not parse, and may use the name",
                "mend it first",
            )
        if new in _words(file):
            raise Fault(
                "PEM0386",
                f"`{visible(new)}` is a name in {visible(path.name)} already",
                "choose another name",
            )


def _words(file: t.RecipeFile) -> set[str]:
    """All names and words of a file."""
    words: set[str] = set()
    pending: list[t.Tree] = [file]
    while pending:
        tree = pending.pop()
        if isinstance(tree, t.Name):
            words |= {tree.name, tree.module or ""}
        elif isinstance(tree, t.NamedArg):
            words.add(tree.name)
        pending += tree.children()
    return words
