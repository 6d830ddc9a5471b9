"""What checks of recipes found, with a file, lines and columns for each: a service that shows
messages beside a change has no other place for them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic
from pemlang.disk import is_file


@dataclass(frozen=True)
class Place:
    """A half-open range of a file, lines and columns counted from 1, columns in code points.

    `file` is relative to the current directory where it lies within, and uses `/`.
    """

    file: str
    start: tuple[int, int]
    end: tuple[int, int]


@dataclass(frozen=True)
class Finding:
    """A diagnostic, and the recipe whose check found it."""

    recipe: str
    diagnostic: Diagnostic

    @property
    def place(self) -> Place:
        """Where it is; the first line of the recipe where it has no place in a file there is,
        as of an adapter, or in the library."""
        span = self.diagnostic.span
        name = self.recipe if span is None else span.source.name
        # What is on standard input may be called as no file there is.
        if span is None or not (name == self.recipe or is_file(Path(name))):
            return Place(_relative(self.recipe), (1, 1), (1, 1))
        start, end = (span.source.position(offset) for offset in (span.start, span.end))
        return Place(_relative(name), start, end)


@dataclass(frozen=True)
class CheckJson:
    """`pem check`: the files that were checked."""

    recipes: Sequence[str]


@dataclass(frozen=True)
class FmtJson:
    """`pem fmt`: how many recipes were looked at, and those that were rewritten; or, with --check,
    that would be."""

    recipes: int
    changed: Sequence[str]
    written: bool


def once(findings: Iterable[Finding]) -> list[Finding]:
    """Findings without those that an import has brought before, through another recipe."""
    kept: dict[tuple[object, ...], Finding] = {}
    for finding in findings:
        diagnostic = finding.diagnostic
        span = diagnostic.span
        place = (finding.recipe,) if span is None else (span.source.name, span.start, span.end)
        kept.setdefault((diagnostic.code, diagnostic.message, *place), finding)
    return list(kept.values())


def _relative(name: str) -> str:
    path = Path(os.path.normpath(name))
    here = Path.cwd()
    if path.is_absolute() and path.is_relative_to(here):
        path = path.relative_to(here)
    return path.as_posix()
