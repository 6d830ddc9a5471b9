"""`pem doc`: what recipes say of the functions they offer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pemlang.cli.common import (
    GivenPath,
    format_option,
    importing,
    refuse_to_replace,
    say,
    write_whole,
)
from pemlang.cli.recipes import mode_of, modules_named, no_recipes, recipes_at
from pemlang.diagnostics import Diagnostic, Fault, PemError, placed, visible

if TYPE_CHECKING:
    from pemlang.pipeline.documenting import LibraryDoc


@click.command()
@click.option(
    "-o",
    "--output",
    type=GivenPath(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write a page for each file into this folder; only earlier pages are replaced.",
)
@format_option("text", "markdown", "html", "json")
@click.argument("paths", type=GivenPath(), nargs=-1)
def doc(paths: tuple[str, ...], form: str, output: Path | None) -> int:
    """Show what recipes offer: functions, by their ## comments.

    Each with its types and defaults, its normal form on adapters that are drawn, its source, and
    the tests that use it. PATHS are recipes and folders of them; `std` is the standard library,
    `std.paper` a part of it, and a library that is installed goes by its name too. `--format html
    -o DIR` writes pages that lead to each other and can be searched; `--format markdown` prints
    them, or writes them with -o.
    """
    with importing():
        from pemlang.show import library as show

    if (form == "html") > (output is not None):
        raise click.UsageError("Say where the pages go: pem doc … --format html -o DIR.")
    if output is not None and form not in ("html", "markdown"):
        raise click.UsageError("Pages are Markdown or HTML: add --format html.")
    mistakes = list[Diagnostic]()
    libraries = {x.name: x for x in _documented(paths or (".",), mistakes)}
    offering = [x for x in libraries.values() if x.names or x.hands_on]
    if not offering and not mistakes:
        mistakes.append(_nothing())
    written = list[str]()
    if output is not None and not mistakes:
        pages = show.html_pages(offering) if form == "html" else show.markdown_pages(offering)
        written = _write(output, pages, show.start_of_page(form))
    if form == "json":
        return say(mistakes, form, show.DocJson(offering))
    code = say(mistakes, "text")
    if output is not None:
        click.echo("\n".join(visible(page, 4096) for page in written[:1]), nl=bool(written))
    elif form == "markdown":
        click.echo(show.one_markdown(offering), nl=False)
    else:
        click.echo("\n\n".join(map(show.as_text, offering)), nl=bool(offering))
    return code


def _documented(paths: tuple[str, ...], mistakes: list[Diagnostic]) -> Iterator[LibraryDoc]:
    """What each of the files says; what is wrong with one keeps no other from being read."""
    from pemlang.pipeline.documenting import documented, standard_module
    from pemlang.syntax.files import read_source

    for given in paths:
        try:
            modules = modules_named(given)
        except Fault as fault:
            mistakes.append(fault.at(None))
            continue
        if modules:
            yield from map(standard_module, modules)
            continue
        if not mode_of(given):
            installed = _of_library(given, mistakes)
            yield from installed
            if installed:
                continue
        recipes = list(recipes_at((given,), mistakes))
        if not recipes:
            mistakes.append(no_recipes((given,)))
        for recipe in recipes:
            path = Path(recipe).absolute()
            try:
                with placed(None):
                    source = read_source(path, recipe)
                yield documented(path, source, recipe)
            except PemError as error:
                mistakes += error.diagnostics


def _of_library(name: str, mistakes: list[Diagnostic]) -> list[LibraryDoc]:
    """What a library that is installed says, or a recipe of it."""
    from pemlang.pipeline.documenting import library

    try:
        with placed(None):
            return library(name)
    except PemError as error:
        mistakes += error.diagnostics
        return []


def _nothing() -> Diagnostic:
    return Fault(
        "PEM0600",
        "these recipes offer no functions",
        "write one: def half(x: adapter) -> adapter = 0.5 * x",
    ).at(None)


def _write(folder: Path, pages: Mapping[str, str], start: str) -> list[str]:
    """Write pages into a folder, once none of them would replace what is no page; raises
    click.UsageError."""
    places = {folder / name: page for name, page in pages.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(
            f"{visible(folder)} cannot be made: {error.strerror or error}."
        ) from None
    for place in places:
        refuse_to_replace(place, start)
    for place, page in places.items():
        write_whole(place, page, len(start))
    return [str(place) for place in places]
