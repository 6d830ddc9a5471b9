"""`pem report`: a recipe or an adapter as one page to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pemlang.cli.common import Bar, GivenPath, refuse_to_replace, say, set_option, write_whole
from pemlang.diagnostics import Fault, PemError, visible

if TYPE_CHECKING:
    from pemlang.show.page import PageSection


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
def report(target: str, other: str | None, settings: dict[str, str], output: Path) -> int:
    """Write a page about a recipe or an adapter.

    For a recipe (a .pem file): its outputs, its graph, what a build would do, its adapters, their
    norms by layer, how alike they are, their spectra and what a truncation would lose. For an
    adapter, in a directory or on the hub: the same of it alone. Of two, the older first, also
    what changed; that may be a recipe in git, as main:recipes/merge.pem. The page holds all it
    needs, and loads nothing.
    """
    from pemlang.show.page import HEAD, whole_page

    refuse_to_replace(output, HEAD)
    bar = Bar()
    try:
        if other is None:
            sections = _sections(target, settings, bar)
        else:
            sections = _of_two(target, other, settings, bar)
    except PemError as error:
        bar.clear()
        return say(error.diagnostics, "text")
    except Fault as fault:
        bar.clear()
        return say([fault.at(None)], "text")
    bar.clear()
    about = target if other is None else f"{target} and {other}"
    write_whole(output, whole_page(Path(target).name or target, sections, about), len(HEAD))
    return 0


def _is_recipe(target: str) -> bool:
    return target.endswith(".pem") or Path(target).is_file()


def _sections(target: str, settings: dict[str, str], bar: Bar) -> list[PageSection]:
    from pemlang.api import load
    from pemlang.show.report import sections_of_adapter, sections_of_recipe

    if _is_recipe(target):
        return sections_of_recipe(load(target, settings).identified(), bar)
    return sections_of_adapter(target, bar)


def _of_two(old: str, new: str, settings: dict[str, str], bar: Bar) -> list[PageSection]:
    """What differs first; then both, one after the other, as far as they are in the working
    tree."""
    if _is_recipe(old) != _is_recipe(new):
        raise click.UsageError("Report on two recipes or on two adapters, not on one of each.")
    return _of_recipes(old, new, settings, bar) if _is_recipe(new) else _of_adapters(old, new, bar)


def _of_recipes(old: str, new: str, settings: dict[str, str], bar: Bar) -> list[PageSection]:
    from pemlang.compare.sides import compare_sides, opened
    from pemlang.show.page import PageSection
    from pemlang.show.recipe_diff import as_html
    from pemlang.show.report import sections_of_recipe

    with opened(old, settings) as before, opened(new, settings) as after:
        sections = [PageSection("What changed", as_html(compare_sides(before, after)))]
        for side in (before, after):
            if Path(side.name).is_file():
                sections += _named(sections_of_recipe(side.checked, bar), side.name)
    return sections


def _of_adapters(old: str, new: str, bar: Bar) -> list[PageSection]:
    from pemlang.compare.adapters import compare
    from pemlang.show.adapter_diff import as_html
    from pemlang.show.page import PageSection
    from pemlang.show.report import sections_of_adapter

    sections = [PageSection("What changed", as_html(compare(old, new)))]
    for place in (old, new):
        sections += _named(sections_of_adapter(place, bar), place)
    return sections


def _named(sections: list[PageSection], place: str) -> list[PageSection]:
    """Sections with the name of what they are about in their titles."""
    name = visible(Path(place).name, 40)
    return [replace(section, title=f"{section.title}, {name}") for section in sections]
