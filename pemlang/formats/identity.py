"""What tells an adapter from any other: the digests of its files."""

from __future__ import annotations

from collections.abc import Iterable

from pemlang.formats.adapter import Adapter
from pemlang.tensorfiles.digests import file_digest, text_digest


def adapter_digest(adapter: Adapter) -> str:
    """The identity of an adapter's content; raises PEM0411."""
    return content_digest(digests_of(adapter).values())


def digests_of(adapter: Adapter) -> dict[str, str]:
    """BLAKE3 of each file that is read of an adapter, by its name, its statistics last where it
    has any; raises PEM0411."""
    files = adapter.format.files(adapter)
    files += [] if adapter.statistics is None else [adapter.statistics_file]
    return {file.name: file_digest(file) for file in files}


def content_digest(digests: Iterable[str]) -> str:
    """The identity of a content, from the digests of its files in the order of digests_of."""
    return text_digest("\n".join(digests))
