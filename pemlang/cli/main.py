"""The entry point of `pem`."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

import pemlang.cli
from pemlang.cli.common import RECIPE_IS_WRONG, USAGE_IS_WRONG, importing, say
from pemlang.cli.ending import around, exit_code_of_signal, interrupted
from pemlang.diagnostics import nearest
from pemlang.disk import is_dir
from pemlang.execute.machine import for_one_command
from pemlang.syntax.files import SUFFIX
from pemlang.version import __version__

# The order in which help lists them.
_FIRST = (
    "init", "new", "convert", "build", "tune", "check", "test", "doc", "fmt", "plan", "lock",
    "diff", "report", "graph", "verify", "explain-output", "sign", "inspect", "clean", "ops",
    "explain", "lsp", "git-setup", "completion",
)  # fmt: skip
_HELPERS = (
    "common", "ending", "entry", "gitignore", "hook", "main", "one_off", "recipes", "values",
)  # fmt: skip
PLUMBING = ("git-diff", "git-tensors")  # what git runs; no help lists them
START = """\
pem composes LoRA and (IA)³ adapters by arithmetic, from recipes checked first.

    pem init DIR DIR       write a recipe, merge.pem, from folders of adapters
    pem check merge.pem    everything that is wrong with a recipe, in well under a second
    pem build merge.pem    write every adapter that it saves
    pem inspect DIR        what is in an adapter

`pem help` lists the commands of every day, and `pem help build` says what one of them takes.
Others are clean, completion, git-setup, lsp and sign."""

_PLANNED = "To see what a build would do, and do none of it: pem plan RECIPE."
_PLACED = (
    "A recipe says where it saves, --to says it for -e; --out DIR has it inside another folder."
)
_OPTIONS = {
    ("build", "--dry-run"): _PLANNED,
    ("build", "-n"): _PLANNED,
    ("build", "-o"): _PLACED,
    ("build", "--output"): _PLACED,
}
"""What other tools call what a command has under another name, and what to write."""

_COMMANDS = {
    "version": "To see the version: pem --version.",
    "merge": "To merge adapters: pem build RECIPE.",
    "run": "To run a recipe: pem build RECIPE.",
    "format": "To lay recipes out: pem fmt RECIPE.",
    "lint": "To check a recipe: pem check RECIPE.",
    "validate": "To check a recipe: pem check RECIPE.",
    "show": "To see what is in an adapter: pem inspect DIR.",
}
"""The same of commands."""

_REGISTERED: dict[str, click.Command] = {}


def register(command: click.Command) -> click.Command:
    """Make a command known that has no file in this folder."""
    assert command.name is not None
    _REGISTERED[command.name] = command
    return command


def command_names() -> list[str]:
    """All commands: each file beside this one is one, but for the helpers. It is imported only
    when it is called: start-up is part of every command."""
    modules = (module.name for module in pkgutil.iter_modules(pemlang.cli.__path__))
    names = (name.replace("_", "-") for name in modules if name not in _HELPERS)
    return list(dict.fromkeys((*_FIRST, *names, *_REGISTERED)))


class Commands(click.Group):
    """The commands by name; for a name it does not know, the nearest one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return command_names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _REGISTERED:
            return _REGISTERED[cmd_name]
        if cmd_name not in command_names():
            return None
        name = cmd_name.replace("-", "_")
        with importing():
            command: click.Command = getattr(importlib.import_module(f"pemlang.cli.{name}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.list_commands(ctx):
            raise click.UsageError(f"There is no command `{args[0]}`.{_meant(args[0])}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        while args[:1] == ["help"]:
            args = [*args[1:2], "--help"]
        return super().parse_args(ctx, args)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Right below the usage: with an empty line between, it does not fit on the screen."""
        with formatter.indentation():
            formatter.write_text(self.help or "")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands alone: with the two options, which every tool has, they fill more than a
        screen."""
        self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Without the empty line before it, which does not fit on the screen."""
        formatter.write_text(self.epilog or "")


def _meant(word: str) -> str:
    """What to write in place of a word that is no command."""
    shown = shlex.quote(word)
    if word.endswith(SUFFIX):
        return f" To check a recipe: pem check {shown}. To build it: pem build {shown}."
    if is_dir(Path(word)):
        return f" To see what is in a folder: pem inspect {shown}."
    if word in _COMMANDS:
        return f" {_COMMANDS[word]}"
    close = nearest(word, (name for name in command_names() if name not in PLUMBING))
    return f" Did you mean `pem {close}`?" if close else ""


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    options_metavar="",
    subcommand_metavar="COMMAND [--help] ...",
    epilog="Exit codes: 0 it worked, 1 a recipe or file is wrong, 2 the command line is.",
)
@click.version_option(__version__, "-V", "-v", "--version", message="pem %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Compose LoRA and (IA)³ adapters by arithmetic, from recipes checked first."""
    if ctx.invoked_subcommand is None:
        click.echo(START)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; mistakes in it never show a traceback.

    Args:
        args: the words after `pem`; the process's own when not given.
    """
    for_one_command()
    try:
        code = _code_of(args)
        sys.stdout.flush()
    except (click.Abort, KeyboardInterrupt):
        click.echo(interrupted(), err=True)
        code = exit_code_of_signal()
    except BrokenPipeError:
        # The reader of our output has gone; leave quietly, with nothing left to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = RECIPE_IS_WRONG
    except Exception as error:
        fault = around(error)
        if fault is None:
            raise
        code = say([fault.at(None)], "text")
    sys.exit(code)


def _code_of(args: Sequence[str] | None) -> int:
    """Run a command, and give its exit code."""
    try:
        return cli(args, prog_name="pem", standalone_mode=False) or 0
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption) and error.ctx is not None:
            hint = _OPTIONS.get((error.ctx.info_name or "", error.option_name), "")
            error = click.UsageError(f"{error.format_message()} {hint}".strip(), error.ctx)
        error.show()
        return USAGE_IS_WRONG
