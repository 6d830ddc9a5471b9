"""`pem explain-output`: where an output came from."""

from __future__ import annotations

from pathlib import Path

import click

from pemlang.cli.common import say
from pemlang.diagnostics import Fault


@click.command("explain-output")
@click.argument("directory", type=click.Path())
def explain_output(directory: str) -> int:
    """Tell where an output came from.

    Its recipe, its inputs and its meaning, by what the output says of itself; `pem verify` holds
    it to that.
    """
    from pemlang.artifact.provenance import read_provenance
    from pemlang.show.origin import as_text

    try:
        click.echo(as_text(read_provenance(Path(directory))))
    except Fault as fault:
        return say([fault.at(None)], "text")
    return 0
