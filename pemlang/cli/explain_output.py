"""`pem explain-output`: where an output came from."""

from __future__ import annotations

from pathlib import Path

import click

from pemlang.cli.common import GivenPath, format_option, say
from pemlang.diagnostics import Fault


@click.command("explain-output")
@click.argument("directory", type=GivenPath())
@format_option("text", "json")
def explain_output(directory: str, form: str) -> int:
    """Tell where an output came from.

    Its recipe, its inputs and its meaning, by what the output says of itself; `pem verify` holds
    it to that.
    """
    from pemlang.artifact.provenance import read_provenance
    from pemlang.show.origin import as_json, as_text

    try:
        provenance = read_provenance(Path(directory))
    except Fault as fault:
        return say([fault.at(None)], form)
    if form == "json":
        return say([], form, as_json(provenance))
    click.echo(as_text(provenance))
    return 0
