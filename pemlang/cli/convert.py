"""`pem convert`: another tool's configuration as a recipe."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pemlang.cli.common import GivenPath, format_option, say
from pemlang.diagnostics import PemError, placed, visible
from pemlang.disk import is_dir, replace_file


@click.command()
@click.argument("configuration", type=GivenPath(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=GivenPath(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the recipe here; beside the configuration when not given. A file that is there "
    "already is left alone.",
)
@format_option("text", "json")
def convert(configuration: Path, output: Path | None, form: str) -> int:
    """Write the recipe that a configuration of mergekit is.

    What does not carry over is an error at its line, and nothing is written. Paths of models start
    at the working directory, as mergekit has it.
    """
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
