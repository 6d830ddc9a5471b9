"""The entry point of `pem`."""

from __future__ import annotations

import os
import sys

import click

from pemlang.cli.build import build
from pemlang.cli.check import check
from pemlang.cli.common import INTERRUPTED, USAGE_IS_WRONG, SuggestingGroup
from pemlang.cli.explain import explain
from pemlang.cli.inspect import inspect
from pemlang.version import __version__


@click.group(
    cls=SuggestingGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 it worked, 1 the recipe or a file is wrong, 2 the command line is.",
)
@click.version_option(__version__, message="pem %(version)s")
def cli() -> None:
    """Compose LoRA and (IA)³ adapters by arithmetic, from recipes that are checked before they
    are built."""


for command in (build, check, inspect, explain):
    cli.add_command(command)


def main() -> None:
    """Run the command line; mistakes in it never show a traceback."""
    try:
        code = cli(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        code = USAGE_IS_WRONG
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted; what was not finished was not written.", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; leave quietly, with nothing left to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code or 0)
