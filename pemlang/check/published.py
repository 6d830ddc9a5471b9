"""Recipes that are published, and what they are called: `house.merges`, of a library that is
installed, or `hf://org/name@revision/merges.pem`, on the hub."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pemlang.diagnostics import Fault, visible
from pemlang.syntax.files import SUFFIX

HUB = "hf://"
WEB = ("https://", "http://")  # of what stands for no recipe
_TOP = "hf://org/name".count("/") + 1


class PublishedRecipe(NamedTuple):
    """A recipe of a library, or on the hub.

    Attributes:
        name: what recipes and locks call it.
        path: where it lies, or what stands for that.
        data: its text; of what is too long no more than shows that.
        version: of the distribution that has it; on the hub the commit.
        distribution: the name of that; empty on the hub.
    """

    name: str
    path: Path
    data: bytes
    version: str
    distribution: str = ""

    @property
    def of(self) -> str:
        """What it came with: `house-merges 1.2.0`, or a commit."""
        return f"{self.distribution} {self.version}".strip()


def is_published(name: str) -> bool:
    """Whether what an import is called is the name of a published recipe, or of one of the standard
    library, and no path."""
    return name.startswith(HUB) or not name.endswith(SUFFIX)


def beside(name: str, path: str) -> str:
    """What a relative path stands for in a published recipe: another of its library or repository.

    Args:
        name: of the recipe in which the path is written.
        path: of a `.pem` file.

    Raises:
        Fault: PEM0391 it leads out of there.
    """
    on_hub = name.startswith(HUB)
    where, top = ("repository", _TOP) if on_hub else ("library", 1)
    *parts, _ = name.split("/" if on_hub else ".")
    for part in PurePosixPath(path).with_suffix("").parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
        if len(parts) < top:
            raise Fault(
                "PEM0391",
                f"{visible(path, 80)} is outside the {where} that imports it",
                f"put the file into the {where}, or import it by the name of its own library",
            )
    if on_hub:
        return "/".join(parts) + SUFFIX
    if any("." in part for part in parts):
        raise Fault(
            "PEM0391",
            f"{visible(path, 80)} has a dot in its name, which parts the names of a library",
            "rename the file in the library",
        )
    return ".".join(parts)
