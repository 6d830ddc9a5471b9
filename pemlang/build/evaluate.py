"""The values of nodes: factors at a site, and numbers measured over all sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import reduce
from itertools import starmap

import numpy as np

from pemlang.build.tensors import Tensors
from pemlang.diagnostics import Fault
from pemlang.graph.node import AdapterType, Graph, Node, Num
from pemlang.graph.normal import adapter_type
from pemlang.graph.numbers import exact
from pemlang.kernels.dtypes import work_dtype
from pemlang.kernels.factors import Factors
from pemlang.ops.measures import MEASURES
from pemlang.ops.record import NODE_KINDS, Run

Progress = Callable[[], None]


class Evaluator:
    """Evaluates nodes of one graph, a site at a time.

    Attributes:
        run: what lowering saw: the truncations it made.
    """

    def __init__(self, graph: Graph, progress: Progress = lambda: None) -> None:
        self._graph = graph
        self._progress = progress
        self.tensors = Tensors(work_dtype(frozenset()))
        self.run = Run(self.tensors.factors, self._float)
        self._numbers: dict[Node, Fraction] = {}
        self._orders: dict[Node, list[Node]] = {}

    def factors(self, roots: Iterable[Node], site: str) -> list[Factors | None]:
        """The parameters of some nodes at a site; None where one is zero or does not have it."""
        found: dict[Node, Factors | None] = {}
        roots = list(roots)
        # A number may be measured on the way: its own precision lasts as long as it does.
        outer, self.tensors.work = self.tensors.work, self._work(roots)
        for root in roots:
            for node in self._order(root):
                if node not in found:
                    here = site in adapter_type(node).shapes
                    lower = NODE_KINDS[node.op].lower
                    found[node] = lower(self.run, node, site, found) if here else None
        self.tensors.work = outer
        self._progress()
        return [found[root] for root in roots]

    def _work(self, roots: Iterable[Node]) -> np.dtype[np.floating]:
        """What to compute roots in: it depends on what they are made from, and on nothing else
        that the recipe declares."""
        made_from = (node.adapter for root in roots for node in self._order(root))
        leaves = (adapter.layout.dtypes for adapter in made_from if adapter is not None)
        return work_dtype(frozenset[str]().union(*leaves))

    def _order(self, root: Node) -> list[Node]:
        if root not in self._orders:
            order = self._graph.order([root])
            self._orders[root] = [node for node in order if isinstance(node.type, AdapterType)]
        return self._orders[root]

    def number(self, number: Num) -> Fraction:
        """The value of a number, measured if it has to be."""
        if isinstance(number, Fraction):
            return number
        if number not in self._numbers:
            if number.op == "measure":
                try:
                    with np.errstate(over="ignore", invalid="ignore"):
                        value = Fraction(self._measure(number))
                except (OverflowError, ValueError):  # infinite, or not a number
                    raise Fault(
                        "PEM0331", "a measure is too large for any float", "scale the adapter down"
                    ) from None
            elif number.op == "reciprocal":
                value = exact("/", Fraction(1), self.number(number.args[0]))
            else:
                value = self._polynomial(number)
            self._numbers[number] = value
        return self._numbers[number]

    def _polynomial(self, node: Node) -> Fraction:
        values = [self.number(arg) for arg in node.args]
        total = Fraction(0)
        for coefficient, powers in node.attrs:
            term = coefficient
            for value, power in zip(values, powers, strict=True):
                for _ in range(power):
                    term = exact("*", term, value)
            total = exact("+", total, term)
        return total

    def _float(self, number: Num) -> float:
        return float(self.number(number))

    def _measure(self, node: Node) -> float:
        record = MEASURES[node.attrs[0]]
        sites = sorted({site for arg in node.args for site in adapter_type(arg).shapes})
        rows = [record.at_site(self.factors(node.args, site), node.attrs[1:]) for site in sites]
        if not rows:
            return record.finish((0.0, 0.0, 0.0))
        return record.finish(
            reduce(lambda x, y: tuple(starmap(record.join, zip(x, y, strict=True))), rows)
        )
