"""`pem check`: everything that is wrong with recipes, from file headers alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import click

from pemlang.cli.common import GivenPath, exit_code, json_text, locked_option, recipe_options, say
from pemlang.cli.recipes import STDIN, no_recipes, read_stdin, recipes_at
from pemlang.diagnostics import Diagnostic, PemError, visible
from pemlang.show.findings import CheckJson, Finding, once


@click.command()
@click.option(
    "--stdin-filename",
    type=GivenPath(),
    metavar="FILE",
    help="What - is called in messages; its paths and imports are relative to the folder of it.",
)
@locked_option("Go by the signatures in pem.lock: the adapters themselves need not be there.")
@recipe_options("text", "json", "sarif", "github", several=True)
def check(
    recipes: tuple[str, ...],
    settings: dict[str, str],
    form: str,
    locked: bool,
    stdin_filename: str | None,
) -> int:
    """Check recipes without reading a tensor.

    Reads the adapters' configs and file headers, and reports everything that is wrong, with the
    place and what to write instead; `--format sarif` for code scanning, `--format github` as
    annotations of a GitHub workflow. Of a directory it checks all *.pem files inside; given -, a
    recipe from standard input.
    """
    if stdin_filename is not None and STDIN not in recipes:
        raise click.UsageError("--stdin-filename says what - is called, and there is no -.")
    unread = list[Diagnostic]()
    paths = list(recipes_at(recipes, unread))
    if not paths and not unread:
        unread.append(no_recipes(recipes))
    findings = once(
        [Finding(recipes[0], diagnostic) for diagnostic in unread]
        + [
            finding
            for recipe in paths
            for finding in _findings(recipe, settings, locked, stdin_filename)
        ]
    )
    diagnostics = [finding.diagnostic for finding in findings]
    if form in ("sarif", "github"):
        _show(findings, form)
        return exit_code(diagnostics)
    code = say(diagnostics, form, CheckJson(paths))
    if code == 0 and form == "text" and sys.stderr.isatty():
        for recipe in paths:
            click.echo(f"{visible(recipe)} is right.", err=True)
    return code


def _findings(
    recipe: str, settings: Mapping[str, str], locked: bool, stdin_filename: str | None
) -> Iterator[Finding]:
    from pemlang.api import load, of_text

    name = (stdin_filename or "standard input") if recipe == STDIN else recipe
    try:
        opened = of_text(read_stdin(), name, settings) if recipe == STDIN else load(name, settings)
        diagnostics = opened.check(locked)
    except PemError as error:
        diagnostics = error.diagnostics
    return (Finding(name, diagnostic) for diagnostic in diagnostics)


def _show(findings: list[Finding], form: str) -> None:
    from pemlang.show import github, sarif

    if form == "sarif":
        click.echo(json_text(sarif.log(findings)))
        return
    for finding in findings:
        click.echo(github.command(finding))
