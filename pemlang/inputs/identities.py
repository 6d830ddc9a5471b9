"""What tells adapters apart that are known by content."""

from __future__ import annotations

import os
from pathlib import Path

from pemlang.inputs.hub import SCHEME


def seen_from(directory: Path, path: str, written_in: Path) -> str:
    """What an adapter's path, written in a recipe of some folder, is called in another."""
    if path.startswith(SCHEME) or Path(path).is_absolute():
        return path
    return Path(os.path.relpath(written_in / path, directory)).as_posix()


class Identities:
    """The identities of the adapters of one check. A copy elsewhere stays another adapter, as it
    is to a check that reads no tensor: which copy it is goes by the names of their places, so that
    it does not depend on the order of declarations."""

    def __init__(self) -> None:
        self._base = Path()
        self._order: dict[str, list[Path]] = {}
        self._sources: dict[str, dict[Path, str]] = {}

    def start(self, base: Path) -> None:
        """Begin a check of a recipe in a folder."""
        self._base = base
        self._order, self._sources = {}, {}

    def of(self, path: str, written_in: Path, directory: Path, digest: str) -> str:
        """The identity of an adapter.

        Args:
            path, written_in: as a recipe of a folder writes it.
            directory: where it is.
            digest: of its content.
        """
        source = seen_from(self._base, path, written_in)
        sources = self._sources.setdefault(digest, {})
        sources[directory] = min(sources.get(directory, source), source)
        order = self._order.setdefault(digest, [])
        if directory not in order:
            order.append(directory)
        copy = order.index(directory)
        return digest + f" copy {copy}" * bool(copy)

    def settle(self) -> bool:
        """Put copies in the order of their names; whether they were met in another, so that the
        check has to be made again."""
        changed = False
        for digest, sources in self._sources.items():
            order = sorted(sources, key=lambda directory: sources[directory])
            changed = changed or order != self._order[digest]
            self._order[digest] = order
        return changed
