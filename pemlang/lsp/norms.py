"""Norms of adapters, for what is told of a place: measured in the background, and kept."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor

from pemlang.diagnostics import Fault
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import Leaf
from pemlang.graph.node import AdapterNode, NumberNode
from pemlang.graph.normal import Mix, Sum
from pemlang.pipeline.reading import measurable, reading

MOST_BYTES = 256 << 20
"""Of the tensors that an adapter is made from: of more no norm is told."""

MOST_KEPT = 1000
PATIENCE = 0.3
"""Seconds that an answer waits for a norm; the next one has it."""


class NormMeter:
    """Measures norms one after another in a thread, and keeps them until files change."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "norm")
        self._kept: dict[Hashable, float] = {}
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
        key = (adapter.key, *(seen for file in files for seen in file.seen.items()))
        if key not in self._kept:
            loop = asyncio.get_running_loop()
            measured = loop.run_in_executor(
                self._thread, self._measure, key, graph, adapter, self._keys
            )
            await asyncio.wait([measured], timeout=PATIENCE)
        return self._kept.get(key)

    def put_off(self) -> None:
        """A key was pressed: what is being measured makes room for the check."""
        self._keys += 1

    def stop(self) -> None:
        """End what is running."""
        self.put_off()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _measure(self, key: Hashable, graph: Graph, adapter: AdapterNode, keys: int) -> None:
        squares = 0.0
        try:
            with reading(graph) as reader, measurable("the adapter"):
                for site in sorted(adapter.shapes):
                    if keys != self._keys or key in self._kept:
                        return
                    [part] = reader.parts([adapter], site)
                    squares += 0.0 if part is None else part.norm() ** 2
        except Fault:  # a build says what is wrong with its files
            return
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[key] = math.sqrt(squares)
