"""`pem git-setup`: `git diff` of recipes and of tensors, said in what they mean."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from pemlang.cli.common import say
from pemlang.cli.gitignore import BEGIN, END, forget, git, left_out, take, without_ours
from pemlang.diagnostics import PemError, listed, placed, visible
from pemlang.disk import replace_file

DRIVERS = {"diff.pem.command": "git-diff", "diff.safetensors.textconv": "git-tensors"}
ATTRIBUTES = BEGIN + b"*.pem diff=pem\n*.safetensors diff=safetensors\n" + END


@click.command("git-setup", hidden=True)
@click.option("--remove", is_flag=True, help="Take all of it out again.")
@click.option(
    "--unignore",
    is_flag=True,
    help="Write the lines that have git take recipes that it leaves out.",
)
def git_setup(remove: bool, unignore: bool) -> int:
    """Have git diff show what a change means.

    In this repository and on this machine alone: below the lines of a recipe that changed stands
    what has changed in its adapters, and a .safetensors file is shown by the dtypes, shapes, norms
    and means of its tensors. `git show` and `git log -p` do the former with --ext-diff. It writes
    to .git/config and to .git/info/attributes, and says where a .gitignore leaves recipes out, as
    many do with certificates; --unignore writes what it says into that file.
    """
    if remove and unignore:
        raise click.UsageError("--remove takes out what --unignore writes: give one of them.")
    try:
        with placed(None):
            _set_up(remove, unignore)
    except PemError as error:
        return say(error.diagnostics, "text")
    except OSError as error:
        raise click.ClickException(
            f"{visible(error.filename)} cannot be written: {visible(error.strerror or error)}."
        ) from None
    return 0


def _set_up(remove: bool, unignore: bool) -> None:
    attributes = Path(git("rev-parse", "--git-path", "info/attributes"))
    if remove:
        _forget()
        _write(attributes, without_ours(_read(attributes)))
        forget()
        click.echo("git diff is as it was.")
        return
    _register()
    _write(attributes, ATTRIBUTES + without_ours(_read(attributes)))
    click.echo("git diff now shows what a change of a recipe, or of a .safetensors file, means.")
    rules = left_out()
    if unignore:
        for file, lines in take(rules).items():
            click.echo(f"\n{visible(file)} has git take recipes now:\n{_listing(lines)}", nl=False)
        return
    for each in rules:
        click.echo(
            f"\n{visible(each.rule)} has git leave out recipes, as it does certificates: "
            f"{listed(map(str, each.recipes))}.\nIn {visible(each.file)}, below it, write:\n"
            f"{_listing(each.lines)}",
            nl=False,
        )
    if rules:
        click.echo("\n`pem git-setup --unignore` writes this.")


def _listing(lines: Iterable[str]) -> str:
    return "".join(f"    {visible(line)}\n" for line in lines)


def _read(attributes: Path) -> bytes:
    return attributes.read_bytes() if attributes.is_file() else b""


def _register() -> None:
    before = {key: _configured(key) for key in DRIVERS}
    for key, command in DRIVERS.items():
        if before[key] and not _is_ours(before[key], command):
            raise click.ClickException(f"{key} is `{before[key]}`: unset it first.")
    for key, command in DRIVERS.items():
        git("config", "--local", key, f"{_program()} {command} --")


def _forget() -> None:
    for key, command in DRIVERS.items():
        if _is_ours(_configured(key), command):
            git("config", "--local", "--unset", key)


def _program() -> str:
    """What git's shell finds this program by."""
    # Without -P a module of the repository could take the place of one of ours.
    here = f"{shlex.quote(sys.executable)} -P -m pemlang"
    return "pem" if shutil.which("pem") else here


def _configured(key: str) -> str:
    return git("config", "--local", "--default", "", "--get", key)


def _is_ours(value: str, command: str) -> bool:
    return value.endswith((f"pem {command} --", f"-m pemlang {command} --"))


def _write(attributes: Path, text: bytes) -> None:
    if text:
        attributes.parent.mkdir(parents=True, exist_ok=True)
        replace_file(attributes, text)
    else:
        attributes.unlink(missing_ok=True)
