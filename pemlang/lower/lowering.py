"""Nodes as programs at a site."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from fractions import Fraction
from typing import Protocol

from pemlang.formats.adapter import Adapter
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import Stored
from pemlang.graph.lowering import LoweringContext, Truncation
from pemlang.graph.node import AdapterNode, Node, Num, NumberNode, TensorsNode
from pemlang.kernels.builder import Value
from pemlang.modules import SiteValues
from pemlang.modules.record import SiteBuilder
from pemlang.ops.measures import Measured
from pemlang.tensorfiles.dtypes import work_dtype


class Numbers(Protocol):
    """What is read off adapters before programs can be written."""

    def measured(self, lowering: Lowering, node: Measured) -> Fraction:
        """The value of a measure."""

    def rank(self, lowering: Lowering, node: AdapterNode, site: str, energy: float) -> int:
        """The least rank at which a node keeps a share of its squared norm at a site."""


class Lowering:
    """Lowers nodes of one graph, a site at a time.

    Attributes:
        graph: the graph.
        numbers: what is read off adapters.
    """

    def __init__(self, graph: Graph, numbers: Numbers) -> None:
        self.graph, self.numbers = graph, numbers
        self._orders: dict[TensorsNode, list[TensorsNode]] = {}
        self._steady: dict[TensorsNode, bool] = {}
        self._values: dict[NumberNode, Fraction] = {}

    def lower(
        self,
        builder: SiteBuilder,
        roots: Sequence[TensorsNode],
        site: str,
        truncations: dict[AdapterNode, Truncation] | None = None,
    ) -> list[SiteValues | None]:
        """Write the steps that give the parameters of some nodes at a site.

        Args:
            builder: takes the steps; one may serve several calls, and reads an input once.
            roots: adapters and models of the graph.
            site: where.
            truncations: takes those on the way.

        Returns:
            For each root its parameters; None where it is zero or does not have the site.
        """
        work = self._work(roots)
        noted = {} if truncations is None else truncations
        lowered: dict[str, dict[TensorsNode, SiteValues | None]] = {}

        def lowered_at(root: TensorsNode, where: str) -> SiteValues | None:
            ctx = LoweringContext(
                builder,
                where,
                lambda leaf: _leaf(builder, leaf, where, work),
                lambda leaf, key: _head(builder, leaf, key, work),
                lambda leaf, kind: _statistic(builder, leaf, f"{where}.{kind}"),
                lambda number: float(self.value(number)),
                lambda node, site, energy: self.numbers.rank(self, node, site, energy),
                lowered_at,
                noted,
            )
            here = lowered.setdefault(where, {})
            for node in self._order(root):
                if node not in here:
                    here[node] = node.lower(ctx, here) if where in node.shapes else None
            return here[root]

        return [lowered_at(root, site) for root in roots]

    def value(self, number: Num) -> Fraction:
        """The value of a number, measured if it has to be."""
        if isinstance(number, Fraction):
            return number
        if number not in self._values:
            value = number.value(self.value)
            if value is None:
                assert isinstance(number, Measured)
                value = self.numbers.measured(self, number)
            self._values[number] = value
        return self._values[number]

    def adapters(self, root: TensorsNode) -> list[Adapter]:
        """The adapters that lowering a node reads."""
        return [node.adapter for node in self.graph.order([root]) if isinstance(node, Stored)]

    def alike(self, root: TensorsNode, site: str) -> Hashable:
        """What lowering a node at a site depends on: the same at two sites, the same program."""
        made_from = self._order(root)
        if root not in self._steady:
            self._steady[root] = all(
                node.steady and (isinstance(node, Stored) or node.shapes == root.shapes)
                for node in made_from
            )
        if not self._steady[root]:
            return site
        return (root.shapes[site], *(_stored(adapter, site) for adapter in self.adapters(root)))

    def _work(self, roots: Iterable[TensorsNode]) -> str:
        """What to compute roots in: it depends on what they are made from, and on nothing else
        that the recipe declares."""
        adapters = (adapter for root in roots for adapter in self.adapters(root))
        dtypes = (adapter.layout.dtypes for adapter in adapters)
        return work_dtype(frozenset[str]().union(*dtypes))

    def _order(self, root: TensorsNode) -> list[TensorsNode]:
        if root not in self._orders:
            here = _of_these_sites(root)
            self._orders[root] = [
                node
                for node in self.graph.order([root])
                if isinstance(node, TensorsNode) and node in here
            ]
        return self._orders[root]


def _of_these_sites(root: TensorsNode) -> set[Node]:
    """What a node is made from at a site under that name, and the node."""
    reached: set[Node] = {root}
    pending: list[Node] = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, TensorsNode) and not node.renames:
            new = {arg for arg in node.args if isinstance(arg, TensorsNode)} - reached
            reached |= new
            pending += new
    return reached


def _stored(adapter: Adapter, site: str) -> Hashable:
    """How an adapter's factors are stored at a site."""
    keys = adapter.layout.factors.get(site)
    if keys is None:
        return None
    entries = [adapter.header.entries[key] for key in keys]
    layouts = ((entry.dtype, entry.shape) for entry in entries)
    return (adapter.scales.get(site), adapter.layout.stored.get(site), *layouts)


def _leaf(builder: SiteBuilder, leaf: Stored, site: str, work: str) -> SiteValues:
    """The parameters of an adapter in files."""
    here = leaf.adapter.site(site)
    shapes = [entry.whole for entry in here.tensors]
    if here.stored is None:
        shapes = list(here.parametrisation.shapes(here.shape, here.rank))
    tensors = zip(here.references, here.tensors, shapes, strict=True)
    stored = [builder.load(reference, entry.dtype, shape) for reference, entry, shape in tensors]
    values = (here.stored or here.parametrisation).loaded(builder, stored, work)
    return SiteValues(here.parametrisation, values, here.scale)


def _head(builder: SiteBuilder, leaf: Stored, key: str, work: str) -> Value:
    """A tensor that an adapter in files has of a module saved whole."""
    entry = leaf.adapter.layout.heads[key]
    return builder.cast(builder.load(leaf.adapter.reference(key), entry.dtype, entry.shape), work)


def _statistic(builder: SiteBuilder, leaf: Stored, key: str) -> Value:
    """One of the statistics of an adapter in files, in float64."""
    assert leaf.adapter.statistics is not None
    entry = leaf.adapter.statistics.entries[key]
    stored = builder.load(leaf.adapter.statistic(key), entry.dtype, entry.shape)
    return builder.cast(stored, "F64")


class Foreseen:
    """What stands for measured numbers where no tensor is read, as in a forecast: any number for
    a measure, and for a rank that an energy decides the largest it can be.

    Attributes:
        ranked: what a rank was asked of, by key.
    """

    def __init__(self) -> None:
        self.ranked: dict[str, AdapterNode] = {}

    def measured(self, lowering: Lowering, node: Measured) -> Fraction:
        """See Numbers."""
        # No two alike, so that no difference of two of them vanishes.
        return Fraction((int(node.key[:12], 16) + 1) / (1 << 49))

    def rank(self, lowering: Lowering, node: AdapterNode, site: str, energy: float) -> int:
        """See Numbers."""
        self.ranked[node.key] = node
        rows, *columns = node.shapes[site].a
        factored = node.type.record(site).factored
        return node.ranks[site] if factored else min(rows, math.prod(columns))
