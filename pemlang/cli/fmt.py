"""`pem fmt`: recipes in the one layout."""

from __future__ import annotations

import difflib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from pemlang.cli.common import RECIPE_IS_WRONG, GivenPath, format_option, say
from pemlang.cli.recipes import (
    STDIN,
    mode_of,
    no_recipes,
    read_stdin,
    recipes_at,
    replace_recipe,
)
from pemlang.diagnostics import Diagnostic, Fault, PemError, visible


@click.command()
@click.option(
    "--check",
    is_flag=True,
    help="Write nothing; name the files that would change, and exit with 1 if there are any.",
)
@click.option(
    "--diff",
    is_flag=True,
    help="Write nothing; show what would change, and exit with 1 if anything would.",
)
@click.option("--ascii", is_flag=True, help="Write ⊕ ⊖ ⊗ as .+ .- .*, and not the other way.")
@click.argument("paths", nargs=-1, required=True, type=GivenPath(readable=False))
@format_option("text", "json")
def fmt(paths: tuple[str, ...], check: bool, diff: bool, ascii: bool, form: str) -> int:
    """Lay recipes out in the one way.

    Rewrites the files that are given, and all *.pem files inside directories, and names each that
    it changed; those that are laid out already, or have mistakes, are left alone. Given -, reads a
    recipe from standard input and writes it to standard output.
    """
    from pemlang.show.findings import FmtJson

    if STDIN in paths and len(paths) > 1:
        raise click.UsageError("- stands for standard input, and goes with no other path.")
    if form == "json" and (diff or STDIN in paths):
        raise click.UsageError("--format json names recipes that change: leave out --diff and -.")
    seen, changed, mistakes = 0, list[str](), list[Diagnostic]()
    writes = not (check or diff or STDIN in paths)
    for path in recipes_at(paths, mistakes):
        seen += 1
        try:
            if _one(path, check, diff, ascii):
                changed.append(path)
                if form == "text":
                    _say_changed(path, check and not diff, writes)
        except PemError as error:
            mistakes += error.diagnostics
        except Fault as fault:
            mistakes.append(fault.at(None))
    if not seen and not mistakes:
        mistakes.append(no_recipes(paths))
    code = say(mistakes, form, FmtJson(seen, changed, writes))
    if changed and form == "text" and STDIN not in paths and (writes or sys.stderr.isatty()):
        of = f"{len(changed)} of {seen} recipe{'s' * (seen != 1)}"
        click.echo(f"{of} {'' if writes else 'would be '}reformatted.", err=True)
    return code or (RECIPE_IS_WRONG if changed and (check or diff) else 0)


def _say_changed(path: str, would: bool, writes: bool) -> None:
    if writes:
        click.echo(f"reformatted {visible(path)}", err=True)
    elif would:
        click.echo(visible(_name(path)))


def _name(path: str) -> str:
    return "standard input" if path == STDIN else path


def _one(path: str, check: bool, diff: bool, ascii: bool) -> bool:
    """Lay one recipe out; whether that changes it."""
    from pemlang.syntax.files import decoded
    from pemlang.syntax.format import formatted

    data = _read(path)
    name = _name(path)
    text = formatted(decoded(data, name, Path()), ascii)
    changes = text.encode() != data
    if diff:
        if changes:
            lines = _difference(data.decode(), text, visible(name))
            click.echo("".join(lines).encode(), nl=False)
    elif check:
        pass
    elif path == STDIN:
        click.echo(text.encode(), nl=False)
    elif changes:
        replace_recipe(Path(os.path.realpath(path)), text, path)
    return changes


def _difference(old: str, new: str, name: str) -> Iterator[str]:
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    for line in difflib.unified_diff(before, after, name, name):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


# --- files ---------------------------------------------------------------------------------


def _read(path: str) -> bytes:
    from pemlang.syntax.files import read_bytes

    if path == STDIN:
        return read_stdin()
    mode = mode_of(path)
    if mode and not stat.S_ISREG(mode):  # a pipe, say, cannot be rewritten
        raise Fault("PEM0100", f"{visible(path)} is not a file", "give the path of a recipe, or -")
    return read_bytes(Path(path), path)
