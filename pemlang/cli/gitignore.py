"""Recipes that git leaves out, as their names end like those of certificates: which rules do so,
and the lines of a .gitignore that have git take them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, Report, visible
from pemlang.disk import replace_file
from pemlang.syntax.files import read_source
from pemlang.syntax.parser import parse

MOST_NAMED = 200  # recipes that git is asked about
NAME = ".gitignore"
BEGIN, END = b"# what pem git-setup wrote\n", b"# to here\n"
_BEGINS, _ENDS = BEGIN.rstrip(), END.rstrip()
_OURS = re.compile(
    rb"^%b\r?\n((?:(?!%b).*\n)*?)%b\r?(?:\n|\Z)" % (_BEGINS, _BEGINS, _ENDS), re.MULTILINE
)
"""What an earlier setup wrote, from comment to comment. Where one of the two is gone, or stands
twice, nothing that is a user's may be taken for it."""


@dataclass(frozen=True)
class LeftOut:
    """What one rule has git leave out.

    Attributes:
        rule: it, with its place, as git names it.
        recipes: their paths inside the repository.
        file: the .gitignore in which lines have git take them.
        lines: these.
    """

    rule: str
    recipes: Sequence[Path]
    file: Path
    lines: Sequence[str]


def left_out() -> list[LeftOut]:
    """The recipes that git ignores because of how they end, by the rule that has it do so."""
    if git("rev-parse", "--is-inside-work-tree") != "true":
        return []
    top = Path(git("rev-parse", "--show-toplevel"))
    names = git("-C", str(top), "ls-files", "-z", "-o", "-i", "--exclude-standard", "--", "*.pem")
    paths = [Path(name) for name in names.split("\0") if name]
    is_recipe = {path: _is_recipe(top / path) for path in paths}
    recipes = [path for path in paths if is_recipe[path]][:MOST_NAMED]
    if not recipes:
        return []
    asked = "\0".join(map(str, recipes))
    told = git("-C", str(top), "check-ignore", "-v", "-z", "--stdin", input=asked).split("\0")
    rules: dict[tuple[str, Path], list[Path]] = {}
    for file, line, pattern, name in zip(
        told[::4], told[1::4], told[2::4], told[3::4], strict=False
    ):
        if pattern.endswith(".pem"):
            # Rules that are not of the repository come before those of its own files.
            is_own = Path(file).name == NAME and not Path(file).is_absolute()
            place = Path(file) if is_own else Path(NAME)
            rules.setdefault((f"{file}:{line} ({pattern})", place), []).append(Path(name))
    mixed = {path.parent for path in paths if not is_recipe[path]}
    return [
        LeftOut(rule, named, top / place, _lines(named, place.parent, mixed))
        for (rule, place), named in rules.items()
    ]


def _lines(recipes: Sequence[Path], folder: Path, mixed: set[Path]) -> list[str]:
    """What has git take some recipes, in the .gitignore of a folder: all that end as they do, but
    where certificates lie among them, which stay out."""
    named = [path if path.parent in mixed else path.with_name("*.pem") for path in recipes]
    return list(dict.fromkeys(f"!/{_pattern(path.relative_to(folder))}" for path in named))


def _pattern(path: Path) -> str:
    """A path, as a pattern that matches it."""
    folder = "".join(f"{_escaped(part)}/" for part in path.parts[:-1])
    return folder + (path.name if path.name == "*.pem" else _escaped(path.name))


def _escaped(name: str) -> str:
    return re.sub(r"([\\*?\[])", r"\\\1", name).replace("\n", "?")


def take(rules: Sequence[LeftOut]) -> Mapping[Path, Sequence[str]]:
    """Write the lines below all others of their files, with those of an earlier time.

    Returns:
        What was written, by file.

    Raises:
        OSError: a file cannot be written, or is a link, which git does not follow.
    """
    new: dict[Path, list[str]] = {}
    for each in rules:
        new.setdefault(each.file, []).extend(each.lines)
    for file, lines in new.items():
        text = _read(file)
        earlier = [line.rstrip(b"\r\n") for part in _OURS.findall(text) for line in BytesIO(part)]
        rest = without_ours(text)
        gap = b"" if not rest or rest.endswith(b"\n") else b"\n"
        added = [line.encode(errors="surrogateescape") for line in lines]
        ours = b"".join(line + b"\n" for line in dict.fromkeys([*earlier, *added]))
        replace_file(file, rest + gap + BEGIN + ours + END)
    return new


def forget() -> None:
    """Take out what `take` wrote; raises OSError."""
    if git("rev-parse", "--is-inside-work-tree") != "true":
        return
    top = Path(git("rev-parse", "--show-toplevel"))
    names = git("-C", str(top), "ls-files", "-z", "-c", "-o", "--", NAME, f"*/{NAME}")
    for file in {top / name for name in names.split("\0") if name}:
        if not file.is_file():
            continue
        text = file.read_bytes()
        rest = without_ours(text)
        if rest and rest != text:
            replace_file(file, rest)
        elif rest != text:
            file.unlink()


def without_ours(text: bytes) -> bytes:
    """A file without what an earlier setup wrote between its two comments."""
    return _OURS.sub(b"", text)


def git(*words: str, input: str | None = None) -> str:
    """What git says; raises PEM0821."""
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


def _read(file: Path) -> bytes:
    if file.is_symlink():
        raise OSError(None, "it is a link, which git does not follow", str(file))
    return file.read_bytes() if file.exists() else b""


def _is_recipe(path: Path) -> bool:
    """Whether any of a file reads as a recipe: keys have many forms, and one that git takes by
    mistake is published."""
    try:
        return bool(parse(read_source(path), Report()).statements)
    except Fault:
        return False
