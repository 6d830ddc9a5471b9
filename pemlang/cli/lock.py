"""`pem lock`: write down what recipes are made from."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pemlang.cli.common import coloured, recipe_options, say
from pemlang.diagnostics import PemError, placed, visible
from pemlang.disk import is_file, turn

if TYPE_CHECKING:
    from pemlang.compare.recipes import RecipeComparison
    from pemlang.inputs.lock import Lock


@click.command()
@click.option(
    "--upgrade",
    "library",
    metavar="LIBRARY",
    help="Take this library anew and nothing else, once it is shown what that changes.",
)
@recipe_options("text", "json", several=True)
def lock(recipes: tuple[str, ...], settings: dict[str, str], form: str, library: str | None) -> int:
    """Write pem.lock beside recipes: what they are made from.

    It holds the digests of each adapter's files, the commit that a hub revision stands for, the
    signature that a check needs, and of each import the digest; of libraries the text too. Commit
    it: `pem check --locked`, `pem plan --locked` and `pem diff` then need no adapters, and
    `pem build --locked` refuses what has changed.
    """
    from pemlang.api import load
    from pemlang.inputs.lock import NAME, joined, read_lock, write_lock
    from pemlang.show.recipe_diff import as_json
    from pemlang.show.written import LockFileJson, LockJson

    by_folder: dict[Path, list[Lock]] = {}
    comparisons: list[RecipeComparison] = []
    written: list[LockFileJson] = []
    try:
        by_recipe = dict.fromkeys(recipes, settings)
        if library is not None:
            by_recipe = _with_users(recipes, settings, library)
        for recipe, own in by_recipe.items():
            if library is None:
                new = load(recipe, own).lock()
            else:
                new, comparison = load(recipe, own).upgraded(library)
                comparisons.append(comparison)
            by_folder.setdefault(new.directory, []).append(new)
        if form == "text" and not _agreed(list(by_recipe), comparisons):
            return 0
        for directory, locks in by_folder.items():
            with placed(None), turn(directory):
                old = read_lock(directory) if is_file(directory / NAME) else None
                total = joined(old, locks)
                path = os.path.relpath(write_lock(total))
            written.append(LockFileJson(path, _changes(old, total)))
    except PemError as error:
        return say(error.diagnostics, form)
    if form == "json":
        return say([], form, LockJson(written, [as_json(each) for each in comparisons]))
    for file in written:
        name = click.style(visible(file.path, 4096), bold=True)
        click.echo(name, color=coloured(sys.stdout))
        for line in file.changes or ["nothing has changed"]:
            click.echo(f"    {line}")
    return 0


def _with_users(
    recipes: Sequence[str], settings: Mapping[str, str], library: str
) -> dict[str, dict[str, str]]:
    """Some recipes, and those beside them that have the library of the same lock, each with the
    settings that are its own."""
    from pemlang.compare.upgrade import settings_of_each, users

    every = list(
        dict.fromkeys(str(path) for name in recipes for path in users(Path(name), library))
    )
    return dict(zip(every, settings_of_each(every, settings), strict=True))


def _agreed(recipes: Sequence[str], comparisons: Sequence[RecipeComparison]) -> bool:
    """Show what an upgrade changes; whether it is to be locked, which is asked where someone is
    there to answer."""
    from pemlang.show.recipe_diff import as_text

    for recipe, comparison in zip(recipes, comparisons, strict=False):
        sides = f"{visible(comparison.old, 80)} → {visible(comparison.new, 80)}"
        click.echo(f"{click.style(visible(recipe, 4096), bold=True)}: {sides}")
        for line in as_text(comparison, coloured(sys.stdout)).splitlines():
            click.echo(f"    {line}")
    if not comparisons or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    return click.confirm("Lock it?", default=True)


def _changes(old: Lock | None, new: Lock) -> list[str]:
    """What a lock says that it did not say before."""
    before = {} if old is None else {s: locked.files for s, locked in old.adapters.items()}
    after = {source: locked.files for source, locked in new.adapters.items()}
    lines = _told(before, after)
    imports = {} if old is None else {name: {"": d} for name, d in old.imports.items()}
    lines += _told(imports, {name: {"": digest} for name, digest in new.imports.items()})
    return lines + _versions(old, new)


def _versions(old: Lock | None, new: Lock) -> list[str]:
    """Of which versions the published recipes are, where that is another than it was."""
    before = {} if old is None else old.published
    added = {recipe.of for name, recipe in new.published.items() if name not in before}
    kept = {
        (before[name].of, recipe.of) for name, recipe in new.published.items() if name in before
    }
    lines = [f"{visible(was)} → {visible(now)}" for was, now in kept if was != now]
    lines += [f"of {visible(of)}" for of in added - {now for _, now in kept}]
    return sorted(lines)


def _told(
    before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]
) -> list[str]:
    from pemlang.inputs.locked import differences

    lines = [f"+ {visible(name)}" for name in sorted(after.keys() - before.keys())]
    lines += [f"− {visible(name)}" for name in sorted(before.keys() - after.keys())]
    for name in sorted(after.keys() & before.keys()):
        changed = differences(before[name], after[name])
        if changed:
            files = ", ".join(visible(file) for file in changed if file)
            lines.append(f"~ {visible(name)}{': ' * bool(files)}{files}")
    return lines
