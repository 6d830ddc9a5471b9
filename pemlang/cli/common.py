"""What the commands share: colours, diagnostics on the terminal, params from the command line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

import click

from pemlang.diagnostics import Diagnostic, render

RECIPE_IS_WRONG = 1
USAGE_IS_WRONG = 2
INTERRUPTED = 130
USAGE_CODES = ("PEM0211",)
SHOWN = 100  # messages that anyone reads at once


def coloured(stream: TextIO) -> bool:
    """Whether a stream wants colour: a terminal, and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def say(diagnostics: Iterable[Diagnostic], form: str) -> int:
    """Show diagnostics, on standard error as text or on standard output as JSON, and give the
    exit code they call for."""
    found = list(diagnostics)
    if form == "json":
        click.echo(json.dumps([d.as_json() for d in found], ensure_ascii=False, indent=2))
    else:
        for diagnostic in found[:SHOWN]:
            click.echo(render(diagnostic, coloured(sys.stderr)) + "\n", err=True)
        if len(found) > SHOWN:
            click.echo(f"… and {len(found) - SHOWN} more; --format json shows all.", err=True)
    return exit_code(found)


def exit_code(found: Iterable[Diagnostic]) -> int:
    """The exit code that diagnostics call for."""
    found = list(found)
    if any(d.code in USAGE_CODES for d in found):
        return USAGE_IS_WRONG
    return RECIPE_IS_WRONG if any(d.severity == "error" for d in found) else 0


def _settings(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    settings = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"`{value}` is not NAME=VALUE, such as weight=0.4")
        settings[name.strip()] = text
    return settings


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_settings,
    help="Give a param of the recipe a value; may be repeated.",
)
recipe_argument = click.argument("recipe", type=click.Path())
recipes_argument = click.argument("recipes", type=click.Path(), nargs=-1, required=True)


def form_option(
    *more: str, told: str = "Show messages as text, or as JSON on standard output."
) -> Decorator:
    """`--format`: as text, as JSON, and in the other forms that a command knows."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(["text", "json", *more]),
        default="text",
        help=told,
    )


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and the options of every command that reads a recipe."""
    for decorate in (form_option(), set_option, recipe_argument):
        command = decorate(command)
    return command


def recipes_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a command that reads several."""
    for decorate in (form_option(), set_option, recipes_argument):
        command = decorate(command)
    return command


def locked_option(told: str) -> Decorator:
    """`--locked`, and what it does for a command."""
    return click.option("--locked", is_flag=True, help=told)
