"""A command: `pem sites ADAPTER` lists what an adapter changes."""

from __future__ import annotations

from pathlib import Path

import click

from pemlang.cli.main import register
from pemlang.formats import read_adapter


@click.command()
@click.argument("adapter", type=click.Path())
def sites(adapter: str) -> int:
    """List what an adapter changes."""
    for site, shape in read_adapter(Path(adapter)).layout.shapes.items():
        click.echo(f"{site}: {shape.kind}, {shape}")
    return 0


register(sites)
