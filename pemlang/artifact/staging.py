"""Directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats import FORMATS
from pemlang.tensorfiles.disk import beside, flush_entry

CARD, PROVENANCE, SIGNATURE = "README.md", "provenance.json", "model.sig"
MARK = "<!-- made by pemlang -->"


@dataclass(frozen=True)
class Staged:
    """A finished directory, beside the place it will take."""

    at: Path
    target: Path


def check_target(target: Path, inputs: set[Path]) -> None:
    """Raise unless a directory may be written: PEM0510 it holds what this tool did not write,
    PEM0511 it is one of the inputs, or around one."""
    for path in sorted(inputs):
        if path.is_relative_to(target):
            within = "is" if path == target else "holds"
            raise Fault(
                "PEM0511",
                f"{visible(target)} {within} an input of this recipe",
                "save to another directory",
            )
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise Fault(
            "PEM0510", f"{visible(target)} is not a directory", "remove it, or save elsewhere"
        )
    names = sorted(path.name for path in target.iterdir())
    if not names:
        return
    foreign = [name for name in names if name not in own_files()]
    card = target / CARD
    ours = card.is_file() and MARK in card.read_text(encoding="utf-8", errors="replace")
    if foreign or not ours:
        what = f"it holds {listed(foreign)}" if foreign else "it has no README.md that says so"
        raise Fault(
            "PEM0510",
            f"{visible(target)} was not made by pemlang alone: {what}",
            "remove it, or save elsewhere",
        )


def own_files() -> set[str]:
    """The names of all that outputs of this tool consist of."""
    adapters = (name for record in FORMATS.values() for name in record.outputs)
    return {CARD, PROVENANCE, SIGNATURE, *adapters}


@dataclass
class Stage:
    """Finished directories, and the parents that were made for them."""

    directories: list[Staged] = field(default_factory=list)
    made: list[Path] = field(default_factory=list)


@contextlib.contextmanager
def staging() -> Iterator[Stage]:
    """A stage; on any failure, Ctrl-C included, nothing of it stays behind."""
    stage = Stage()
    try:
        yield stage
    finally:
        for staged in stage.directories:
            shutil.rmtree(staged.at, ignore_errors=True)
        for folder in stage.made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only where it is empty: nothing took its place


def new_stage(target: Path, stage: Stage) -> Path:
    """An empty directory beside a target, on the same file system."""
    missing = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    stage.made.extend(missing)
    at = beside(target)
    at.mkdir()
    stage.directories.append(Staged(at, target))
    return at


def flush(directory: Path) -> None:
    """Bring a directory and its files to disk."""
    for path in (*directory.iterdir(), directory):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def take_place(staged: Staged, inputs: set[Path]) -> None:
    """Move a staged directory to its target, replacing an earlier output of this tool.

    Builds into one parent directory wait for each other.
    """
    at, target = staged.at, staged.target
    with turn(target.parent):
        check_target(target, inputs)
        old = at.with_name(f"{at.name}.old")
        replaces = target.exists()
        if replaces:
            target.rename(old)
        try:
            at.rename(target)
        except BaseException:
            if replaces:
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
        flush_entry(target.parent)


@contextlib.contextmanager
def turn(directory: Path) -> Iterator[None]:
    """Wait until no other build moves anything inside a directory."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
