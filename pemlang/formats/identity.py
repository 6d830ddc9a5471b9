"""What tells an adapter from any other: the digests of its files."""

from __future__ import annotations

from collections.abc import Iterable

from pemlang.formats.adapter import Adapter
from pemlang.tensorfiles.digests import text_digest


def adapter_digest(adapter: Adapter) -> str:
    """The identity of an adapter's content; raises as Adapter.digests."""
    return content_digest(adapter.digests.values())


def content_digest(digests: Iterable[str]) -> str:
    """The identity of a content, from the digests of its files in the order of Adapter.digests."""
    return text_digest("\n".join(digests))
