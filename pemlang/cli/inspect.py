"""`pem inspect`: what is in an adapter, a model or a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pemlang.cli.common import GivenPath, format_option, say
from pemlang.diagnostics import Diagnostic, Fault
from pemlang.inputs.hub import SCHEME

if TYPE_CHECKING:
    from pemlang.compare.contents import Contents
    from pemlang.compare.summary import AdapterSummary


@click.command()
@click.argument("place", metavar="DIR", type=GivenPath())
@format_option("text", "json")
def inspect(place: str, form: str) -> int:
    """Show what is in an adapter, or in anything else.

    In a directory or on the hub (hf://org/name@revision): its method, base, sites by pattern, rank
    and scale, and how much it changes in each layer. An adapter of a kind that cannot be computed
    with, a model and a single file are shown by what their configs and headers say; of a model on
    the hub no more is fetched. Of the study of a tuning: how it was tuned, and the best trials.
    """
    from pemlang.show.inspect import as_json, as_text

    try:
        seen, warnings = _seen(place)
    except Fault as fault:
        return say([fault.at(None)], form)
    if form == "json":
        return say(warnings, form, as_json(seen))
    click.echo(as_text(seen))
    return say(warnings, form)


def _seen(place: str) -> tuple[AdapterSummary | Contents, list[Diagnostic]]:
    """What is at a place; and, of an adapter or a model that cannot be computed with, why not."""
    from pemlang.compare.contents import contents, model_contents
    from pemlang.compare.summary import summarise
    from pemlang.formats import FORMATS
    from pemlang.formats.transformers import StoredModel
    from pemlang.inputs.resolver import read_stored

    try:
        stored = read_stored(place, tensors=False)
        if isinstance(stored, StoredModel):
            return model_contents(stored), []
        stored = read_stored(place)
    except Fault as fault:
        other = None if place.startswith(SCHEME) else contents(Path(place))
        if other is None:
            raise
        of_a_kind = any(record.detect(Path(place)).fits for record in FORMATS.values())
        return other, [fault.at(None, "warning")] if of_a_kind else []
    return summarise(stored), []
