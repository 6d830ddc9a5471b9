"""`pem sign`: sign an output."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pemlang.cli.common import GivenPath, format_option, say
from pemlang.diagnostics import PemError, placed, visible


@click.command(hidden=True)
@click.argument("directory", type=GivenPath())
@click.option(
    "--key",
    type=GivenPath(dir_okay=False, exists=True),
    metavar="FILE",
    help="An elliptic-curve private key in PEM form.",
)
@format_option("text", "json")
def sign(directory: str, key: str | None, form: str) -> int:
    """Sign an output with a private key.

    Writes model.sig over all of its files, in the format of the OpenSSF's model-signing, if they
    are what was built.
    `pem verify DIR --key PUBLIC` holds it to the public key.
    """
    from pemlang.artifact.sign import MAKES_A_KEY
    from pemlang.artifact.sign import sign as signed
    from pemlang.artifact.verify import verify
    from pemlang.show.written import SignJson

    if key is None:
        raise click.UsageError(f"Give a private key: --key FILE. One is made by: {MAKES_A_KEY}")
    try:
        with placed(None):
            verified = verify(Path(directory))
            if not all(verdict.holds for verdict in verified.outputs):
                raise click.ClickException(
                    f"{visible(directory)} is not what was built: `pem verify` says what differs."
                )
            path = signed(Path(directory), Path(key))
    except PemError as error:
        return say(error.diagnostics, form)
    written = os.path.relpath(path)
    if form == "text":
        click.echo(visible(written, 4096))
    return say([], form, SignJson(written))
