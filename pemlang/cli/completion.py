"""`pem completion`: the tab key finishes commands, options and files."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pemlang.disk import replace_file

SHELLS = ("bash", "zsh", "fish")


@click.command(hidden=True)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.option("--install", is_flag=True, help="Write it to where the shell looks for it.")
def completion(shell: str | None, install: bool) -> int:
    """Print what makes a shell complete pem.

    For bash, zsh or fish; for the shell in $SHELL when none is named. To try it: eval "$(pem
    completion bash)". To keep it: pem completion --install.
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        raise click.UsageError(f"Say for which shell: {', '.join(SHELLS)}.")
    script = _script(shell)
    if not install:
        click.echo(script)
        return 0
    place = _place(shell)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, f"{script}\n".encode())
    except OSError as error:
        raise click.ClickException(f"Cannot write {place}: {error.strerror}") from None
    click.echo(f"{place} is written; a new {shell} completes pem.")
    if shell == "zsh":
        click.echo(
            f"It looks there if ~/.zshrc has, before compinit:\n\n    fpath=({place.parent} $fpath)"
        )
    return 0


def _script(shell: str) -> str:
    from click.shell_completion import get_completion_class

    from pemlang.cli.main import cli

    completion = get_completion_class(shell)
    assert completion is not None
    return completion(cli, {}, "pem", "_PEM_COMPLETE").source().strip()


def _place(shell: str) -> Path:
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return {
        "bash": data / "bash-completion" / "completions" / "pem",
        "zsh": data / "zsh" / "site-functions" / "_pem",
        "fish": config / "fish" / "completions" / "pem.fish",
    }[shell]
