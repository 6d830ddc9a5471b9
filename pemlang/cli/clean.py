"""`pem clean`: remove what killed commands left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from pemlang.cli.common import GivenPath, say
from pemlang.diagnostics import PemError, placed, visible


@click.command()
@click.argument("folder", type=GivenPath(exists=True, file_okay=False), default=".")
def clean(folder: str) -> int:
    """Remove what killed builds left behind.

    It looks in a folder, this one unless another is given, and in those inside it. A build works in
    a hidden folder beside each output, and removes it however it ends, unless it is killed
    outright; the next build of that output does it then, or this. What a build is at work on
    stays.
    """
    from pemlang.artifact.staging import clean as cleaned
    from pemlang.disk import temporaries

    freed = 0
    try:
        with placed(None):
            for path, size in cleaned(Path(folder)):
                freed += size
                click.echo(f"removed {visible(os.path.relpath(path))} ({size / 1e6:.4g} MB)")
            for left in temporaries():
                shutil.rmtree(left, ignore_errors=True)
                click.echo(f"removed {visible(left)}")
    except PemError as error:
        return say(error.diagnostics, "text")
    click.echo(f"{freed / 1e6:.4g} MB freed" if freed else "nothing was left")
    return 0
