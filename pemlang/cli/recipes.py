"""The recipes that a command line means: files, those inside directories, and standard input."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pemlang.diagnostics import Diagnostic, Fault, listed, visible
from pemlang.disk import replace_file
from pemlang.syntax.files import MAX_BYTES, SUFFIX, is_certificate

STDIN = "-"


def recipes_at(paths: Iterable[str], mistakes: list[Diagnostic]) -> Iterator[str]:
    """The files that are meant, each once; directories that cannot be read are mistakes."""
    seen = set[str]()
    for given in paths:
        inside = given != STDIN and stat.S_ISDIR(mode_of(given))
        for path in _inside(given, mistakes) if inside else (given,):
            real = os.path.realpath(path)
            if real not in seen and not (inside and is_certificate(Path(path))):
                seen.add(real)
                yield path


def modules_named(given: str) -> list[str]:
    """The modules of the standard library that are meant: all by `std`, one by `std.paper`; none
    where it is a path. Raises PEM0203."""
    from pemlang.check.files import STD, std_module, std_modules

    names = std_modules()
    if given == "std":
        return names
    if given.startswith(STD) and given not in names and not mode_of(given):
        std_module(given)
    return [given] if given in names else []


def no_recipes(paths: Iterable[str]) -> Diagnostic:
    """PEM0100 of directories that hold no recipe."""
    why = f"there is no recipe in {listed(paths)}"
    return Fault(
        "PEM0100",
        why,
        "give the path of a recipe, which is called *.pem, or of a folder that has some",
    ).at(None)


def _inside(directory: str, mistakes: list[Diagnostic]) -> Iterator[str]:
    """The *.pem files of a directory and those in it, without hidden ones and links, which may
    lead anywhere."""
    pending = [directory]
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(directory) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
            entries = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            why = f"cannot read {visible(directory)}: {error.strerror or error}"
            mistakes.append(Fault("PEM0100", why, "check the path").at(None))
            continue
        recipes = [entry for entry in entries if entry.name.endswith(SUFFIX)]
        yield from (entry.path for entry in recipes if entry.is_file(follow_symlinks=False))
        pending += [e.path for e in reversed(entries) if e.is_dir(follow_symlinks=False)]


def mode_of(path: str) -> int:
    """What kind of file it is; 0 if nothing is there."""
    try:
        return Path(path).stat().st_mode
    except OSError:
        return 0


def read_stdin() -> bytes:
    """What stands on standard input, and no more than tells that it is too long for a recipe."""
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def replace_recipe(target: Path, text: str, name: str) -> None:
    """Give the file of a recipe another text, whole or not at all.

    Raises:
        Fault: PEM0512 when it cannot be written.
    """
    try:
        if not os.access(target, os.W_OK):
            raise PermissionError(None, "it is read-only")
        replace_file(target, text.encode(), mode=target.stat().st_mode & 0o7777)
    except OSError as error:
        raise Fault(
            "PEM0512",
            f"cannot write {visible(name)}: {error.strerror or error}",
            "make room or change its permissions; the file is as it was",
        ) from None
