"""A graph made again over other leaves: every node in normal form, by the rules that made it.

A recipe is checked with its adapters known by their places, and built with them known by their
content: the order of terms goes by that, and so does every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import cast

from pemlang.formats.adapter import Adapter
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import Stored
from pemlang.graph.node import AdapterNode, Coef, Node, NodeKind, Num


class Rebuilding:
    """Makes nodes again.

    Attributes:
        graph: takes what is made.
        leaves: what the leaves are known by from now on, and their adapters.
    """

    def __init__(self, leaves: Mapping[Stored, tuple[str, Adapter]]) -> None:
        self.graph = Graph()
        self.leaves = leaves
        self._made: dict[Node, Node] = {}

    def node(self, node: NodeKind) -> NodeKind:
        """A node over the other leaves. It may be of another kind: 1·x is x."""
        if node not in self._made:
            self._made[node] = node.rebuilt(self)
        return cast("NodeKind", self._made[node])

    def adapter(self, node: AdapterNode) -> AdapterNode:
        """An adapter over the other leaves."""
        made = self.node(node)
        assert isinstance(made, AdapterNode)
        return made

    def number(self, number: Num) -> Num:
        """A number over the other leaves."""
        return number if isinstance(number, Fraction) else self.node(number)

    def coef(self, coef: Coef) -> Coef:
        """A coefficient over the other leaves."""
        if isinstance(coef, tuple):
            return tuple((site, self.number(number)) for site, number in coef)
        return self.number(coef)
