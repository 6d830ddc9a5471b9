"""`pem report`: a recipe, an adapter or a model as one page to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pemlang.cli.common import (
    Bar,
    GivenPath,
    format_option,
    refuse_to_replace,
    say,
    set_option,
    write_whole,
)
from pemlang.diagnostics import Fault, PemError, visible
from pemlang.tensorfiles.container import SUFFIXES

if TYPE_CHECKING:
    from pemlang.show.report import Reported


@click.command()
@click.argument("target", type=GivenPath())
@click.argument("other", type=GivenPath(), required=False)
@set_option
@click.option(
    "-o",
    "--output",
    type=GivenPath(dir_okay=False, path_type=Path),
    default="report.html",
    show_default=True,
    metavar="FILE",
    help="Write the page here; an earlier report is replaced, another file is not.",
)
@format_option("text", "json")
def report(
    target: str, other: str | None, settings: dict[str, str], output: Path, form: str
) -> int:
    """Write a page about a recipe, an adapter or a model.

    For a recipe (a .pem file): its outputs, its graph, what a build would do, its adapters and
    what its models were tuned by, their norms by layer, how alike they are, their spectra and what
    a truncation would lose. For an adapter or a model, a directory, one file or on the hub: the
    same of it alone. Of two, the older first, also what changed; that may be a recipe in git, as
    main:recipes/merge.pem. The page holds all it needs, and loads nothing.
    """
    from pemlang.show.numbers import ReportJson
    from pemlang.show.page import HEAD, whole_page

    refuse_to_replace(output, HEAD)
    bar = Bar()
    try:
        if other is None:
            parts = [_of_one(target, settings, bar)]
        else:
            parts = _of_two(target, other, settings, bar)
    except PemError as error:
        bar.clear()
        return say(error.diagnostics, form)
    except Fault as fault:
        bar.clear()
        return say([fault.at(None)], form)
    bar.clear()
    about = target if other is None else f"{target} and {other}"
    sections = [section for part in parts for section in part.sections]
    write_whole(output, whole_page(Path(target).name or target, sections, about), len(HEAD))
    if form == "text":
        click.echo(visible(output, 4096))
    figures = [part.figures for part in parts if part.figures is not None]
    return say([], form, ReportJson(str(output), [part.title for part in sections], figures))


def _is_recipe(target: str) -> bool:
    return target.endswith(".pem") or (Path(target).is_file() and not target.endswith(SUFFIXES))


def _of_one(target: str, settings: dict[str, str], bar: Bar) -> Reported:
    from pemlang.api import load
    from pemlang.show.report import report_on_recipe, report_on_stored

    if _is_recipe(target):
        return report_on_recipe(load(target, settings).identified(), bar)
    return report_on_stored(target, bar)


def _of_two(old: str, new: str, settings: dict[str, str], bar: Bar) -> list[Reported]:
    """What differs first; then both, one after the other, as far as they are in the working
    tree."""
    if _is_recipe(old) != _is_recipe(new):
        raise click.UsageError("Report on two recipes, adapters or models, not on one of each.")
    return _of_recipes(old, new, settings, bar) if _is_recipe(new) else _of_stored(old, new, bar)


def _of_recipes(old: str, new: str, settings: dict[str, str], bar: Bar) -> list[Reported]:
    from pemlang.compare.sides import compare_sides, opened
    from pemlang.show.page import PageSection
    from pemlang.show.recipe_diff import as_html
    from pemlang.show.report import Reported, report_on_recipe

    with opened(old, settings) as before, opened(new, settings) as after:
        changed = PageSection("What changed", as_html(compare_sides(before, after)))
        parts = [Reported([changed])]
        for side in (before, after):
            if Path(side.name).is_file():
                parts.append(_named(report_on_recipe(side.checked, bar), side.name))
    return parts


def _of_stored(old: str, new: str, bar: Bar) -> list[Reported]:
    from pemlang.compare.weights import compare
    from pemlang.show.changes import shown
    from pemlang.show.page import PageSection
    from pemlang.show.report import Reported, report_on_stored
    from pemlang.show.weights_diff import as_html

    changed = as_html(shown(compare(old, new, bar)))
    parts = [Reported([PageSection("What changed", changed)])]
    for place in (old, new):
        parts.append(_named(report_on_stored(place, bar), place))
    return parts


def _named(part: Reported, place: str) -> Reported:
    """A part with the name of what it is about in the titles of its sections."""
    name = visible(Path(place).name, 40)
    sections = [replace(section, title=f"{section.title}, {name}") for section in part.sections]
    return replace(part, sections=sections)
