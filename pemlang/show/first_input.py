"""What a first recipe is written over."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from pemlang.dataclass import dataclass
from pemlang.formats import Adapter
from pemlang.formats.record import names_format
from pemlang.tensorfiles.container import without_suffix

WEIGHT, SUM = "weight", "merged"
"""What the param and the result of a first recipe are called."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class FirstInput:
    """An adapter or a model of a first recipe.

    Attributes:
        path: where it is, as the recipe writes it.
        adapter: what its headers say.
    """

    path: str
    adapter: Adapter

    @property
    def called(self) -> str:
        """What others most likely know it by: the last part of its path."""
        return last_part(self.path).casefold()

    @property
    def model(self) -> str:
        """What its base is most likely the same model by: the last part of its name."""
        return last_part(self.adapter.base or "").casefold()

    @property
    def naming(self) -> str:
        """How it names modules."""
        return names_format(self.adapter).naming

    @property
    def type(self) -> str:
        """What a declaration says of it after a colon, if it can be said in a word or two."""
        kinds, ranks = self.adapter.layout.shapes.kinds, set(self.adapter.layout.ranks.values())
        if len(kinds) > 1:
            return ""
        return f": {kinds[0]}(rank={ranks.pop()})" if len(ranks) == 1 else f": {kinds[0]}"


def grouped(
    inputs: Iterable[FirstInput], key: Callable[[FirstInput], Key]
) -> dict[Key, list[FirstInput]]:
    """Inputs by what they have in common."""
    groups: dict[Key, list[FirstInput]] = {}
    for one in inputs:
        groups.setdefault(key(one), []).append(one)
    return groups


def last_part(path: str) -> str:
    """The last part of a path, or of the name of a model, without a revision."""
    return without_suffix(path.rstrip("/").rpartition("/")[2].partition("@")[0])
