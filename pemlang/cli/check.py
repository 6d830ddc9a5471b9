"""`pem check`: everything that is wrong with a recipe, from file headers alone."""

from __future__ import annotations

import sys

import click

from pemlang.cli.common import locked_option, recipe_options, say
from pemlang.diagnostics import PemError


@click.command()
@locked_option("Go by the signatures in pem.lock: the adapters themselves need not be there.")
@recipe_options
def check(recipe: str, settings: dict[str, str], form: str, locked: bool) -> int:
    """Check a recipe without reading a tensor.

    Reads the adapters' configs and file headers, and reports everything that is wrong, with the
    place and what to write instead.
    """
    from pemlang.api import load

    try:
        found = load(recipe, settings).check(locked)
    except PemError as error:
        found = error.diagnostics
    code = say(found, form)
    if code == 0 and form == "text" and sys.stderr.isatty():
        click.echo(f"{recipe} is right.", err=True)
    return code
