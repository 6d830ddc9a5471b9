"""What commands that write and verify files give as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from pemlang.artifact.verify import FileVerdict
from pemlang.artifact.write import Built
from pemlang.dataclass import dataclass
from pemlang.show.recipe_diff import RecipeDiffJson


@dataclass(frozen=True)
class BuildJson:
    """`pem build`: what was built, or is up to date; `recipe` is the text that -e stands for,
    `printed` what recipes print."""

    outputs: Sequence[Built]
    recipe: str | None = None
    printed: Sequence[str] = ()


@dataclass(frozen=True)
class LockFileJson:
    """A pem.lock that was written, and what it says that it did not say before, a line each."""

    path: str
    changes: Sequence[str]


@dataclass(frozen=True)
class LockJson:
    """`pem lock`; with --upgrade, what the library changes in each recipe."""

    locks: Sequence[LockFileJson]
    upgrades: Sequence[RecipeDiffJson] = ()


@dataclass(frozen=True)
class InitJson:
    """`pem init`: the recipe that was written, and its text."""

    path: str
    recipe: str


@dataclass(frozen=True)
class ConvertJson:
    """`pem convert`: the recipe that was written, and its text."""

    path: str
    recipe: str


@dataclass(frozen=True)
class SignJson:
    """`pem sign`: the signature that was written."""

    path: str


@dataclass(frozen=True)
class RemovedJson:
    """What a killed command left, with its size in bytes; a temporary folder's is not taken."""

    path: str
    size: int | None


@dataclass(frozen=True)
class CleanJson:
    """`pem clean`: what was removed."""

    removed: Sequence[RemovedJson]


@dataclass(frozen=True)
class VerifyJson:
    """`pem verify`: what became of each file, the signature among those of the output."""

    holds: bool
    outputs: Sequence[FileVerdict]
    materials: Sequence[FileVerdict]
    rebuilt: Sequence[FileVerdict] | None
