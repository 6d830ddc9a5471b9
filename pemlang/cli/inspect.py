"""`pem inspect`: what is in an adapter."""

from __future__ import annotations

import click

from pemlang.cli.common import say
from pemlang.diagnostics import Fault


@click.command()
@click.argument("directory", type=click.Path())
def inspect(directory: str) -> int:
    """Show what is in an adapter.

    In a directory or on the hub (hf://org/name@revision): its method, base, sites by pattern, rank
    and scale, and how much it changes in each layer.
    """
    from pemlang.compare.summary import summarise
    from pemlang.show.inspect import as_text

    try:
        click.echo(as_text(summarise(directory)))
    except Fault as fault:
        return say([fault.at(None)], "text")
    return 0
