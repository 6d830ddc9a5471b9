"""Where an output is: a folder with all of it, or one file, with its provenance and its signature
beside it under names that start with the file's own."""

from __future__ import annotations

from pathlib import Path

from pemlang.disk import is_dir
from pemlang.tensorfiles.container import SUFFIXES

CARD, PROVENANCE, SIGNATURE = "README.md", "provenance.json", "model.sig"
_OF_A_FILE = {PROVENANCE: f".{PROVENANCE}", SIGNATURE: ".sig"}
_OF_SYSTEMS = (".DS_Store", "Thumbs.db", "desktop.ini")
_STARTS_OF_SYSTEMS = ("._", ".nfs", ".fuse_hidden")


def is_one_file(target: Path) -> bool:
    """Whether an output is one file, or would be: its name says so."""
    return target.suffix in SUFFIXES and not is_dir(target)


def folder_of(target: Path) -> Path:
    """The folder that the files of an output are in."""
    return target.parent if is_one_file(target) else target


def own_name(target: Path, name: str) -> str:
    """What an output's provenance or signature is called."""
    return target.name + _OF_A_FILE[name] if is_one_file(target) else name


def own_file(target: Path, name: str) -> Path:
    """Where an output's provenance or signature is."""
    return folder_of(target) / own_name(target, name)


def names_at(target: Path) -> list[str]:
    """The names of what is there of an output; of a folder all that is in it. Raises OSError."""
    if not is_one_file(target):
        return files_in(target)
    own = (target.name, own_name(target, PROVENANCE), own_name(target, SIGNATURE))
    return sorted(name for name in own if _is_there(target.with_name(name)))


def of_one_file(name: str) -> bool:
    """Whether a file may be of an output that is one file."""
    ends = ("", *_OF_A_FILE.values())
    return name.endswith(tuple(suffix + end for suffix in SUFFIXES for end in ends))


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def files_in(directory: Path) -> list[str]:
    """The names in a directory, without the files that a system leaves anywhere by itself; raises
    OSError."""
    return sorted(path.name for path in directory.iterdir() if not _is_of_system(path))


def _is_of_system(path: Path) -> bool:
    plain = path.is_file() and not path.is_symlink()
    return plain and (path.name in _OF_SYSTEMS or path.name.startswith(_STARTS_OF_SYSTEMS))
