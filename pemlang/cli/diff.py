"""`pem diff`: what changed, in the algebra or in the weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from pemlang.cli.common import coloured, say, set_option
from pemlang.diagnostics import Fault, PemError
from pemlang.inputs.hub import SCHEME
from pemlang.tensorfiles.disk import is_dir


@click.command()
@click.argument("old")
@click.argument("new")
@set_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown", "html"]),
    default="text",
    help="Show it as text, or as what is named; html is a part of a page.",
)
def diff(old: str, new: str, settings: dict[str, str], form: str) -> int:
    """Show what changed between two recipes, or two adapters.

    A recipe is a file, or a file in git as main:recipes/merge.pem. What changed is told in the
    algebra: a refactoring that means the same is no change. An adapter is a directory, or on the
    hub: how far its weights moved, and where. Adapters that are not there are taken from pem.lock.
    """
    from pemlang.artifact.staging import placed

    adapters = [place.startswith(SCHEME) or is_dir(Path(place)) for place in (old, new)]
    if adapters[0] != adapters[1]:
        raise click.UsageError("Compare two recipes or two adapters, not one with the other.")
    try:
        with placed(None):
            text = _adapters(old, new, form) if adapters[0] else _recipes(old, new, settings, form)
    except PemError as error:
        return say(error.diagnostics, "json" if form == "json" else "text")
    except Fault as fault:
        return say([fault.at(None)], "json" if form == "json" else "text")
    click.echo(text)
    return 0


def _adapters(old: str, new: str, form: str) -> str:
    from pemlang.compare.compare import compare
    from pemlang.show import compare_show

    found = compare(old, new)
    if form == "json":
        return json.dumps(compare_show.as_json(found), ensure_ascii=False, indent=2)
    if form == "text":
        return compare_show.as_text(found, coloured(sys.stdout))
    return (compare_show.as_markdown if form == "markdown" else compare_show.as_html)(found)


def _recipes(old: str, new: str, settings: dict[str, str], form: str) -> str:
    from pemlang.compare.meaning import meaning
    from pemlang.compare.sides import opened
    from pemlang.show import meaning_show

    with opened(old, settings) as one, opened(new, settings) as two:
        notes = list(dict.fromkeys([*one.notes, *two.notes]))
        found = meaning(one.checked, two.checked, (old, new), notes)
        if form == "json":
            return json.dumps(meaning_show.as_json(found), ensure_ascii=False, indent=2)
        if form == "text":
            return meaning_show.as_text(found, coloured(sys.stdout))
        return (meaning_show.as_markdown if form == "markdown" else meaning_show.as_html)(found)
