"""`pem report`: a recipe or an adapter as one page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pemlang.cli.common import Bar, refuse_to_replace, say, set_option, write_whole
from pemlang.diagnostics import Fault, PemError, visible

if TYPE_CHECKING:
    from pemlang.show.page import Section


@click.command()
@click.argument("target", type=click.Path())
@click.argument("other", type=click.Path(), required=False)
@set_option
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
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
    from pemlang.show.page import HEAD, page

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
    write_whole(output, page(Path(target).name or target, sections, about), len(HEAD))
    return 0


def _is_recipe(target: str) -> bool:
    return target.endswith(".pem") or Path(target).is_file()


def _sections(target: str, settings: dict[str, str], bar: Bar) -> list[Section]:
    from pemlang.api import load
    from pemlang.show.report import sections_of_adapter, sections_of_recipe

    if _is_recipe(target):
        return sections_of_recipe(load(target, settings), bar)
    return sections_of_adapter(target, bar)


def _of_two(old: str, new: str, settings: dict[str, str], bar: Bar) -> list[Section]:
    """What differs first; then both, one after the other, as far as they are in the working
    tree."""
    from pemlang.show.page import Section

    if _is_recipe(old) != _is_recipe(new):
        raise click.UsageError("Report on two recipes or on two adapters, not on one of each.")
    changed = _meaning(old, new, settings) if _is_recipe(new) else _weights(old, new)
    there = [place for place in (old, new) if not _is_recipe(place) or Path(place).is_file()]
    return [Section("What changed", changed)] + [
        Section(f"{one.title}, {visible(Path(place).name, 40)}", one.html)
        for place in there
        for one in _sections(place, settings, bar)
    ]


def _meaning(old: str, new: str, settings: dict[str, str]) -> str:
    from pemlang.compare.meaning import meaning
    from pemlang.compare.sides import opened
    from pemlang.show.meaning_show import as_html

    with opened(old, settings) as one, opened(new, settings) as two:
        notes = list(dict.fromkeys([*one.notes, *two.notes]))
        return as_html(meaning(one.checked, two.checked, (old, new), notes))


def _weights(old: str, new: str) -> str:
    from pemlang.compare.compare import compare
    from pemlang.show.compare_show import as_html

    return as_html(compare(old, new))
