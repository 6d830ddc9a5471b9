"""The typed DAG of a recipe: interned nodes, and the networkx graph of them.

Two expressions that are written alike, or that the rewrites make alike, are one node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from pemlang.diagnostics import Fault
from pemlang.graph.leaves import Leaf, Stored, combined_leaves, in_order
from pemlang.graph.node import AdapterNode, ModelNode, Node, NodeKind
from pemlang.graph.types import AdapterType, ModelType
from pemlang.source import Span

if TYPE_CHECKING:
    import networkx as nx

MAX_DEPTH = 200
MAX_NUMBERS = 500_000  # a step with a schedule takes one for each site


class Graph:
    """Interns nodes and keeps them with what they are made from.

    Attributes:
        declared: where a recipe declares an adapter, for help.
    """

    def __init__(self) -> None:
        self.declared: dict[Node, Span] = {}
        self._interned: dict[str, Node] = {}
        self._nx: nx.DiGraph[Node] | None = None
        self._numbers = 0

    def count(self, numbers: int) -> None:
        """Take note of some numbers that differ by site; raises PEM0333 where they are too many."""
        self._numbers += numbers
        if self._numbers > MAX_NUMBERS:
            raise Fault(
                "PEM0333",
                f"the weights by site of this recipe come to more than {MAX_NUMBERS:,} numbers",
                "multiply schedules with each other before the adapters, or give a weight that is "
                "one number",
            )

    @property
    def nx(self) -> nx.DiGraph[Node]:
        """The graph: edges run from an argument to what is made from it; every node has `type`
        and `kind`.

        It is made when it is first asked for: importing networkx takes as long as checking a
        recipe.
        """
        if self._nx is None:
            import networkx

            self._nx = networkx.DiGraph()
            for node in self._interned.values():
                self._draw(node)
        return self._nx

    def _draw(self, node: Node) -> None:
        assert self._nx is not None
        self._nx.add_node(node, kind=node.kind, type=node.type)
        for source in node.sources:
            self._nx.add_edge(source, node)

    def add(self, node: NodeKind) -> NodeKind:
        """The node that is there already of its key, or itself; raises PEM0332."""
        if node.depth > MAX_DEPTH:
            raise Fault(
                "PEM0332",
                f"this value is built up in more than {MAX_DEPTH} steps, each on the one before",
                "save a part of it and go on from there",
            )
        first = self._interned.setdefault(node.key, node)
        assert type(first) is type(node)
        if first is node and self._nx is not None:
            self._draw(node)
        return first

    def order(self, roots: Iterable[Node]) -> list[Node]:
        """Everything the roots are made from and the roots, arguments first; in an order that
        depends on keys alone."""
        made_from: dict[Node, tuple[Node, ...]] = {}
        pending = list(roots)
        while pending:
            node = pending.pop()
            if node not in made_from:
                made_from[node] = node.sources
                pending += node.sources
        sorter = TopologicalSorter(made_from)
        sorter.prepare()
        ordered: list[Node] = []
        while sorter:
            ready = sorted(sorter.get_ready(), key=lambda node: node.key)
            ordered += ready
            sorter.done(*ready)
        return ordered

    def leaves(self, root: Node) -> list[Stored]:
        """The adapters and models a value is made from, in canonical order."""
        return [node for node in self.order([root]) if isinstance(node, Stored)]

    def parts(self, root: Node) -> list[Stored]:
        """The leaves whose parameters a value combines, in canonical order; not those that only
        lend it a measured number."""
        return combined_leaves(root)

    def all_leaves(self) -> list[Stored]:
        """Every adapter and model in files of the graph, in canonical order."""
        return in_order(node for node in self._interned.values() if isinstance(node, Stored))

    def weighed(self) -> set[Leaf]:
        """The adapters whose statistics anything goes by."""
        nodes = [x for x in self._interned.values() if isinstance(x, AdapterNode)]
        return {x for node in nodes if node.by_statistics for x in node.args if isinstance(x, Leaf)}

    def invariant(self) -> None:
        """What holds of every graph; raises AssertionError where it does not.

        A key stands for one node, and is the digest of its parts: no two nodes are made alike.
        The edges are the arguments and the nodes in parts; there is no cycle. A node's type is of
        the kind that its class has.
        """
        for key, node in self._interned.items():
            again = replace(node)
            assert key == node.key == again.key, "a key that is not the digest of its parts"
            assert node.sources == again.sources, "sources that are not the arguments"
            assert isinstance(node.type, AdapterType) == isinstance(node, AdapterNode)
            assert isinstance(node.type, ModelType) == isinstance(node, ModelNode)
            assert all(source.depth < node.depth for source in node.sources)
            assert all(self._interned.get(x.key) is x for x in node.sources), (
                "a node is made from what is not in the graph"
            )
            assert node.depth <= MAX_DEPTH
            node.invariant()
        nodes = self._interned.values()
        edges = {(source, node) for node in nodes for source in node.sources}
        assert set(self.nx.edges) == edges, "edges that are not the arguments"
        drawn = {node: {"kind": node.kind, "type": node.type} for node in nodes}
        assert dict(self.nx.nodes.items()) == drawn, "nodes drawn otherwise"
