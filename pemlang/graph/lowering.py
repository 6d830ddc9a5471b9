"""What lowering a node at a site needs beside the parameters of its arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.graph.leaves import Leaf, Stored
from pemlang.graph.node import AdapterNode, Num, TensorsNode

if TYPE_CHECKING:
    from pemlang.kernels.builder import Value
    from pemlang.modules.record import SiteBuilder, SiteValues


@dataclass(frozen=True)
class Truncation:
    """A truncation at one site: the value that tells what it costs, and how far the rank came
    down."""

    cost: Value
    by: int


@dataclass(eq=False)
class LoweringContext:
    """What a node may use to write its steps.

    Attributes:
        builder: takes the steps.
        site: where.
        read: the parameters of a leaf.
        head: one of the heads of a leaf by its key.
        statistic: one of the statistics of a leaf by its kind, as float64.
        number: the value of a number, measured if it has to be.
        rank: the least rank at which a node keeps a share of its squared norm at a site.
        at: the parameters of a node at another site, where that has another name for this one.
        truncations: a place to note them, by node.
    """

    builder: SiteBuilder
    site: str
    read: Callable[[Stored], SiteValues]
    head: Callable[[Leaf, str], Value]
    statistic: Callable[[Leaf, str], Value]
    number: Callable[[Num], float]
    rank: Callable[[AdapterNode, str, float], int]
    at: Callable[[TensorsNode, str], SiteValues | None]
    truncations: dict[AdapterNode, Truncation] = field(default_factory=dict)

    def zeros(self, node: AdapterNode, rank: int, scale: float) -> SiteValues:
        """The parameters of an adapter of the kind of a node that does nothing at this site."""
        record = node.type.record(self.site)
        return record.zeros(self.builder, node.shapes[self.site], rank, scale)
