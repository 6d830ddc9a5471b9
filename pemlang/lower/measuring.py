"""Numbers read off adapters: a plan of what is measured at each site, and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from pemlang.diagnostics import Fault
from pemlang.graph.node import AdapterNode
from pemlang.kernels.builder import Builder, Value
from pemlang.kernels.lowrank import rank_for_energy, singular_values
from pemlang.kernels.measuring import SiteMeasure
from pemlang.kernels.plan import NumberSink, Plan, SiteCall
from pemlang.kernels.site import SitePart
from pemlang.kernels.step import Dense
from pemlang.kernels.steps.measures import Operand
from pemlang.lazy import numpy as np
from pemlang.lower.lowering import Lowering
from pemlang.modules import SiteValues
from pemlang.modules.record import SiteBuilder
from pemlang.ops.measures import Measured
from pemlang.tensorfiles.dtypes import Array

PlanRunner = Callable[[Plan], Mapping[NumberSink, Array]]
"""Runs a plan without outputs: what its programs tell. Raises Fault."""


class SingularValues(SiteMeasure):
    """All singular values of a LoRA, falling."""

    def numbers(self, parts: Sequence[SitePart | None]) -> tuple[float, ...]:
        [part] = parts
        factors = None if part is None else part.low_rank
        return () if factors is None else tuple(singular_values(factors).tolist())

    def meaning(self, deltas: Sequence[Dense | None]) -> tuple[float, ...]:
        [x] = deltas
        return () if x is None else tuple(np.linalg.svd(x, compute_uv=False).tolist())


class Measuring:
    """Measures what is asked for, once; see lowering.Numbers.

    It is known by the keys of nodes: the same in every graph over the same adapters.

    Args:
        run: runs what has to be read.
    """

    def __init__(self, run: PlanRunner) -> None:
        self._run = run
        self._values: dict[str, Fraction] = {}
        self._samples: dict[str, tuple[float, int, int]] = {}
        self._ranks: dict[tuple[str, str, float], int] = {}

    def measured(self, lowering: Lowering, node: Measured) -> Fraction:
        """See lowering.Numbers; raises PEM0331 for what no float holds."""
        if node.key not in self._values:
            rows = self._rows(lowering, node, node.sites)
            try:
                self._values[node.key] = Fraction(node.total(list(rows.values())))
            except (OverflowError, ValueError):  # infinite, or not a number
                raise Fault(
                    "PEM0331", "a measure is too large for any float", "scale the adapter down"
                ) from None
        return self._values[node.key]

    def rank(self, lowering: Lowering, node: AdapterNode, site: str, energy: float) -> int:
        """See lowering.Numbers. Shapes are known before anything is written, so the sites are read
        ahead of time."""
        key = (node.key, site, energy)
        if key not in self._ranks:
            sites = list(node.shapes)
            spectra = self._told(lowering, SingularValues(), [node], sites)
            for at, values in spectra.items():
                self._ranks[node.key, at, energy] = rank_for_energy(values, energy)
        return self._ranks[key]

    def sampled(self, lowering: Lowering, node: Measured, wanted: int) -> tuple[float, int, int]:
        """A measure that is a mean over sites, from a few of the smallest of them, spread evenly.

        Returns:
            The mean, how many sites it is over, and how many there are.
        """
        if node.key not in self._samples:
            rows: list[tuple[float, ...]] = []
            rest = _smallest_first(node, wanted)
            while rest and len(rows) < wanted:
                batch, rest = rest[: wanted - len(rows)], rest[wanted - len(rows) :]
                # The last number tells whether a site counts.
                rows += [row for row in self._rows(lowering, node, batch).values() if row[-1]]
            mean = node.total(rows) if rows else 0.0
            self._samples[node.key] = (mean, len(rows), len(node.sites))
        return self._samples[node.key]

    def _rows(
        self, lowering: Lowering, node: Measured, sites: Sequence[str]
    ) -> dict[str, tuple[float, ...]]:
        by_site = self._told(lowering, node.at_site, node.adapters, sites, node.measure.count)
        return {site: tuple(numbers.tolist()) for site, numbers in by_site.items()}

    def _told(
        self,
        lowering: Lowering,
        measure: SiteMeasure,
        nodes: Sequence[AdapterNode],
        sites: Sequence[str],
        count: int = 0,
    ) -> dict[str, Array]:
        """What a measure gives at some sites."""
        plan = Plan(
            sites=tuple(
                call
                for site in sites
                for call in measure_calls(lowering, measure, nodes, site, count)
            )
        )
        numbers = self._run(plan)
        return {site: numbers[NumberSink(0, site)] for site in sites}


def measure_calls(
    lowering: Lowering,
    measure: SiteMeasure,
    nodes: Sequence[AdapterNode],
    site: str,
    count: int,
) -> list[SiteCall]:
    """The program that measures some adapters at a site."""
    builder: SiteBuilder = Builder()
    parts = [
        None if part is None else _operand(builder, part, measure.rows_alone)
        for part in lowering.lower(builder, nodes, site)
    ]
    builder.report(builder.measure(measure, parts, count), NumberSink(0, site))
    return builder.calls()  # type: ignore[return-value]


def _operand(
    builder: SiteBuilder, part: SiteValues, rows_alone: bool
) -> tuple[Operand, Sequence[Value]]:
    values = part.values[:1] if rows_alone else part.values
    return Operand(part.parametrisation, len(values), builder.constant(part.scale)), values


def _smallest_first(node: Measured, wanted: int) -> list[str]:
    """The sites of a measure, the smallest spread evenly before all others."""
    shapes = [x.shapes for x in node.adapters]
    size = {s: sum(math.prod(at[s].a) for at in shapes if s in at) for s in node.sites}
    smallest = min(size.values(), default=0)
    least = [site for site in node.sites if size[site] == smallest]
    apart = max(1, len(least) // wanted)
    spread = [site for first in range(apart) for site in least[first::apart]]
    return [*spread, *sorted(size.keys() - least)]
