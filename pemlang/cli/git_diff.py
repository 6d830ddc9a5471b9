"""`pem git-diff`: what git runs for a recipe that changed, once `pem git-setup` has told it to."""

from __future__ import annotations

import os
import subprocess
import sys

import click


@click.command("git-diff", hidden=True)
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def git_diff(words: tuple[str, ...]) -> int:
    """Show how a recipe changed, in lines and in meaning.

    Git runs it, as `pem git-setup` sets it up, with PATH OLD-FILE OLD-HEX OLD-MODE NEW-FILE
    NEW-HEX NEW-MODE, and with NEW-PATH and what it says of a rename after them.
    """
    from pemlang.show.git_diff import Change, header, hunks, meaning

    if len(words) not in (7, 9):
        click.echo(f"* Unmerged path {words[0]}")
        return 0
    change = Change(*words)
    colour = _wants_colour()
    lines = hunks(change, colour)
    for line in header(change, lines):
        click.echo(click.style(line, bold=True), color=colour)
    click.echo(lines, nl=False, color=colour)
    for line in meaning(change):
        click.echo(click.style(line, fg="cyan"), color=colour)
    return 0


def _wants_colour() -> bool:
    """Whether git would colour what it writes here, to a terminal or to its pager."""
    shown = sys.stdout.isatty() or "GIT_PAGER_IN_USE" in os.environ
    done = subprocess.run(
        ["git", "config", "--get-colorbool", "color.diff", "true" if shown else "false"],
        capture_output=True,
        check=False,
    )
    return done.stdout.strip() == b"true"
