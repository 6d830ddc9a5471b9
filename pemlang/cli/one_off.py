"""An expression on the command line, as the recipe it stands for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from pemlang.cli.common import written_out
from pemlang.diagnostics import placed, visible


def one_off(
    expression: str, words: Sequence[str], to: str, out: str | None
) -> tuple[str, str | None]:
    """The text of a recipe, and the folder to build it in; None where that is this one.

    Args:
        expression: what to save.
        words: the adapters in it, as NAME=DIR.
        to, out: where to save it: a path, inside a folder.

    Raises:
        click.UsageError: a word is no adapter.
        PemError: the expression does not parse, or a place cannot be written down.
    """
    from pemlang.syntax.written import is_name, one_off_text

    if not expression.strip() or not to:
        raise click.UsageError("-e says what to build, and --to where to save it: one is empty.")
    adapters: dict[str, str] = {}
    for word in words:
        name, _, place = word.partition("=")
        if not is_name(name) or not place:
            raise click.UsageError(f"`{visible(word)}` is not NAME=DIR, such as a=adapters/chat.")
        if name in adapters:
            raise click.UsageError(f"`{name}` is given twice.")
        adapters[name] = written_out(place)
    path, folder = _inside(Path(os.path.normpath(Path.cwd() / (out or "") / to)))
    with placed(None):
        return one_off_text(expression, adapters, path), folder


def _inside(place: Path) -> tuple[str, str | None]:
    """A place as a path inside a folder, this one if it can be."""
    here = Path.cwd()
    if here.is_relative_to(place):
        raise click.UsageError(f"{visible(place)} is the folder you are in, or around it.")
    if place.is_relative_to(here):
        return place.relative_to(here).as_posix(), None
    return place.name, str(place.parent)
