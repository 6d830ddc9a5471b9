"""`pem test`: the tests of recipes."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
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
from pemlang.cli.ending import around
from pemlang.cli.recipes import modules_named, no_recipes, recipes_at
from pemlang.diagnostics import Diagnostic, Fault, PemError, listed, visible
from pemlang.execute.machine import default_threads

if TYPE_CHECKING:
    from pemlang.pipeline.processes import Died
    from pemlang.show.tests import FileTests


@click.command()
@click.option(
    "-k",
    "word",
    metavar="TEXT",
    help="Run the tests alone in whose names this stands, in small letters or capitals.",
)
@set_option
@format_option("text", "json", "junit")
@click.argument("paths", type=GivenPath(), nargs=-1)
def test(paths: tuple[str, ...], form: str, settings: dict[str, str], word: str | None) -> int:
    """Run the tests that stand in recipes, as test "name" { … }.

    Of a directory it runs those of all *.pem files inside; of the one you are in where none is
    given. `std` is the standard library, `std.paper` a part of it. A test needs no file:
    sample(lora(rank=4)) draws an adapter. `--format junit` is read by services that run tests.
    """
    with importing():
        from pemlang.show import tests as show

    began = time.perf_counter()
    unread = list[Diagnostic]()
    recipes = _meant(paths or (".",), unread)
    if not recipes and not unread:
        unread.append(no_recipes(paths or (".",)))
    tested: dict[int, FileTests] = {}
    try:
        _test_all(recipes, partial(_run, settings=settings, word=word or ""), tested, form)
    except KeyboardInterrupt:
        if form == "text":
            _tell_finished(recipes, tested)
        raise
    files = [tested[number] for number in range(len(recipes)) if tested[number].tells]
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


def _meant(paths: Sequence[str], mistakes: list[Diagnostic]) -> list[str]:
    """The recipes to test, each once: modules of the standard library by their names, and files."""
    modules, others = list[str](), list[str]()
    for given in paths:
        try:
            named = modules_named(given)
        except Fault as fault:
            mistakes.append(fault.at(None))
            continue
        modules += named
        others += [] if named else [given]
    return [*dict.fromkeys(modules), *recipes_at(others, mistakes)]


def _test_all(
    recipes: Sequence[str],
    run: Callable[[str], FileTests],
    tested: dict[int, FileTests],
    form: str,
) -> None:
    """Test files, and tell of each once all before it are told of.

    Args:
        recipes, run: the files, and what tests one.
        tested: takes what became of them, by their numbers.
    """
    from pemlang.show.tests import progress_line

    told = 0
    with closing(_each(recipes, run)) as files:
        for number, file in files:
            tested[number] = file
            while told in tested:
                if form == "text" and tested[told].tells:
                    click.echo(progress_line(tested[told]))
                told += 1


def _each(
    recipes: Sequence[str], run: Callable[[str], FileTests]
) -> Generator[tuple[int, FileTests], None, None]:
    """What became of each file, with its number, as soon as it is known: several side by side
    where processes are forked safely, else one after the other."""
    if len(recipes) < 2 or sys.platform != "linux":
        yield from enumerate(map(run, recipes))
        return
    with importing():
        from pemlang.pipeline.processes import Died, side_by_side
        from pemlang.pipeline.testing import load_all
        from pemlang.show.tests import FileTests

        load_all()
    with closing(side_by_side(run, recipes, max(2, default_threads()))) as results:
        for number, result in results:
            recipe = recipes[number]
            if isinstance(result, Died):
                yield number, FileTests(recipe, (), [_died(recipe, result)])
            else:
                yield number, result


def _run(recipe: str, settings: Mapping[str, str], word: str) -> FileTests:
    from pemlang.api import load
    from pemlang.check.files import std_module, std_modules
    from pemlang.show.tests import FileTests

    part = word.casefold()
    try:
        path = std_module(recipe) if recipe in std_modules() else recipe
        tests = load(path, settings).test(lambda title: part in title.casefold())
        return FileTests(recipe, tests)
    except PemError as error:
        return FileTests(recipe, (), error.diagnostics)
    except Exception as error:
        fault = around(error)
        if fault is None:
            raise
        return FileTests(recipe, (), [fault.at(None)])


def _tell_finished(recipes: Sequence[str], tested: Mapping[int, FileTests]) -> None:
    """What is known where the tests were interrupted."""
    from pemlang.show.tests import details

    for line in details([tested[number] for number in sorted(tested)], coloured(sys.stdout)):
        click.echo(line)
    rest = [recipe for number, recipe in enumerate(recipes) if number not in tested]
    click.echo(f"Not finished: {listed([visible(recipe) for recipe in rest], 8)}", err=True)


def _died(recipe: str, death: Died) -> Diagnostic:
    """What is said of a file whose process ended before its tests did."""
    code = death.code
    ended = f"ended with exit code {code}"
    if code < 0:
        with suppress(ValueError):
            ended = f"was ended by {signal.Signals(-code).name}"
    return Fault(
        "PEM0530",
        f"pem cannot go on: the process that tested {visible(recipe)} {ended}",
        "test this file alone to see why; SIGKILL is what ends a process where memory is short",
    ).at(None)


def _no_tests(word: str | None) -> Diagnostic:
    if word:
        return Fault(
            "PEM0383",
            f"there is no test whose name has {visible(word, 80)!r} in it",
            "give -k a part of the name of a test; without it all of them are run",
        ).at(None)
    return Fault(
        "PEM0383",
        "there are no tests here",
        'write one into a recipe: test "name" { assert same(a + b, b + a) }',
    ).at(None)
