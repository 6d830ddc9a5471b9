"""`pem git-setup`: `git diff` of recipes and of tensors, said in what they mean."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click

from pemlang.cli.common import say
from pemlang.diagnostics import Fault, PemError, listed, placed, visible
from pemlang.disk import open_plain, replace_file

DRIVERS = {"diff.pem.command": "git-diff", "diff.safetensors.textconv": "git-tensors"}
MOST_NAMED = 200  # recipes that git is asked about
BEGIN, END = b"# what pem git-setup wrote\n", b"# to here\n"
ATTRIBUTES = BEGIN + b"*.pem diff=pem\n*.safetensors diff=safetensors\n" + END


@click.command("git-setup", hidden=True)
@click.option("--remove", is_flag=True, help="Take all of it out again.")
def git_setup(remove: bool) -> int:
    """Have git diff show what a change means.

    In this repository and on this machine alone: below the lines of a recipe that changed stands
    what has changed in its adapters, and a .safetensors file is shown by the dtypes, shapes, norms
    and means of its tensors. `git show` and `git log -p` do the former with --ext-diff. It writes
    to .git/config and to .git/info/attributes, and says where a .gitignore leaves recipes out.
    """
    try:
        with placed(None):
            _set_up(remove)
    except PemError as error:
        return say(error.diagnostics, "text")
    return 0


def _set_up(remove: bool) -> None:
    attributes = Path(_git("rev-parse", "--git-path", "info/attributes"))
    if remove:
        _forget()
        _write(attributes, _without(attributes))
        click.echo("git diff is as it was.")
        return
    _register()
    _write(attributes, ATTRIBUTES + _without(attributes))
    click.echo("git diff now shows what a change of a recipe, or of a .safetensors file, means.")
    for rule, recipes in _ignored().items():
        lines = dict.fromkeys(f"!/{recipe.with_name('*.pem')}" for recipe in recipes)
        click.echo(
            f"\n{visible(rule)} has git leave out recipes, as it does certificates: "
            f"{listed(map(str, recipes))}.\nBelow it write:\n"
            + "".join(f"    {visible(line)}\n" for line in lines),
            nl=False,
        )


def _ignored() -> dict[str, list[Path]]:
    """The recipes that git ignores because of how they end, by the rule that has it do so; their
    paths are those inside the repository."""
    if _git("rev-parse", "--is-inside-work-tree") != "true":
        return {}
    top = _git("rev-parse", "--show-toplevel")
    names = _git("-C", top, "ls-files", "-z", "-o", "-i", "--exclude-standard", "--", "*.pem")
    recipes = [name for name in names.split("\0") if name and not _is_certificate(Path(top, name))]
    if not recipes:
        return {}
    asked = "\0".join(recipes[:MOST_NAMED])
    told = _git("-C", top, "check-ignore", "-v", "-z", "--stdin", input=asked).split("\0")
    rules: dict[str, list[Path]] = {}
    for file, line, pattern, name in zip(
        told[::4], told[1::4], told[2::4], told[3::4], strict=False
    ):
        if pattern.endswith(".pem"):
            rules.setdefault(f"{file}:{line} ({pattern})", []).append(Path(name))
    return rules


def _is_certificate(path: Path) -> bool:
    try:
        with open_plain(path) as file:
            return file.read(1024).lstrip().startswith(b"-----BEGIN")
    except OSError:
        return True  # it is no recipe that anyone could add


def _register() -> None:
    before = {key: _configured(key) for key in DRIVERS}
    for key, command in DRIVERS.items():
        if before[key] and not _is_ours(before[key], command):
            raise click.ClickException(f"{key} is `{before[key]}`: unset it first.")
    for key, command in DRIVERS.items():
        _git("config", "--local", key, f"{_program()} {command} --")


def _forget() -> None:
    for key, command in DRIVERS.items():
        if _is_ours(_configured(key), command):
            _git("config", "--local", "--unset", key)


def _program() -> str:
    """What git's shell finds this program by."""
    # Without -P a module of the repository could take the place of one of ours.
    here = f"{shlex.quote(sys.executable)} -P -m pemlang"
    return "pem" if shutil.which("pem") else here


def _configured(key: str) -> str:
    return _git("config", "--local", "--default", "", "--get", key)


def _is_ours(value: str, command: str) -> bool:
    return value.endswith((f"pem {command} --", f"-m pemlang {command} --"))


def _without(attributes: Path) -> bytes:
    """The attributes that are there, without those of an earlier setup."""
    text = attributes.read_bytes() if attributes.is_file() else b""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    return before + after if begin and end else text


def _write(attributes: Path, text: bytes) -> None:
    if text:
        attributes.parent.mkdir(parents=True, exist_ok=True)
        replace_file(attributes, text)
    else:
        attributes.unlink(missing_ok=True)


def _git(*words: str, input: str | None = None) -> str:
    try:
        done = subprocess.run(
            ["git", *words],
            input=input,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )
    except OSError:
        raise Fault("PEM0821", "there is no git on this machine", "install git") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"git {words[0]} failed"]
        raise Fault(
            "PEM0821",
            f"git cannot be set up here: {visible(lines[0].removeprefix('fatal: '))}",
            "run it inside a repository that git can write to; `git init` makes this folder one",
        )
    return done.stdout.rstrip("\n")
