"""`pem check`: everything that is wrong with recipes, from file headers alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import click

from pemlang.cli.common import exit_code, json_text, locked_option, recipe_options, say
from pemlang.diagnostics import PemError, visible
from pemlang.show.findings import Finding, once


@click.command()
@locked_option("Go by the signatures in pem.lock: the adapters themselves need not be there.")
@recipe_options("text", "json", "sarif", "github", several=True)
def check(recipes: tuple[str, ...], settings: dict[str, str], form: str, locked: bool) -> int:
    """Check recipes without reading a tensor.

    Reads the adapters' configs and file headers, and reports everything that is wrong, with the
    place and what to write instead; `--format sarif` for code scanning, `--format github` as
    annotations of a GitHub workflow.
    """
    findings = once(
        finding
        for recipe in dict.fromkeys(recipes)
        for finding in _findings(recipe, settings, locked)
    )
    diagnostics = [finding.diagnostic for finding in findings]
    if form in ("sarif", "github"):
        _show(findings, form)
        return exit_code(diagnostics)
    code = say(diagnostics, form)
    if code == 0 and form == "text" and sys.stderr.isatty():
        for recipe in recipes:
            click.echo(f"{visible(recipe)} is right.", err=True)
    return code


def _findings(recipe: str, settings: Mapping[str, str], locked: bool) -> Iterator[Finding]:
    from pemlang.api import load

    try:
        diagnostics = load(recipe, settings).check(locked)
    except PemError as error:
        diagnostics = error.diagnostics
    return (Finding(recipe, diagnostic) for diagnostic in diagnostics)


def _show(findings: list[Finding], form: str) -> None:
    from pemlang.show import github, sarif

    if form == "sarif":
        click.echo(json_text(sarif.log(findings)))
        return
    for finding in findings:
        click.echo(github.command(finding))
