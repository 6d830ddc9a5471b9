"""What tells an adapter from any other: the digests of its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pemlang.formats.adapter import STATISTICS, Adapter
from pemlang.tensorfiles.digests import text_digest


def adapter_digest(adapter: Adapter) -> str:
    """The identity of an adapter's content; raises as Adapter.digests."""
    return content_digest(adapter.digests.values())


def used_digest(adapter: Adapter, files: Mapping[str, str]) -> str:
    """The identity of what is used of an adapter, from the digests of its files: its statistics
    count where it is taken with them."""
    unused = STATISTICS if adapter.statistics is None else None
    return content_digest(digest for name, digest in files.items() if name != unused)


def content_digest(digests: Iterable[str]) -> str:
    """The identity of a content, from the digests of its files in the order of Adapter.digests."""
    return text_digest("\n".join(digests))
