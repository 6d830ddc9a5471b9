"""Tensors of input adapters, read through a memory map and held to be finite; and digests."""

from __future__ import annotations

import hashlib
import mmap
from functools import lru_cache
from pathlib import Path

import numpy as np

from pemlang.diagnostics import Fault, visible
from pemlang.formats.adapter import Adapter
from pemlang.graph.node import Node
from pemlang.kernels.dtypes import Array, decode
from pemlang.kernels.factors import Factors


class Tensors:
    """The tensors of some adapters."""

    def __init__(self, work: np.dtype[np.floating]) -> None:
        self.work = work
        self._maps: dict[Path, memoryview] = {}

    def raw(self, adapter: Adapter, key: str) -> memoryview:
        """The bytes of one tensor; raises PEM0412 when the file has become shorter."""
        entry = adapter.header.entries[key]
        start = adapter.header.data_start
        found = self._map(adapter.weights)[start + entry.start : start + entry.end]
        if len(found) != entry.end - entry.start:
            raise Fault(
                "PEM0412",
                f"{visible(adapter.weights)} became shorter while it was read",
                "download or save it again",
            )
        return found

    def array(self, adapter: Adapter, key: str) -> Array:
        """One tensor as numbers; raises PEM0502 when one of them is NaN or infinite."""
        entry = adapter.header.entries[key]
        found = decode(self.raw(adapter, key), entry.dtype, entry.shape, self.work)
        if not np.isfinite(found).all():
            what = "NaN" if np.isnan(found).any() else "an infinite number"
            raise Fault(
                "PEM0502",
                f"{visible(key)} of {visible(adapter.directory)} holds {what}",
                "the adapter is damaged; train or download it again",
            )
        return found

    def factors(self, node: Node, site: str) -> Factors:
        """The parameters of a leaf at a site."""
        adapter = node.adapter
        assert adapter is not None
        keys = adapter.layout.factors[site]
        if adapter.method == "ia3":
            # g = l − 1 in float64: the subtraction and the way back then round once.
            gain = self.array(adapter, keys[0]).astype(np.float64)
            return Factors(gain - 1.0, None)
        a, b = (self.array(adapter, key) for key in keys)
        return Factors(a, b, adapter.scales[site])

    def _map(self, path: Path) -> memoryview:
        if path not in self._maps:
            try:
                with path.open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or error
                raise Fault(
                    "PEM0411", f"cannot read {visible(path)}: {why}", "check the file"
                ) from None
            self._maps[path] = memoryview(mapped)
        return self._maps[path]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, remembered while the file stays as it is."""
    try:
        stat = path.stat()
        return _digest(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise Fault(
            "PEM0411", f"cannot read {visible(path)}: {error.strerror or error}", "check the file"
        ) from None


@lru_cache(maxsize=4096)
def _digest(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def adapter_digest(adapter: Adapter) -> str:
    """The identity of an adapter's content: its config's and its tensors' digests."""
    both = [file_digest(adapter.directory / "adapter_config.json"), file_digest(adapter.weights)]
    return hashlib.sha256("\n".join(both).encode()).hexdigest()
