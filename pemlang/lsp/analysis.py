"""All that is known of an open recipe: its check, the values in it, and what its names mean."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from pemlang.check.check import check
from pemlang.check.checked import Checked
from pemlang.check.values import RecipeValue
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, Fault, Report
from pemlang.graph.formula import Formula
from pemlang.lsp.names import FileNames, names_of
from pemlang.lsp.resolver import EditorResolver
from pemlang.pipeline.refusals import with_refusals
from pemlang.source import Source
from pemlang.syntax import tree as t


class Superseded(Exception):
    """The text that was looked at is no longer the one in the editor."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """A recipe as it stood in the editor.

    Attributes:
        path, source: the recipe; no text where it is none.
        checked: what its check left.
        values: the values of the expressions outside functions.
        diagnostics: what is wrong with it, with its tests too.
    """

    path: Path
    source: Source | None
    checked: Checked | None
    values: Mapping[t.Tree, RecipeValue]
    diagnostics: tuple[Diagnostic, ...]

    @cached_property
    def names(self) -> Mapping[Path, FileNames]:
        """What the names mean in it, and in what it imports."""
        return {} if self.checked is None else names_of(self.checked.files)

    @cached_property
    def formula(self) -> Formula:
        """What writes its normal forms."""
        assert self.checked is not None
        return Formula(self.checked.leaf_name)

    @property
    def tree(self) -> t.RecipeFile | None:
        """It, parsed."""
        return None if self.checked is None else self.checked.files.trees[self.path]

    @property
    def files(self) -> frozenset[Path]:
        """It, and what it imports."""
        return frozenset([self.path, *(self.checked.files.trees if self.checked else ())])

    def told(self, opened: frozenset[Path]) -> dict[Path, list[Diagnostic]]:
        """What is to be shown by file: its own, and that of its imports that are not open."""
        sources = {} if self.checked is None else self.checked.files.trees
        paths = {id(tree.span.source): path for path, tree in sources.items()}
        by_file: dict[Path, list[Diagnostic]] = {self.path: []}
        for diagnostic in self.diagnostics:
            source = diagnostic.span.source if diagnostic.span is not None else None
            path = paths.get(id(source), self.path)
            if path == self.path or path not in opened:
                by_file.setdefault(path, []).append(diagnostic)
        return by_file


def analysed(
    path: Path, resolver: EditorResolver, replaced: threading.Event | None = None
) -> Analysis:
    """A recipe, checked with its tests.

    Args:
        path: the recipe, open or in a file.
        resolver: reaches it, and all that it names.
        replaced: set once its text is another.

    Raises:
        Superseded: it is.
    """
    values: dict[t.Tree, RecipeValue] = {}

    def follow(tree: t.Tree, value: RecipeValue) -> None:
        if replaced is not None and replaced.is_set():
            raise Superseded
        values[tree] = value

    resolver.refresh()
    try:
        source = resolver.recipe(path, path.name)
    except Fault as fault:
        return Analysis(path, None, None, {}, (fault.at(None),))
    checked = with_refusals(check(path, source, resolver, testing=True, follow=follow))
    report = Report()
    tests = (told for test in checked.tests for told in test.diagnostics)
    for diagnostic in (*checked.diagnostics, *tests):
        report.add(diagnostic)
    return Analysis(path, source, checked, values, tuple(report))
