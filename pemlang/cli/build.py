"""`pem build`: write every adapter that a recipe saves."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pemlang.cli.common import coloured, recipe_options, say
from pemlang.diagnostics import PemError, visible

if TYPE_CHECKING:
    from pemlang.build.run import Built

_PATIENCE = 0.5  # seconds before a bar appears
_SITES_SHOWN = 5


class _Bar:
    """A progress bar on a terminal, once a build has taken long enough to want one."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._last = 0.0
        self._shown = False

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if not sys.stderr.isatty() or now - self._start < _PATIENCE or now - self._last < 0.1:
            return
        self._last, self._shown = now, True
        filled = 24 * done // max(1, total)
        bar = "█" * filled + "░" * (24 - filled)
        click.echo(f"\r\x1b[K{bar} {done}/{total} sites  {what[-40:]}", nl=False, err=True)

    def clear(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Write the outputs inside this folder instead of the recipe's own.",
)
@recipe_options
def build(recipe: str, settings: dict[str, str], form: str, out: str | None) -> int:
    """Build a recipe: write every adapter it saves.

    Each output is a directory that PEFT loads; it appears whole or not at all.
    """
    from pemlang.api import load

    bar = _Bar()
    try:
        result = load(recipe, settings).build(out, bar)
    except PemError as error:
        bar.clear()
        return say(error.diagnostics, form)
    bar.clear()
    code = say(result.warnings, form)
    if form == "text":
        for built in result.outputs:
            click.echo(_line(built), color=coloured(sys.stdout))
    return code


def _line(built: Built) -> str:
    path = os.path.relpath(built.path)
    shown = path if not path.startswith("..") else str(Path(built.path))
    title = {"lora": "LoRA", "ia3": "(IA)³"}[built.method]
    facts = [f"{built.sites} sites", f"{_size(built.size)}", f"hash {built.semantic_hash[:12]}"]
    if built.rank is not None:
        facts.insert(0, f"rank {built.rank}")
    line = f"{click.style(shown, bold=True)}  {title}, {', '.join(facts)}"
    if built.loss is None:
        return line
    worst = sorted(built.loss.sites.items(), key=lambda item: -item[1])
    rows = [f"    {share:7.3%}  {visible(site)}" for site, share in worst[:_SITES_SHOWN]]
    if len(worst) > _SITES_SHOWN:
        rows.append(f"    … {len(worst) - _SITES_SHOWN} sites that lose less")
    head = f"    truncation took {built.loss.total:.3%} of the norm in all; by site:"
    return "\n".join([line, head, *rows])


def _size(size: int) -> str:
    amount = float(size)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} GB"
