"""`pem plan`: what a build would do."""

from __future__ import annotations

import click

from pemlang.cli.common import locked_option, out_option, recipe_options, say
from pemlang.diagnostics import PemError


@click.command()
@out_option
@locked_option("Go by the signatures in pem.lock: the adapters themselves need not be there.")
@recipe_options("text", "json", "markdown")
def plan(recipe: str, settings: dict[str, str], form: str, out: str | None, locked: bool) -> int:
    """Show what a build would do, and do none of it.

    For each output its normal form, type, size and whether it is up to date; for each adapter its
    type and content; and what the build would read, write, compute and need of memory. No weights
    are read, but to know a file by its digest.
    """
    from pemlang.api import load
    from pemlang.show.plan import as_json, as_markdown, as_text

    try:
        forecast = load(recipe, settings).plan(out, locked)
    except PemError as error:
        return say(error.diagnostics, "json" if form == "json" else "text")
    if form == "json":
        return say(forecast.warnings, form, as_json(forecast))
    click.echo((as_text if form == "text" else as_markdown)(forecast))
    return say(forecast.warnings, "text")
