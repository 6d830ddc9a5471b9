"""Norms of adapters, for what is told of a place: measured in the background, and kept."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pemlang.diagnostics import Fault
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import Leaf
from pemlang.graph.node import AdapterNode, NumberNode
from pemlang.graph.normal import Mix, Sum
from pemlang.pipeline.reading import measurable, reading
from pemlang.tensorfiles.digests import hold_unchanged

MOST_BYTES = 256 << 20
"""Of the tensors that an adapter is made from: of more no norm is told."""

MOST_KEPT = 1000
PATIENCE = 0.3
"""Seconds that an answer waits for a norm; the next one has it."""


class NormMeter:
    """Measures norms one after another in a thread, and keeps them until files change."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "norm")
        self._norms: dict[Hashable, asyncio.Future[float | None]] = {}
        self._keys = 0

    async def norm(self, graph: Graph, adapter: AdapterNode) -> float | None:
        """‖Δ‖ over all sites; None where it is not known soon, where it takes long to measure, and
        where it cannot be.

        Args:
            graph: what the adapter stands in.
            adapter: a value of a recipe.
        """
        nodes = graph.order([adapter])
        quick = all(isinstance(node, Leaf | Sum | Mix | NumberNode) for node in nodes)
        if adapter.type.needs_base or not quick:
            return None
        files = [x.adapter for x in nodes if isinstance(x, Leaf)]
        tensors = (x for file in files for x in file.header.entries.values())
        if sum(x.end - x.start for x in tensors) > MOST_BYTES:
            return None
        seen = {path: identity for file in files for path, identity in file.seen.items()}
        key = (adapter.key, *seen.items())
        norm = self._norms.get(key)
        if norm is None or (norm.done() and norm.result() is None):
            if len(self._norms) >= MOST_KEPT:
                self._norms.clear()
            norm = asyncio.get_running_loop().run_in_executor(
                self._thread, self._measured, graph, adapter, seen, self._keys
            )
            self._norms[key] = norm
        await asyncio.wait([norm], timeout=PATIENCE)
        return norm.result() if norm.done() else None

    def put_off(self) -> None:
        """A key was pressed: what is being measured makes room for the check."""
        self._keys += 1

    def stop(self) -> None:
        """End what is running."""
        self.put_off()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _measured(
        self, graph: Graph, adapter: AdapterNode, seen: Mapping[Path, tuple[int, ...]], keys: int
    ) -> float | None:
        """‖Δ‖; None where a key is pressed meanwhile, or the files are not what was seen."""
        squares = 0.0
        try:
            with reading(graph) as reader, measurable("the adapter"):
                for site in sorted(adapter.shapes):
                    if keys != self._keys:
                        return None
                    [part] = reader.parts([adapter], site)
                    squares += 0.0 if part is None else part.norm() ** 2
            hold_unchanged(seen)
        except Fault:  # a build says what is wrong with its files
            return None
        return math.sqrt(squares)
