"""Numbers read off adapters: a plan of what is measured at each site, and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from typing import NamedTuple

from pemlang.diagnostics import Fault
from pemlang.graph.node import AdapterNode
from pemlang.kernels.builder import Builder, Value
from pemlang.kernels.lowrank import rank_for_energy
from pemlang.kernels.measuring import SingularValues, SiteMeasure
from pemlang.kernels.plan import NumberSink, Plan, SiteCall
from pemlang.kernels.steps.measures import Operand
from pemlang.lower.lowering import Lowering
from pemlang.modules import SiteValues
from pemlang.modules.record import SiteBuilder
from pemlang.ops.measures import Measured
from pemlang.tensorfiles.dtypes import Array

PlanRunner = Callable[[Plan], Mapping[NumberSink, Array]]
"""Runs a plan without outputs: what its programs tell. Raises Fault."""


class Measuring:
    """Measures what is asked for, once; see lowering.Numbers.

    It is known by the keys of nodes: the same in every graph over the same adapters.

    Args:
        run: runs what has to be read.
        values: what was measured before, by the keys of nodes; what is measured now is added.
    """

    def __init__(self, run: PlanRunner, values: dict[str, Fraction] | None = None) -> None:
        self._run = run
        self._values = {} if values is None else values
        self._samples: dict[str, tuple[float, int, int]] = {}
        self._ahead: dict[tuple[str, str], tuple[float, ...]] = {}
        self._ranks: dict[tuple[str, str, float], int] = {}

    def measured(self, lowering: Lowering, node: Measured) -> Fraction:
        """See lowering.Numbers; raises PEM0331 for what no float holds."""
        if node.key not in self._values:
            rows = self._rows(lowering, node, node.sites)
            try:
                self._values[node.key] = Fraction(node.total(rows))
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
            questions = _spectra(node)
            spectra = self._told(lowering, questions)
            for question, values in zip(questions, spectra, strict=True):
                self._ranks[node.key, question.site, energy] = rank_for_energy(values, energy)
        return self._ranks[key]

    def read_ahead(self, lowering: Lowering, nodes: Sequence[Measured], wanted: int) -> None:
        """Read in one plan what `sampled` of each of some measures looks at first. Where anything
        is wrong with it nothing is kept: `sampled` will tell."""
        new = {node.key: node for node in nodes if node.key not in self._samples}
        batches = [
            (node, site) for node in new.values() for site in _smallest_first(node, wanted)[:wanted]
        ]
        if not batches:
            return
        with suppress(Fault):
            told = self._told(lowering, [_question(node, site) for node, site in batches])
            for (node, site), numbers in zip(batches, told, strict=True):
                self._ahead[node.key, site] = tuple(numbers.tolist())

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
                rows += [row for row in self._rows(lowering, node, batch) if row[-1]]
            mean = node.total(rows) if rows else 0.0
            self._samples[node.key] = (mean, len(rows), len(node.sites))
        return self._samples[node.key]

    def _rows(
        self, lowering: Lowering, node: Measured, sites: Sequence[str]
    ) -> list[tuple[float, ...]]:
        """The numbers of some sites."""
        if all((node.key, site) in self._ahead for site in sites):
            return [self._ahead[node.key, site] for site in sites]
        told = self._told(lowering, [_question(node, site) for site in sites])
        return [tuple(numbers.tolist()) for numbers in told]

    def _told(self, lowering: Lowering, questions: Sequence[SiteQuestion]) -> list[Array]:
        """The answer to each question, from one plan."""
        numbers = self._run(_plan(lowering, questions))
        return [numbers[NumberSink(0, index)] for index in range(len(questions))]


class SiteQuestion(NamedTuple):
    """What is to be measured of some adapters at a site, and how many numbers that is."""

    measure: SiteMeasure
    adapters: tuple[AdapterNode, ...]
    site: str
    width: int = 0

    def calls(self, lowering: Lowering, sink: NumberSink) -> list[SiteCall]:
        """The program that measures it."""
        builder: SiteBuilder = Builder()
        parts = [
            None if part is None else _operand(builder, part, self.measure.rows_alone)
            for part in lowering.lower(builder, self.adapters, self.site)
        ]
        builder.report(builder.measure(self.measure, parts, self.width), sink)
        return [
            replace(call, constants=tuple(map(float, call.constants)))  # type: ignore[misc]
            for call in builder.calls()
        ]


def measuring_plan(
    lowering: Lowering, measures: Iterable[Measured], ranked: Iterable[AdapterNode]
) -> Plan:
    """What reads some measures, and what an energy decides the ranks of some adapters by."""
    questions = [_question(node, site) for node in measures for site in node.sites]
    questions += [question for node in ranked for question in _spectra(node)]
    return _plan(lowering, questions)


def _plan(lowering: Lowering, questions: Sequence[SiteQuestion]) -> Plan:
    """What answers some questions, each told by its number."""
    calls = (x.calls(lowering, NumberSink(0, index)) for index, x in enumerate(questions))
    return Plan(sites=tuple(chain.from_iterable(calls)))


def _spectra(node: AdapterNode) -> list[SiteQuestion]:
    shapes = node.shapes.items()
    sites = [s for s, x in shapes if node.type.record(s).matrices and len(x.a) + len(x.b) > 1]
    return [SiteQuestion(SingularValues(), (node,), site) for site in sites]


def _question(node: Measured, site: str) -> SiteQuestion:
    return SiteQuestion(node.at_site, node.adapters, site, node.measure.count)


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
