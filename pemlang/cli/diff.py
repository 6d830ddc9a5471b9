"""`pem diff`: what changed, in the algebra or in the weights."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pemlang.cli.common import RECIPE_IS_WRONG, USAGE_IS_WRONG, Bar, coloured, say, set_option
from pemlang.diagnostics import PemError, placed, visible
from pemlang.disk import is_dir
from pemlang.inputs.hub import SCHEME
from pemlang.tensorfiles.container import SUFFIXES


@click.command()
@click.argument("old")
@click.argument("new")
@set_option
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit with 1 if anything changed, and with 2 if they cannot be compared.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown", "html"]),
    default="text",
    help="Show it as text, or as what is named; html is a part of a page.",
)
def diff(old: str, new: str, settings: dict[str, str], exit_code: bool, form: str) -> int:
    """Show what changed between two recipes, adapters or models.

    A recipe is a file, or a file in git as main:recipes/merge.pem. What changed is told in the
    algebra: a refactoring that means the same is no change. Adapters and models that are not there
    are taken from pem.lock. An adapter or a model is a directory, one file, or on the hub: how far
    its weights moved, and where.
    """
    weights = [_has_weights(place) for place in (old, new)]
    if weights[0] != weights[1]:
        other = (old, new)[weights[0]]
        if ":" not in other and not os.path.lexists(other):
            raise click.UsageError(f"{visible(other)} is not there.")
        raise click.UsageError("Compare two recipes, adapters or models, not one with the other.")
    try:
        with placed(None):
            same = _weights(old, new, form) if weights[0] else _recipes(old, new, settings, form)
    except PemError as error:
        code = say(error.diagnostics, "json" if form == "json" else "text")
        return USAGE_IS_WRONG if exit_code else code
    return RECIPE_IS_WRONG if exit_code and not same else 0


def _has_weights(place: str) -> bool:
    return place.startswith(SCHEME) or is_dir(Path(place)) or place.endswith(SUFFIXES)


def _weights(old: str, new: str, form: str) -> bool:
    """Show how two adapters or two models differ; whether they are the same."""
    from pemlang.compare.weights import compare
    from pemlang.show.changes import as_json, shown
    from pemlang.show.weights_diff import as_html, as_markdown, as_text

    bar = Bar()
    try:
        comparison = compare(old, new, bar)
    finally:
        bar.clear()
    if form == "json":
        say([], form, as_json(comparison))
    elif form == "text":
        click.echo(as_text(shown(comparison), coloured(sys.stdout)))
    else:
        click.echo((as_markdown if form == "markdown" else as_html)(shown(comparison)))
    return comparison.same


def _recipes(old: str, new: str, settings: dict[str, str], form: str) -> bool:
    """Show how two recipes differ; whether they mean the same."""
    from pemlang.compare.sides import compared
    from pemlang.show import recipe_diff

    comparison = compared(old, new, settings)
    if form == "json":
        say([], form, recipe_diff.as_json(comparison))
    elif form == "text":
        click.echo(recipe_diff.as_text(comparison, coloured(sys.stdout)))
    else:
        written = recipe_diff.as_markdown if form == "markdown" else recipe_diff.as_html
        click.echo(written(comparison))
    return comparison.same
