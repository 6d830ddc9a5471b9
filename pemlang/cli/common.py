"""What the commands share: colours, diagnostics on the terminal, params from the command line."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TextIO

import click

from pemlang.diagnostics import UNSEEN, Diagnostic, render, visible
from pemlang.disk import open_plain, replace_file

Command = Callable[..., Any]

RECIPE_IS_WRONG = 1
USAGE_IS_WRONG = 2
USAGE_CODES = ("PEM0211",)
SHOWN = 100  # messages that anyone reads at once
PATIENCE = 0.5  # seconds before a bar appears


def written_out(place: str) -> str:
    """A path with the home that `~` stands for, where the shell leaves it, as in --out=~/x."""
    return os.path.expanduser(place)  # noqa: PTH111  # Path's raises for a user there is none of


class GivenPath(click.Path):
    """A path on the command line."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        place = written_out(value) if isinstance(value, str) else value
        return super().convert(place, param, ctx)


@contextmanager
def importing() -> Iterator[None]:
    """Hold a signal to end back while modules are imported, in the threads that start meanwhile
    too: one that arrives inside the import of a module can leave its lock held for ever."""
    ends = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def coloured(stream: TextIO) -> bool:
    """Whether a stream wants colour: a terminal, and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def say(diagnostics: Iterable[Diagnostic], form: str, result: object = None) -> int:
    """Show diagnostics, on standard error as text or on standard output as JSON, and give the
    exit code they call for.

    Args:
        diagnostics, form: what to show, and how.
        result: the record whose fields stand beside them in JSON; see show/results.py.
    """
    told = list(diagnostics)
    if form == "json":
        click.echo(json_text({**_fields(result), "messages": told}))
    else:
        for diagnostic in told[:SHOWN]:
            click.echo(render(diagnostic, coloured(sys.stderr)) + "\n", err=True)
        if len(told) > SHOWN:
            click.echo(f"… and {len(told) - SHOWN} more; --format json shows all.", err=True)
    return exit_code(told)


def json_text(value: object) -> str:
    """JSON that is safe to print: characters that are not seen are escaped as it has them."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=_plain)
    if "Infinity" in text or "NaN" in text:  # which JSON has no numbers for
        known = json.loads(text, parse_constant=lambda _: None)
        text = json.dumps(known, ensure_ascii=False, indent=2)
    return "".join(
        json.dumps(char)[1:-1] if unicodedata.category(char) in UNSEEN and char != "\n" else char
        for char in text
    )


def _plain(value: object) -> object:
    """A value of ours as JSON has it."""
    if isinstance(value, Diagnostic):
        return value.as_json()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    return _fields(value)


def _fields(record: object) -> dict[str, object]:
    """The fields of a record; None has none."""
    if record is None:
        return {}
    assert is_dataclass(record), record
    return {field.name: getattr(record, field.name) for field in fields(record)}


def exit_code(diagnostics: Sequence[Diagnostic]) -> int:
    """The exit code that diagnostics call for."""
    if any(d.code in USAGE_CODES for d in diagnostics):
        return USAGE_IS_WRONG
    return RECIPE_IS_WRONG if any(d.severity == "error" for d in diagnostics) else 0


def _settings(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    settings = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"`{value}` is not NAME=VALUE, such as weight=0.4")
        if name.strip() in settings:
            raise click.BadParameter(f"`{name.strip()}` is given twice")
        settings[name.strip()] = text
    return settings


set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_settings,
    help="Give a param of the recipe a value; may be repeated.",
)


def format_option(*forms: str) -> Callable[[Command], Command]:
    """`--format`, and what it takes; the first where it is not given."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(forms),
        default=forms[0],
        help="Show the result as this.",
    )


def recipe_options(*forms: str, several: bool = False) -> Callable[[Command], Command]:
    """The argument and the options of every command that reads a recipe, or several.

    Args:
        forms: what `--format` takes.
    """
    shown = format_option(*forms)
    single = click.argument("recipe", type=GivenPath())
    many = click.argument("recipes", type=GivenPath(), nargs=-1, required=True)

    def decorate(command: Command) -> Command:
        return shown(set_option((many if several else single)(command)))

    return decorate


out_option = click.option(
    "--out",
    type=GivenPath(file_okay=False),
    metavar="DIR",
    help="Write the outputs inside this folder instead of the recipe's own.",
)


def locked_option(help: str) -> Callable[[Command], Command]:
    """`--locked`, and what it does for a command."""
    return click.option("--locked", is_flag=True, help=help)


class Bar:
    """A progress bar on a terminal, once a command has taken long enough to want one."""

    def __init__(self) -> None:
        self._start = self._began = time.monotonic()
        self._what = ""
        self._last = 0.0
        self._shown = False

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._began = what, now
        if not sys.stderr.isatty() or now - self._start < PATIENCE or now - self._last < 0.1:
            return
        self._last, self._shown = now, True
        filled = 24 * done // max(1, total)
        bar = "█" * filled + "░" * (24 - filled)
        share = 100 * done // max(1, total)
        left = time_left(now - self._began, done, total)
        click.echo(f"\r\x1b[K{bar} {share:3}%  {what[-40:]}{left}", nl=False, err=True)

    def clear(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)


def time_left(taken: float, done: int, total: int) -> str:
    """How long the rest takes at the pace so far, in words; nothing where that says little."""
    if taken < 2 * PATIENCE or not 0 < done < total:
        return ""
    seconds = round(taken / done * (total - done))
    hours, minutes = divmod(round(seconds / 60), 60)
    if seconds < 100:
        return f", {seconds} s left"
    return f", {hours} h {minutes} min left" if hours else f", {minutes} min left"


def refuse_to_replace(path: Path, start: str) -> None:
    """Leave alone a file that does not start as one of ours does; raises click.UsageError, also
    where there is no folder for it."""
    if not path.exists():
        if not path.parent.is_dir():
            raise click.UsageError(
                f"{visible(path)} cannot be written: there is no folder {visible(path.parent)}."
            )
        return
    wanted = start.encode()
    try:
        with open_plain(path) as file:
            ours = file.read(len(wanted)) == wanted
    except OSError:
        ours = False
    if not ours:
        raise click.UsageError(
            f"{visible(path)} is there and was not written by this command: remove it, or choose "
            "another file."
        )


def write_whole(path: Path, text: str, start: int) -> None:
    """Write a text file, whole or not at all, in the place of nothing but an earlier one of its
    kind: one that starts as it does.

    Args:
        path, text: the file.
        start: how many characters tell its kind.

    Raises:
        click.UsageError: something else is there, or it cannot be written; what was there is as
            it was.
    """
    refuse_to_replace(path, text[:start])
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise click.UsageError(
            f"{visible(path)} cannot be written: {error.strerror or error}."
        ) from None
