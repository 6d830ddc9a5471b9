"""Libraries that are installed: Python distributions that say in an entry point of the group
`pemlang.libraries` what they are called and which of their packages holds their recipes. Nothing of
them is imported."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pemlang.check.files import std_modules
from pemlang.check.published import PublishedRecipe
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, nearest, visible
from pemlang.disk import is_dir, is_file
from pemlang.syntax.files import SUFFIX, read_bytes
from pemlang.tensorfiles.jsons import parse_json

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP = "pemlang.libraries"
_PACKAGE = re.compile(r"\w+(\.\w+)*")
_LISTED = 1000  # files of a library that a message looks through


@dataclass(frozen=True)
class Library:
    """A library that is installed.

    Attributes:
        name: what recipes call it.
        folder: holds its recipes.
        distribution, version: what it came with.
    """

    name: str
    folder: Path
    distribution: str
    version: str

    def recipe(self, name: str) -> PublishedRecipe:
        """One of its recipes, by its whole name.

        Raises:
            Fault: PEM0203 it has none of the name, PEM0390 it leads out of the library, and as
                read_bytes.
        """
        *folders, last = name.split(".")
        path = self.folder.joinpath(*folders[1:], last + SUFFIX)
        if not folders or not is_file(path):
            raise _not_there(name, sorted(self.modules()))
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise Fault(
                "PEM0390",
                f"{visible(name, 80)} is a link to what is outside its library",
                f"install {visible(self.distribution, 80)} again, from where you trust it",
            )
        return PublishedRecipe(
            name, path.resolve(), read_bytes(path, name), self.version, self.distribution
        )

    def modules(self) -> Iterator[str]:
        """The names of its recipes."""
        for path in islice(self.folder.rglob(f"*{SUFFIX}"), _LISTED):
            parts = path.relative_to(self.folder).with_suffix("").parts
            if all(part.isidentifier() for part in parts):
                yield ".".join([self.name, *parts])


def installed(name: str) -> PublishedRecipe:
    """A recipe of a library, by its name, such as `house.merges`.

    Raises:
        Fault: PEM0203 it is not there, PEM0390 the library is not as it should be, and as
            read_bytes.
    """
    entries = libraries(name.partition(".")[0])
    if not entries:
        raise _not_there(name, [*std_modules(), *installed_modules()])
    if len(entries) > 1:
        both = " and ".join(sorted(entry.dist.name for entry in entries if entry.dist))
        raise Fault(
            "PEM0390",
            f"two distributions have a library of the name: {visible(both, 200)}",
            "uninstall one of them",
        )
    if name.rpartition(".")[2] == "pem":
        raise Fault(
            "PEM0390",
            f"{visible(name, 80)} reads as the name of a file",
            "call the recipe something else in the library",
        )
    return _library(entries[0]).recipe(name)


def libraries(name: str | None = None) -> list[EntryPoint]:
    """The entry points of libraries that are installed; of one name, where it is given. Raises
    PEM0390 where what is installed cannot be read."""
    try:
        entries = _entries(tuple(map(_state, sys.path)))
        return [entry for entry in entries if name in (None, entry.name)]
    except Exception as error:  # of what is damaged importlib raises what it meets
        raise Fault(
            "PEM0390",
            f"what pip has installed cannot be read: {visible(str(error), 200)}",
            "install again what is damaged, or make a new environment",
        ) from None


@lru_cache(maxsize=1)
def _entries(path: tuple[object, ...]) -> tuple[EntryPoint, ...]:
    """All of them, while the path and what lies in its folders are the same, which pip changes: a
    recipe may import many, and to look takes six milliseconds for each hundred distributions."""
    from importlib.metadata import entry_points

    entries = entry_points(group=GROUP)
    whole = (entry for entry in entries if entry.dist and entry.dist.name and entry.dist.version)
    return tuple(whole)


def _state(place: str) -> object:
    """What differs once something was put into a folder of the path, or taken out."""
    try:
        status = Path(place).stat()
    except OSError:
        return place
    return place, status.st_dev, status.st_ino, status.st_mtime_ns


def _library(entry: EntryPoint) -> Library:
    assert entry.dist is not None
    folder = _folder(entry)
    if folder is None:
        raise Fault(
            "PEM0390",
            f"{visible(entry.dist.name, 80)} says that its recipes are in "
            f"{visible(entry.value, 80)!r}, and no such package is installed with it",
            'name the package that has them: [project.entry-points."pemlang.libraries"] '
            f'{visible(entry.name, 40)} = "package"',
        )
    return Library(entry.name, folder, entry.dist.name, entry.dist.version)


def _folder(entry: EntryPoint) -> Path | None:
    """The folder of the package that an entry point names."""
    assert entry.dist is not None
    if not _PACKAGE.fullmatch(entry.value):
        return None
    project = _project(entry.dist)
    roots = (
        [Path(str(entry.dist.locate_file("")))] if project is None else [project / "src", project]
    )
    folders = (root.joinpath(*entry.value.split(".")) for root in roots)
    return next(filter(is_dir, folders), None)


def _project(distribution: Distribution) -> Path | None:
    """The folder that a distribution is being worked on in, where pip installed it as that:
    its direct_url.json, PEP 610."""
    try:
        origin = parse_json((distribution.read_text("direct_url.json") or "").encode())
        is_dict = isinstance(origin, dict) and isinstance(origin.get("dir_info"), dict)
        if not is_dict or origin["dir_info"].get("editable") is not True:
            return None
        url = urlsplit(str(origin.get("url")))
    except ValueError:
        return None
    return Path(url2pathname(url.path)) if url.scheme == "file" else None


def installed_modules() -> list[str]:
    """The names of the recipes of all libraries; raises as libraries."""
    names = set[str]()
    for entry in libraries():
        try:
            names |= set(_library(entry).modules())
        except Fault:  # one that is wrong is told where it is asked for
            continue
    return sorted(names)


def _not_there(name: str, names: list[str]) -> Fault:
    close = nearest(name, names)
    help = f"name one that there is: {close or listed(names, 8)}"
    if not names:
        help = "install a version of the library that has it"
    return Fault("PEM0203", f"there is no module `{visible(name, 60)}`", help)
