"""`pem test`: the tests of recipes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from pemlang.cli.common import (
    RECIPE_IS_WRONG,
    GivenPath,
    coloured,
    format_option,
    importing,
    say,
    set_option,
)
from pemlang.cli.recipes import no_recipes, recipes_at
from pemlang.diagnostics import Diagnostic, Fault, PemError

if TYPE_CHECKING:
    from pemlang.show.tests import FileTests


@click.command()
@click.option("-k", "word", metavar="TEXT", help="Run the tests alone in whose names this stands.")
@set_option
@format_option("text", "json", "junit")
@click.argument("paths", type=GivenPath(), nargs=-1)
def test(paths: tuple[str, ...], form: str, settings: dict[str, str], word: str | None) -> int:
    """Run the tests that stand in recipes, as test "name" { … }.

    Of a directory it runs those of all *.pem files inside; of the one you are in where none is
    given. A test needs no file: sample(lora(rank=4)) draws an adapter. `--format junit` is read by
    services that run tests.
    """
    with importing():
        from pemlang.show import tests as show

    began = time.perf_counter()
    unread = list[Diagnostic]()
    recipes = list(recipes_at(paths or (".",), unread))
    if not recipes and not unread:
        unread.append(no_recipes(paths or (".",)))
    files = []
    for recipe in recipes:
        file = _run(recipe, settings, word or "")
        if not (file.outcomes or file.wrong):
            continue
        files.append(file)
        if form == "text":
            click.echo(show.progress_line(file))
    seconds = time.perf_counter() - began
    if not files and not unread:
        unread.append(_no_tests(word))
    if form == "json":
        return say([*unread, *show.diagnostics_of(files)], form, show.as_json(files))
    if form == "junit":
        click.echo(show.as_junit(files, seconds))
    code = say(unread, "text")
    if form == "text" and files:
        for line in show.details(files, coloured(sys.stdout)):
            click.echo(line)
        click.echo(show.summary(files, seconds))
    return RECIPE_IS_WRONG if show.diagnostics_of(files) else code


def _run(recipe: str, settings: Mapping[str, str], word: str) -> FileTests:
    from pemlang.api import load
    from pemlang.show.tests import FileTests

    try:
        return FileTests(recipe, load(recipe, settings).test(lambda title: word in title))
    except PemError as error:
        return FileTests(recipe, (), error.diagnostics)


def _no_tests(word: str | None) -> Diagnostic:
    return Fault(
        "PEM0383",
        f"there is no test whose name has {word!r} in it" if word else "there are no tests here",
        'write one into a recipe: test "name" { assert same(a + b, b + a) }',
    ).at(None)
