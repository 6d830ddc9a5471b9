"""`pem git-tensors`: a .safetensors file as text, for git to compare."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("git-tensors", hidden=True)
@click.argument("file", type=click.Path(path_type=Path))
def git_tensors(file: Path) -> int:
    """Show the tensors of one file as lines that compare well.

    Git runs it, as `pem git-setup` sets it up. The metadata comes first; then the tensors that
    differ in a layer alone together, with dtype and shape, and the norm and mean of each. A Git
    LFS pointer and a damaged file are shown as what they are.
    """
    from pemlang.compare.tensors import lines

    for line in lines(file):
        click.echo(line)
    return 0
