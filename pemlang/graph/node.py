"""The typed DAG of a recipe: interned nodes, and the networkx graph of them.

Two expressions that are written alike, or that the rewrites make alike, are one node.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from pemlang.diagnostics import Fault
from pemlang.formats.peft import Adapter
from pemlang.modules.sites import Method, Shapes

if TYPE_CHECKING:
    import networkx as nx

MAX_DEPTH = 200


@dataclass(frozen=True, slots=True)
class NumberType:
    """A number that is known only once weights are read."""


@dataclass(frozen=True, slots=True)
class AdapterType:
    """The type of an adapter expression; ranks and scales follow from its node.

    `fan_in_fan_out` says that the base stores its weights transposed, as GPT-2 does.
    """

    method: Method
    base: str | None
    shapes: Shapes
    fan_in_fan_out: bool = False


@dataclass(frozen=True, slots=True)
class ModelType:
    """The type of whole weights: their base, and their tensors as dense sites."""

    base: str | None
    shapes: Shapes


NodeType = NumberType | AdapterType | ModelType


class Node:
    """One value of the graph.

    Attributes:
        op: what it is: `leaf`, `sum`, `mix`, a function of operators that are no linear
            combination (`compress`, …), a measure, or number arithmetic.
        args: the nodes it is made from.
        attrs: what else it is made from, hashable and JSON-able.
        type: its type.
        adapter: the files of a leaf.
        key: a digest of everything above: equal keys, equal values. Nodes sort by it, so that an
            order never depends on how a recipe was written.
    """

    __slots__ = ("adapter", "args", "attrs", "depth", "key", "op", "type")

    depth: int
    key: str

    def __init__(
        self,
        op: str,
        args: tuple[Node, ...],
        attrs: tuple[Any, ...],
        type: NodeType,
        adapter: Adapter | None,
    ) -> None:
        self.op, self.args, self.attrs, self.type, self.adapter = op, args, attrs, type, adapter
        self.depth = 1 + max((node.depth for node in (*args, *_nodes_in(attrs))), default=0)
        parts = [op, [arg.key for arg in args], plain(attrs), plain(type)]
        said = json.dumps(parts, ensure_ascii=False)
        self.key = hashlib.sha256(said.encode()).hexdigest()

    @property
    def sources(self) -> tuple[Node, ...]:
        """The nodes it is made from, measured numbers included."""
        return (*self.args, *_nodes_in(self.attrs))

    def __repr__(self) -> str:
        return f"<{self.op} {self.key[:8]}>"


Num = Fraction | Node
"""A number of the algebra: exact, or a node whose value is measured from weights."""


def plain(value: Any) -> Any:
    """Attributes as JSON, the same for equal values."""
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    if isinstance(value, Node):
        return {"node": value.key}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, Shapes):
        return value.digest
    if isinstance(value, NumberType | AdapterType | ModelType):
        return [plain(getattr(value, field.name)) for field in fields(value)]
    return value


class Graph:
    """Interns nodes and keeps them with what they are made from."""

    def __init__(self) -> None:
        self._interned: dict[str, Node] = {}
        self._nx: nx.DiGraph[Node] | None = None

    @property
    def nx(self) -> nx.DiGraph[Node]:
        """The graph: edges run from an argument to what is made from it; every node has `type`
        and `op`.

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
        self._nx.add_node(node, op=node.op, type=node.type)
        for source in node.sources:
            self._nx.add_edge(source, node)

    def add(
        self,
        op: str,
        args: Iterable[Node],
        attrs: tuple[Any, ...],
        type: NodeType,
        adapter: Adapter | None = None,
    ) -> Node:
        """The node of these parts: the one already there, or a new one."""
        node = Node(op, tuple(args), attrs, type, adapter)
        if node.depth > MAX_DEPTH:
            raise Fault(
                "PEM0332",
                f"this value is built up in more than {MAX_DEPTH} steps, each on the one before",
                "save a part of it and go on from there",
            )
        known = self._interned.get(node.key)
        if known is not None:
            return known
        self._interned[node.key] = node
        if self._nx is not None:
            self._draw(node)
        return node

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
        found: list[Node] = []
        while sorter:
            ready = sorted(sorter.get_ready(), key=lambda node: node.key)
            found += ready
            sorter.done(*ready)
        return found

    def leaves(self, root: Node) -> list[Node]:
        """The adapters a value is made from, in canonical order."""
        return [node for node in self.order([root]) if node.op == "leaf"]

    def parts(self, root: Node) -> list[Node]:
        """The leaves whose parameters a value combines, in canonical order; not those that only
        lend it a measured number."""
        found, pending = {root}, [root]
        while pending:
            new = set(pending.pop().args) - found
            found |= new
            pending += new
        return sorted((node for node in found if node.op == "leaf"), key=lambda node: node.key)

    def all_leaves(self) -> list[Node]:
        """Every adapter of the graph, in canonical order."""
        return sorted((n for n in self._interned.values() if n.op == "leaf"), key=lambda n: n.key)


def _nodes_in(attrs: Any) -> Iterator[Node]:
    if isinstance(attrs, Node):
        yield attrs
    elif isinstance(attrs, tuple):
        for item in attrs:
            yield from _nodes_in(item)
