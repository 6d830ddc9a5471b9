"""`pem clean`: remove what killed commands left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from pemlang.cli.common import GivenPath, format_option, say
from pemlang.diagnostics import PemError, placed, visible


@click.command(hidden=True)
@click.argument("folder", type=GivenPath(exists=True, file_okay=False), default=".")
@format_option("text", "json")
def clean(folder: str, form: str) -> int:
    """Remove what killed builds left behind.

    It looks in a folder, this one unless another is given, and in those inside it. A build works in
    a hidden folder beside each output, and removes it however it ends, unless it is killed
    outright, or has finished files in it for `pem build --resume`; the next build of that output
    does it then, or this. What a build is at work on stays.
    """
    from pemlang.artifact.staging import clean as cleaned
    from pemlang.disk import temporaries
    from pemlang.show.written import CleanJson, RemovedJson

    removed: list[RemovedJson] = []
    try:
        with placed(None):
            for path, size in cleaned(Path(folder)):
                removed.append(RemovedJson(os.path.relpath(path), size))
                if form == "text":
                    click.echo(f"removed {visible(removed[-1].path)} ({size / 1e6:.4g} MB)")
            for left in temporaries():
                shutil.rmtree(left, ignore_errors=True)
                removed.append(RemovedJson(str(left), None))
                if form == "text":
                    click.echo(f"removed {visible(left)}")
    except PemError as error:
        return say(error.diagnostics, form, CleanJson(removed))
    if form == "text":
        freed = sum(file.size or 0 for file in removed)
        click.echo(f"{freed / 1e6:.4g} MB freed" if freed else "nothing was left")
    return say([], form, CleanJson(removed))
