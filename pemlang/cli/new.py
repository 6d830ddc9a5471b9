"""`pem new`: a library or a recipe to begin with."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import click

from pemlang.diagnostics import visible
from pemlang.disk import beside

_NAME = re.compile("[a-z]([a-z0-9_]*[a-z0-9])?")  # of a distribution too
_TAKEN = ("std", "pem", "pemlang")  # what imports, files and the tool itself are called


@click.command()
@click.argument("kind", type=click.Choice(["library", "recipe"]))
@click.argument("name")
def new(kind: str, name: str) -> int:
    """Begin a library or a recipe.

    It writes a folder of that name: a recipe that has a test, a README, hooks for pre-commit, a
    workflow for GitHub and a .gitignore; for a library a pyproject.toml too, which makes it a
    Python distribution that pip installs and recipes import. What is there is left alone.
    """
    from pemlang.show.starts import start
    from pemlang.syntax.tree import KEYWORDS

    if not _NAME.fullmatch(name) or name in _TAKEN or name in KEYWORDS:
        raise click.UsageError(
            f"A {kind} cannot be called {visible(repr(name), 80)}: choose a word of small letters, "
            "digits and, between them, _ that has no other meaning in a recipe."
        )
    if os.path.lexists(name):
        raise click.UsageError(f"{name} is there already: choose another name.")
    files = start(kind, name)
    try:
        _write(Path(name), files)
    except OSError as error:
        raise click.UsageError(f"{name} cannot be written: {error.strerror or error}.") from None
    for file in sorted(files):
        click.echo(f"{name}/{file}")
    return 0


def _write(folder: Path, files: dict[str, str]) -> None:
    """Write a folder of files, whole or not at all; raises OSError."""
    unfinished = beside(folder)
    try:
        for name, text in files.items():
            place = unfinished / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
