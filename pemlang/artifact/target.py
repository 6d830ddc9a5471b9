"""Where an output may go: where nothing is, or an earlier output, as it was built."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pemlang.artifact.place import (
    PROVENANCE,
    SIGNATURE,
    files_in,
    folder_of,
    is_one_file,
    names_at,
    own_name,
)
from pemlang.artifact.provenance import read_provenance
from pemlang.artifact.staging import own_files
from pemlang.diagnostics import Fault, listed, visible
from pemlang.disk import lfs_pointer
from pemlang.tensorfiles.container import SUFFIXES
from pemlang.tensorfiles.digests import file_digest


def check_target(target: Path, inputs: set[Path], force: bool = False) -> None:
    """Raise unless an output may be written: as hold_place, and PEM0510 where one is that has
    been changed since it was built. It is nobody else's turn there.

    Args:
        target: the directory, or the one file.
        inputs: the directories and files that the recipe reads.
        force: whether an output that has been changed may be written too.
    """
    names = hold_place(target, inputs)
    changed = "" if force else _changed(target, names)
    if changed:
        raise Fault(
            "PEM0510",
            f"{visible(target)} has been changed since it was built: {changed}",
            "move it away, or let `pem build --force` replace it",
        )


def hold_place(target: Path, inputs: set[Path]) -> Sequence[str]:
    """Raise unless names alone let an output be written: PEM0511 it is one of the inputs, or
    around one, PEM0512 nothing can be made there, PEM0510 it holds what no build wrote.

    Args: as check_target.

    Returns:
        The names of what is there of an output.
    """
    for path in sorted(inputs):
        if path.is_relative_to(target):
            within = "is" if path == target else "holds"
            raise Fault(
                "PEM0511",
                f"{visible(target)} {within} an input of this recipe",
                "save to another path",
            )
    _hold_writable(next(folder for folder in target.parents if os.path.lexists(folder)))
    if is_one_file(target):
        return _hold_file(target)
    if target.suffix in SUFFIXES:
        raise Fault(
            "PEM0510",
            f"{visible(target)} is a folder, where one file is to be saved",
            "remove it, or save elsewhere",
        )
    if not os.path.lexists(target):
        return ()
    if target.is_symlink() or not target.is_dir():
        raise Fault(
            "PEM0510", f"{visible(target)} is not a directory", "remove it, or save elsewhere"
        )
    names = files_in(target)
    own = own_files() | _built(target)
    foreign = [name for name in names if name not in own or not _is_plain(target / name)]
    if foreign or (names and PROVENANCE not in names):
        what = f"it holds {listed(foreign)}" if foreign else f"it has no {PROVENANCE}"
        built = PROVENANCE in names
        raise Fault(
            "PEM0510",
            f"{visible(target)} was not made by pemlang alone: {what}",
            "move away what the build did not write, or save elsewhere"
            if built
            else "remove it, or save elsewhere",
            ("a build, with --force too, would remove it with the earlier output",) * built,
        )
    return names


def _hold_file(target: Path) -> Sequence[str]:
    """Raise PEM0510 unless one file may be written; the names of what is there of it."""
    names = names_at(target)
    provenance = own_name(target, PROVENANCE)
    foreign = [name for name in names if not _is_plain(target.with_name(name))]
    if foreign:
        raise Fault(
            "PEM0510", f"{visible(foreign[0])} is not a plain file", "remove it, or save elsewhere"
        )
    if names and provenance not in names:
        raise Fault(
            "PEM0510",
            f"{visible(target)} was not made by pemlang: there is no {visible(provenance)} beside "
            "it",
            "remove it, or save elsewhere",
        )
    return names


def _hold_writable(folder: Path) -> None:
    """Raise PEM0512 unless something can be made inside what is there."""
    if not folder.is_dir():
        raise Fault(
            "PEM0512",
            f"nothing can be written inside {visible(folder)}: it is not a directory",
            "save to another directory",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Fault(
            "PEM0512",
            f"nothing can be written inside {visible(folder)}: you have no permission",
            "change its permissions, or write elsewhere: pem build --out DIR",
        )


def _built(target: Path) -> set[str]:
    """The names of the files that a build says it has written to a directory."""
    try:
        return set(read_provenance(target).subjects)
    except Fault:
        return set()


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _changed(target: Path, names: Sequence[str]) -> str:
    """What of an output is not as it was built; empty where all is."""
    if not names:
        return ""
    try:
        subjects = read_provenance(target).subjects
    except Fault:
        return f"its {own_name(target, PROVENANCE)} is not what a build wrote"
    for name in names:
        path = folder_of(target) / name
        if name in {own_name(target, x) for x in (PROVENANCE, SIGNATURE)}:
            continue
        pointer = lfs_pointer(path)  # of a checkout without its large files
        if name in subjects and pointer == subjects[name].sha256:
            continue
        if name not in subjects or file_digest(path) != subjects[name].blake3:
            return f"its {name} is not what was built"
    return ""
