"""`pem report`: a recipe or an adapter as one page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pemlang.cli.common import Bar, say, set_option, write_whole
from pemlang.diagnostics import Fault, PemError, visible

if TYPE_CHECKING:
    from pemlang.review.page import Section


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
    """Write a page about a recipe or an adapter, to be opened in a browser.

    For a recipe (a .pem file): its outputs, its graph, its adapters, their norms by layer, how
    alike they are, their spectra and what a truncation would lose. For an adapter, in a directory
    or on the hub: the same of it alone. Of two adapters also how they differ. The page holds all
    it needs, and loads nothing.
    """
    from pemlang.review.page import page

    _refuse_to_overwrite(output)
    bar = Bar()
    try:
        sections = _sections(target, settings, bar)
        if other is not None:
            sections = _of_two(target, other, sections, settings, bar)
    except PemError as error:
        bar.clear()
        return say(error.diagnostics, "text")
    except Fault as fault:
        bar.clear()
        return say([fault.at(None)], "text")
    bar.clear()
    about = target if other is None else f"{target} and {other}"
    write_whole(output, page(Path(target).name or target, sections, about))
    return 0


def _is_recipe(target: str) -> bool:
    return target.endswith(".pem") or Path(target).is_file()


def _sections(target: str, settings: dict[str, str], bar: Bar) -> list[Section]:
    from pemlang.api import load
    from pemlang.review.report import sections_of_adapter, sections_of_recipe

    if _is_recipe(target):
        return sections_of_recipe(load(target, settings), bar)
    return sections_of_adapter(target, bar)


def _of_two(
    target: str, other: str, sections: list[Section], settings: dict[str, str], bar: Bar
) -> list[Section]:
    """Both, one after the other; what differs first, where both are adapters."""
    from pemlang.review.compare import compare
    from pemlang.review.compare_show import as_html
    from pemlang.review.page import Section

    pairs = [(target, sections), (other, _sections(other, settings, bar))]
    found = [
        Section(f"{one.title}, {visible(Path(name).name, 40)}", one.html)
        for name, own in pairs
        for one in own
    ]
    if _is_recipe(target) or _is_recipe(other):
        return found
    return [Section("What changed", as_html(compare(target, other))), *found]


def _refuse_to_overwrite(output: Path) -> None:
    """Leave alone what is no report of ours."""
    from pemlang.review.page import HEAD

    if not output.exists():
        return
    try:
        with output.open("rb") as file:
            ours = file.read(len(HEAD)) == HEAD.encode()
    except OSError:
        ours = False
    if not ours:
        raise click.UsageError(
            f"{visible(output)} is there and is no report of pemlang's: remove it, or choose "
            "another file with -o."
        )
