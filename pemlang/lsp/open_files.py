"""The recipes that an editor has open: their texts are those of its buffers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pygls.uris import from_fs_path, to_fs_path

from pemlang.check.published import PublishedRecipe
from pemlang.diagnostics import Fault, visible
from pemlang.inputs.hub import SCHEME
from pemlang.inputs.resolver import published_now
from pemlang.source import Source
from pemlang.syntax.files import decoded, read_source

NOT_ASKED = "PEM0385"
"""The code of what the hub has not been asked for yet."""


def not_known_yet(text: str, help: str) -> Fault:
    """PEM0385 for what is on the hub."""
    return Fault(NOT_ASKED, f"{visible(text, 80)} is not known yet", help)


def path_of(uri: str) -> Path:
    """The file that an address stands for; of what is in no file yet, one in the folder in which
    the server runs."""
    parts = urlsplit(uri)
    place = to_fs_path(uri) if parts.scheme == "file" else None
    try:
        return Path(place or Path(parts.path).name).resolve()
    except (OSError, ValueError, RuntimeError):
        return Path("untitled.pem").absolute()


def uri_of(path: Path) -> str:
    """The address of a file."""
    return from_fs_path(str(path)) or path.as_uri()


class OpenFiles:
    """The texts of open recipes, by their files."""

    def __init__(self) -> None:
        self._texts: dict[Path, str] = {}
        self._uris: dict[Path, str] = {}
        self._versions: dict[Path, int] = {}
        self._memory: dict[tuple[str, str], object] = {}

    def __contains__(self, path: Path) -> bool:
        return path in self._texts

    def __iter__(self) -> Iterator[Path]:
        return iter(tuple(self._texts))

    def put(self, uri: str, text: str, version: int) -> Path:
        """Take the text of a buffer; gives its file."""
        path = path_of(uri)
        self._texts[path], self._uris[path], self._versions[path] = text, uri, version
        return path

    def close(self, uri: str) -> Path:
        """Forget a buffer; gives its file."""
        path = path_of(uri)
        for known in (self._texts, self._uris, self._versions):
            known.pop(path, None)
        return path

    def version(self, path: Path) -> int | None:
        """The editor's number of a text, of one that is open."""
        return self._versions.get(path)

    def uri(self, path: Path) -> str:
        """The address of a file, as the editor writes that of one that it has open."""
        return self._uris.get(path) or uri_of(path)

    def text(self, path: Path) -> str:
        """The text of a buffer, each line of which ends in one character."""
        return self._texts[path].replace("\r\n", "\n")

    def published(self, name: str, version: str | None = None) -> PublishedRecipe:
        """A recipe of an installed library; raises PEM0385 for one on the hub, which no key waits
        for."""
        if name.startswith(SCHEME):
            raise not_known_yet(name, "look at it with `pem check`, which asks the hub")
        return published_now(name, version)

    def recipe(self, path: Path, name: str) -> Source:
        """A recipe, from its buffer where it has one.

        Args:
            path: the file.
            name: what messages call it.

        Raises:
            Fault: as decoded, and read_source.
        """
        text = self._texts.get(path)
        if text is None:
            return read_source(path, name)
        try:
            read = decoded(text.encode(), name, path.parent)
        except UnicodeEncodeError:
            raise Fault(
                "PEM0102", "half a character stands in the text", "delete it, or type it again"
            ) from None
        return Source(name, read.text, read.directory, self._memory)
