"""`pem verify`: hold an output to its provenance."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pemlang.cli.common import RECIPE_IS_WRONG, GivenPath, coloured, format_option, say
from pemlang.diagnostics import Fault, PemError

if TYPE_CHECKING:
    from pemlang.artifact.verify import FileVerdict

_MARKS = {
    "same": ("✓", "green"),
    "differs": ("✗", "red"),
    "missing": ("✗", "red"),
    "unchecked": ("·", "bright_black"),
}
_WORDS = {"same": "", "differs": "differs", "missing": "is not there", "unchecked": "not checked"}


@click.command()
@click.argument("directory", type=GivenPath())
@click.option(
    "--rebuild", is_flag=True, help="Build it once more, elsewhere, and compare every byte."
)
@click.option(
    "--from",
    "folder",
    type=GivenPath(file_okay=False, exists=True),
    metavar="DIR",
    help="Look for the recipe and its inputs here, where the output was moved away from them.",
)
@click.option(
    "--key",
    type=GivenPath(dir_okay=False, exists=True),
    metavar="FILE",
    help="Hold its signature to this public key, too.",
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), metavar="N", help="Rebuild on at most N threads."
)
@format_option("text", "json")
def verify(
    directory: str,
    rebuild: bool,
    folder: str | None,
    key: str | None,
    threads: int | None,
    form: str,
) -> int:
    """Check an output against its provenance, file by file.

    Takes every digest again, of its files and of what it was made from, and names what differs. Of
    an output that was moved away from its recipe, what it was made from is looked at with --from.
    """
    from pemlang.artifact.verify import verify as verified_by_digests
    from pemlang.pipeline.rebuild import rebuild as built_again
    from pemlang.show.written import VerifyJson
    from pemlang.tensorfiles.digests import unreadable

    place, inputs = Path(directory), None if folder is None else Path(folder)
    try:
        verified = verified_by_digests(place, inputs, None if key is None else Path(key))
        rebuilt = built_again(place, verified.provenance, inputs, threads) if rebuild else None
    except PemError as error:
        return say(error.diagnostics, form)
    except Fault as fault:
        return say([fault.at(None)], form)
    except OSError as error:
        return say([unreadable(Path(error.filename or directory), error).at(None)], form)
    verdicts = [*verified.outputs, *verified.materials, *(rebuilt or [])]
    holds = all(verdict.holds for verdict in verdicts)
    if form == "json":
        say([], form, VerifyJson(holds, verified.outputs, verified.materials, rebuilt))
        return 0 if holds else RECIPE_IS_WRONG
    _show("the output", verified.outputs)
    _show("what it was made from", verified.materials)
    if rebuilt is not None:
        _show("built once more", rebuilt)
    click.echo(_summary([verdict.state for verdict in verdicts]))
    return 0 if holds else RECIPE_IS_WRONG


def _show(title: str, verdicts: Sequence[FileVerdict]) -> None:
    click.echo(title)
    for verdict in verdicts:
        word = _WORDS[verdict.state]
        click.echo(f"  {_marked(verdict.state, verdict.what + (f' {word}' if word else ''))}")
        for line in verdict.details:
            click.echo(f"      {line}")


def _summary(states: Sequence[str]) -> str:
    """All of it in a line: what holds, what does not, and what was not looked at."""
    wrong, unchecked = states.count("differs") + states.count("missing"), states.count("unchecked")
    told = [f"{states.count('same')} of {len(states)} hold"]
    told += [f"{wrong} do{'es' * (wrong == 1)} not"] if wrong else []
    told += [f"{unchecked} {'was' if unchecked == 1 else 'were'} not checked"] if unchecked else []
    return ", ".join(told)


def _marked(state: str, text: str) -> str:
    mark, colour = _MARKS[state]
    return f"{click.style(mark, fg=colour) if coloured(sys.stdout) else mark} {text}"
