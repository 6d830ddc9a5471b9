"""An expression on the command line, as the recipe it stands for."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from pemlang.cli.common import written_out
from pemlang.diagnostics import Diagnostic, placed, visible

_DECLARED = re.compile(r"(?:adapter|model) (\w+) = ")
_PATH = re.compile(r'"([^"]+)"$')
_OF_RECIPES = re.compile(r"\bwith \w+=|\bbase \w+ = |\bimport ")
"""Help that is for a recipe alone."""

_BEYOND = {
    "to": "give the expression alone: --to says where it is saved",
    "with": "give the expression alone: a rank is said in it, compress(…, rank=8); other options "
    "need a recipe",
}
"""What to do about words that follow the expression of a `save`."""


def one_off(
    expression: str, words: Sequence[str], to: str, out: str | None
) -> tuple[str, str | None]:
    """The text of a recipe, and the folder to build it in; None where that is this one.

    Args:
        expression: what to save.
        words: the adapters and models in it, as NAME=DIR.
        to, out: where to save it: a path, inside a folder.

    Raises:
        click.UsageError: a word is no adapter.
        PemError: the expression does not parse, or a place cannot be written down.
    """
    from pemlang.formats.record import formats_of
    from pemlang.syntax.written import is_name, one_off_text

    if not expression.strip() or not to:
        raise click.UsageError("-e says what to build, and --to where to save it: one is empty.")
    inputs: dict[str, tuple[str, str]] = {}
    for word in words:
        name, _, place = word.partition("=")
        if not is_name(name) or not place:
            raise click.UsageError(f"`{visible(word)}` is not NAME=DIR, such as a=adapters/chat.")
        if name in inputs:
            raise click.UsageError(f"`{name}` is given twice.")
        place = written_out(place)
        detected = {
            holds: any(record.detect(Path(place)).fits for record in formats_of(holds))
            for holds in ("adapter", "model")
        }
        is_model = detected["model"] and not detected["adapter"]
        inputs[name] = ("model" if is_model else "adapter", place)
    path, folder = _inside(Path(os.path.normpath(Path.cwd() / (out or "") / to)))
    with placed(None):
        return one_off_text(expression, inputs, path), folder


def whole(written: str, out: str | None) -> str:
    """The recipe of an expression as it is shown: a recipe saves inside a folder, and where that
    is not this one it says how to build it there."""
    return written if out is None else f"{written}# pem build RECIPE --out {visible(out, 4096)}\n"


def as_words(told: Diagnostic, written: str) -> Diagnostic:
    """What is said of the recipe of an expression, with help for the command line: a path as the
    word that gives it, and where only a recipe can say what to say, the recipe to say it in."""
    if told.span is None or told.help is None:
        return told
    if told.code == "PEM0108" and told.span.text in _BEYOND:
        return replace(told, help=_BEYOND[told.span.text])
    if _OF_RECIPES.search(told.help) is None:
        declared = _DECLARED.match(
            told.span.source.line(told.span.source.position(told.span.start)[0])
        )
        if declared is not None:
            word = _PATH.sub(lambda path: f"{declared[1]}={shlex.quote(path[1])}", told.help)
            return replace(told, help=word)
        return told
    note = "-e has no place for it: write this recipe to a file, say it there, and build the file"
    return replace(told, notes=(*told.notes, f"{note}\n{written.rstrip()}"))


def _inside(place: Path) -> tuple[str, str | None]:
    """A place as a path inside a folder, this one if it can be."""
    here = Path.cwd()
    if here.is_relative_to(place):
        raise click.UsageError(f"{visible(place)} is the folder you are in, or around it.")
    if place.is_relative_to(here):
        return place.relative_to(here).as_posix(), None
    return place.name, str(place.parent)
