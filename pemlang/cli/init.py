"""`pem init`: a first recipe over adapters and models that are there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import click

from pemlang.cli.common import GivenPath, format_option, say
from pemlang.diagnostics import Diagnostic, Fault, PemError, placed, visible
from pemlang.disk import is_dir, replace_file
from pemlang.formats import FORMATS, Adapter
from pemlang.inputs.hub import SCHEME
from pemlang.inputs.identities import seen_from
from pemlang.inputs.resolver import read_stored


@click.command()
@click.argument("places", metavar="DIR...", type=GivenPath(), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=GivenPath(dir_okay=False, path_type=Path),
    default="merge.pem",
    show_default=True,
    metavar="FILE",
    help="Write the recipe here; a file that is there already is left alone.",
)
@format_option("text", "json")
def init(places: tuple[str, ...], output: Path, form: str) -> int:
    """Write a first recipe over adapters or models.

    A DIR is an adapter or a model, on the hub too (hf://org/name@revision), or a folder of them.
    The recipe names them and their bases, and saves a sum of the adapters that can be added, in
    the model too where that is given; of models of one architecture, what the others learned added
    to the one they were tuned from.
    """
    from pemlang.api import load
    from pemlang.show.first_input import FirstInput
    from pemlang.show.first_recipe import first_recipe
    from pemlang.show.written import InitJson
    from pemlang.syntax.files import decoded

    if output.exists():
        raise click.UsageError(f"{visible(output)} is there already: choose another with -o.")
    folder = Path(os.path.normpath(Path.cwd() / output)).parent
    if not is_dir(folder):
        raise click.UsageError(f"There is no folder {visible(output.parent)} to write to.")
    left_out: list[Diagnostic] = []
    try:
        with placed(None):
            inputs = {
                path: FirstInput(path, stored)
                for place, stored in _stored(places, left_out)
                for path in [seen_from(folder, place, Path.cwd())]
            }
            if not inputs:
                raise PemError([replace(told, severity="error") for told in left_out])
            by_kind = {
                holds: [x for x in inputs.values() if x.adapter.format.holds == holds]
                for holds in ("adapter", "model")
            }
            text = first_recipe(by_kind["adapter"], by_kind["model"])
            decoded(text.encode(), visible(output), folder)  # it may be too long to be read
            replace_file(output, text.encode())
    except PemError as error:
        return say(error.diagnostics, form)
    if form == "text":
        click.echo(visible(output, 4096))
    return say([*left_out, *load(output).check()], form, InitJson(str(output), text))


def _stored(places: Iterable[str], left_out: list[Diagnostic]) -> Iterator[tuple[str, Adapter]]:
    """Adapters and models and their places; what a folder holds of them that we cannot take is left
    out, with a warning."""
    for place in places:
        inside = [] if place.startswith(SCHEME) or _holds_one(Path(place)) else _below(Path(place))
        if not inside:  # what it lacks is told
            yield place, read_stored(place, tensors=False)
        for each in inside:
            try:
                yield str(each), read_stored(str(each), tensors=False)
            except Fault as fault:
                left_out.append(fault.at(None, "warning"))


def _below(folder: Path) -> list[Path]:
    """The adapters and models of a folder."""
    if not is_dir(folder):
        return []
    return [path for path in sorted(folder.iterdir()) if _holds_one(path)]


def _holds_one(place: Path) -> bool:
    return any(record.detect(place).fits for record in FORMATS.values())
