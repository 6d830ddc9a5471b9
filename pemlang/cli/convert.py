"""`pem convert`: another tool's configuration as a recipe, or an adapter in another format."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from pemlang.cli.common import GivenPath, coloured, format_option, say
from pemlang.diagnostics import Diagnostic, PemError, placed, visible
from pemlang.disk import is_dir, replace_file


@click.command()
@click.argument("given", metavar="FILE", type=GivenPath())
@click.argument("target", metavar="[OUTPUT]", required=False, type=GivenPath(path_type=Path))
@click.option(
    "--to",
    "to",
    metavar="FORMAT",
    help="Write the adapter FILE to OUTPUT in a format: peft, mlx, gguf, kohya, diffusers, "
    "comfyui, bfl.",
)
@click.option(
    "--like",
    metavar="OTHER",
    type=GivenPath(),
    help="Take the names of modules from another adapter, where FORMAT has others than FILE.",
)
@click.option(
    "--heads",
    type=click.Choice(["none"]),
    help="Leave out the heads that the adapter has, and all else that it trained of its base.",
)
@click.option(
    "-o",
    "--output",
    type=GivenPath(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the recipe here; beside the configuration when not given. A file that is there "
    "already is left alone.",
)
@format_option("text", "json")
def convert(
    given: str,
    target: Path | None,
    to: str | None,
    like: str | None,
    heads: str | None,
    output: Path | None,
    form: str,
) -> int:
    """Write a mergekit file as a recipe, or an adapter anew.

    The recipe that a configuration of mergekit is, or the adapter in another format.

    What does not carry over is an error, at its line in a configuration, and nothing is written.
    Paths of models start at the working directory, as mergekit has it.
    """
    if (target is None) != (to is None) or (to is not None and output is not None):
        raise click.UsageError("An adapter is converted by FILE OUTPUT --to FORMAT, and no more.")
    if target is not None and to is not None:
        options = {"format": to} | ({"heads": heads} if heads else {})
        return _in_format(given, target, options, like, form)
    if like is not None:
        raise click.UsageError("--like says whose names an adapter is converted to, with --to.")
    if heads is not None:
        raise click.UsageError("--heads says what of an adapter is converted, with --to.")
    return _as_recipe(Path(given), output, form)


def _in_format(
    adapter: str, target: Path, options: Mapping[str, str], like: str | None, form: str
) -> int:
    """Build what says no more than that an adapter is saved with some options, and whose names it
    has."""
    from pemlang.api import of_text
    from pemlang.cli.build import built_line
    from pemlang.cli.one_off import one_off
    from pemlang.show.written import BuildJson
    from pemlang.syntax.files import ON_THE_COMMAND_LINE
    from pemlang.syntax.written import is_name

    if not is_name(options["format"]):
        raise click.UsageError(f"`{visible(options['format'], 40)}` is no format.")
    try:
        others = [] if like is None else [f"y={like}"]
        text, out = one_off("x", [*others, f"x={adapter}"], str(target), None)
        if like is not None:
            text = re.sub("(?m)^adapter x = .*$", r"\g<0> with names=y", text)
        said = ", ".join(f"{name}={value}" for name, value in options.items())
        written = f"{text.rstrip()} with {said}\n"
        result = of_text(written.encode(), ON_THE_COMMAND_LINE).build(out)
    except PemError as error:
        return say(map(_as_option, error.diagnostics), form)
    code = say(result.warnings, form, BuildJson(result.outputs, written))
    if form == "text":
        for built in result.outputs:
            click.echo(built_line(built), color=coloured(sys.stdout))
    return code


def _as_option(told: Diagnostic) -> Diagnostic:
    """What is said of the recipe that a conversion is, with help for the command line."""
    return replace(told, help=told.help and told.help.replace("heads=none", "--heads none"))


def _as_recipe(configuration: Path, output: Path | None, form: str) -> int:
    """Write a configuration of mergekit as a recipe."""
    from pemlang.convert import converted
    from pemlang.show.written import ConvertJson
    from pemlang.syntax.files import decoded, read_source

    place = configuration.with_suffix(".pem") if output is None else output
    if place.exists():
        raise click.UsageError(f"{visible(place)} is there already: choose another with -o.")
    folder = Path(os.path.normpath(Path.cwd() / place)).parent
    if not is_dir(folder):
        raise click.UsageError(f"There is no folder {visible(place.parent)} to write to.")
    try:
        with placed(None):
            made = converted(read_source(configuration), folder, configuration.stem)
            decoded(made.text.encode(), visible(place), folder)  # it may be too long to be read
            replace_file(place, made.text.encode())
    except PemError as error:
        return say(error.diagnostics, form)
    if form == "text":
        click.echo(visible(place, 4096))
    return say(made.warnings, form, ConvertJson(str(place), made.text))
