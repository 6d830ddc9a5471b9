"""Nodes as programs at a site, and numbers measured over all sites."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from itertools import starmap

import numpy as np

from pemlang.diagnostics import Fault
from pemlang.execute.matrices import Bits, InputNotFinite, bytes_at_work, execute
from pemlang.formats.peft import Adapter
from pemlang.graph.node import AdapterType, Graph, Node, Num
from pemlang.graph.normal import adapter_type
from pemlang.graph.numbers import exact
from pemlang.kernels.lowrank import Arrays, rank_for_energy, singular_values
from pemlang.kernels.program import Builder, Piece, Value
from pemlang.modules.factors import Factors
from pemlang.ops.measures import MEASURES, Measure
from pemlang.ops.record import NODE_KINDS, Cut, Run, ranks
from pemlang.tensorfiles.dtypes import decoded, work_dtype
from pemlang.tensorfiles.reader import Files, Source, not_finite, source, statistic

Progress = Callable[[], None]


@dataclass
class Known:
    """What was measured, by the keys of nodes: the same in every graph over the same adapters.

    Attributes:
        numbers: values of numbers.
        samples: means over a few sites, how many, and of how many.
        ranks: the rank that keeps a share of the squared norm of a node at a site.
    """

    numbers: dict[str, Fraction] = field(default_factory=dict)
    samples: dict[str, tuple[float, int, int]] = field(default_factory=dict)
    ranks: dict[tuple[str, str, float], int] = field(default_factory=dict)


class Evaluator:
    """Lowers nodes of one graph, a site at a time, and measures its numbers.

    Attributes:
        files: where the inputs are read from.
    """

    def __init__(
        self,
        graph: Graph,
        files: Files | None = None,
        budget: int | None = None,
        progress: Progress = lambda: None,
        known: Known | None = None,
    ) -> None:
        self.files = files or Files()
        self._graph = graph
        self._budget = budget
        self._progress = progress
        self._known = known or Known()
        self._orders: dict[Node, list[Node]] = {}
        self._steady: dict[Node, bool] = {}

    def lower(
        self,
        builder: Builder,
        roots: Sequence[Node],
        site: str,
        cuts: dict[Node, Cut] | None = None,
    ) -> list[Factors | None]:
        """Write the steps that give the parameters of some nodes at a site.

        Args:
            builder: takes the steps; one may serve several calls, and reads an input once.
            roots: adapters of one graph.
            site: where.
            cuts: takes the truncations on the way.

        Returns:
            For each root its parameters; None where it is zero or does not have the site.
        """
        found: dict[Node, Factors | None] = {}
        work = self._work(roots)
        run = Run(
            builder,
            lambda leaf: _leaf(builder, leaf, site, work),
            lambda leaf, kind: _statistic(builder, leaf, f"{site}.{kind}"),
            self._float,
            lambda node, energy: self._rank(node, site, energy),
            {} if cuts is None else cuts,
        )
        for root in roots:
            for node in self._order(root):
                if node not in found:
                    here = site in adapter_type(node).shapes
                    found[node] = (
                        NODE_KINDS[node.op].lower(run, node, site, found) if here else None
                    )
        return [found[root] for root in roots]

    def arrays(
        self, roots: Sequence[Node], site: str, rows_alone: bool = False
    ) -> list[Arrays | None]:
        """The parameters of some nodes at a site as numbers, all in memory; without B where the
        A factors are all that is asked for.

        Raises:
            Fault: PEM0502 an input that is not finite, PEM0503 a number too large on the way.
        """
        builder = Builder()
        lowered = self.lower(builder, roots, site)
        for index, part in enumerate(lowered):
            if part is not None:
                builder.report(part.a, (index, "a"))
                if part.b is not None and not rows_alone:
                    builder.report(part.b, (index, "b"))
        found: dict[object, np.ndarray[tuple[int, ...], np.dtype[np.floating]]] = {}
        for piece in builder.pieces(shapes=True):
            if self._budget is not None:
                hold(bytes_at_work(piece.program), self._budget)
            results = run_piece(piece, self.files)
            found |= {piece.outputs[slot]: array for slot, array in results.items()}
        self._progress()
        return [
            None if part is None else Arrays(found[index, "a"], found.get((index, "b")), part.scale)
            for index, part in enumerate(lowered)
        ]

    def adapters(self, root: Node) -> list[Adapter]:
        """The adapters that lowering a node reads."""
        return [node.adapter for node in self._order(root) if node.adapter is not None]

    def alike(self, root: Node, site: str) -> Hashable:
        """What lowering a node at a site depends on: the same at two sites, the same program."""
        made_from = self._order(root)
        if root not in self._steady:
            shapes = adapter_type(root).shapes
            self._steady[root] = all(
                NODE_KINDS[node.op].steady(node)
                and (node.op == "leaf" or adapter_type(node).shapes == shapes)
                for node in made_from
            )
        if not self._steady[root]:
            return site
        stored = (_stored(adapter, site) for adapter in self.adapters(root))
        return (adapter_type(root).shapes[site], *stored)

    def _work(self, roots: Iterable[Node]) -> str:
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

    def _rank(self, node: Node, site: str, energy: float) -> int:
        """Shapes are known before anything is written, so this reads the site ahead of time."""
        key = (node.key, site, energy)
        if key not in self._known.ranks:
            [part] = self.arrays([node], site)
            assert part is not None
            self._known.ranks[key] = rank_for_energy(singular_values(part), energy)
        return self._known.ranks[key]

    # --- numbers ----------------------------------------------------------------------------

    def number(self, number: Num) -> Fraction:
        """The value of a number, measured if it has to be."""
        if isinstance(number, Fraction):
            return number
        if number.key not in self._known.numbers:
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
            self._known.numbers[number.key] = value
        return self._known.numbers[number.key]

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
        rows = [self._row(node, site) for site in _sites(node)]
        if not rows:
            return record.finish((0.0, 0.0, 0.0))
        return record.finish(_joined(record, rows))

    def sampled(self, node: Node, wanted: int) -> tuple[float, int, int]:
        """A measure that is a mean over sites, from a few of the smallest of them, spread evenly.

        Returns:
            The mean, how many sites it is over, and how many there are.
        """
        if node.key in self._known.samples:
            return self._known.samples[node.key]
        record, sites = MEASURES[node.attrs[0]], _sites(node)
        shapes = [adapter_type(arg).shapes for arg in node.args]
        size = {s: sum(math.prod(at[s].a) for at in shapes if s in at) for s in sites}
        smallest = min(size.values(), default=0)
        least = [site for site in sites if size[site] == smallest]
        apart = max(1, len(least) // wanted)
        spread = [site for first in range(apart) for site in least[first::apart]]
        rows: list[tuple[float, ...]] = []
        for site in [*spread, *sorted(size.keys() - least)]:
            row = self._row(node, site)
            rows += [row] if row[-1] else []
            if len(rows) == wanted:
                break
        mean = record.finish(_joined(record, rows)) if rows else 0.0
        found = (mean, len(rows), len(sites))
        self._known.samples[node.key] = found
        return found

    def _row(self, node: Node, site: str) -> tuple[float, ...]:
        record = MEASURES[node.attrs[0]]
        return record.at_site(self.arrays(node.args, site, record.rows_alone), node.attrs[1:])


def _sites(node: Node) -> list[str]:
    return sorted({site for arg in node.args for site in adapter_type(arg).shapes})


def _joined(record: Measure, rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return reduce(lambda x, y: tuple(starmap(record.join, zip(x, y, strict=True))), rows)


def _stored(adapter: Adapter, site: str) -> Hashable:
    """How an adapter's factors are stored at a site."""
    keys = adapter.layout.factors.get(site)
    if keys is None:
        return None
    entries = [adapter.header.entries[key] for key in keys]
    return (adapter.scales.get(site), *((entry.dtype, entry.shape) for entry in entries))


def hold(needed: int, budget: int) -> None:
    """Raise PEM0521 unless a budget of working memory is enough."""
    if needed > budget:
        raise Fault(
            "PEM0521",
            f"the budget of {budget / 1e6:.4g} MB is too small: this build works in "
            f"{needed / 1e6:.4g} MB",
            f"--memory {-(-needed // 1_000_000)}MB",
        )


def _leaf(builder: Builder, leaf: Node, site: str, work: str) -> Factors:
    """The parameters of an adapter on disk."""
    adapter = leaf.adapter
    assert adapter is not None

    def tensor(key: str, dtype: str) -> Value:
        entry = adapter.header.entries[key]
        return builder.cast(builder.load(source(adapter, key), entry.dtype, entry.shape), dtype)

    keys = adapter.layout.factors[site]
    if adapter.method == "ia3":
        # g = l − 1 in float64: the subtraction and the way back then round once.
        gain = tensor(keys[0], "F64")
        return Factors(builder.binary("add", gain, builder.const(-1.0, "F64", gain.shape)), None)
    a, b = (tensor(key, work) for key in keys)
    return Factors(a, b, adapter.scales[site])


def _statistic(builder: Builder, leaf: Node, key: str) -> Value:
    """One of the statistics of an adapter on disk, in float64."""
    adapter = leaf.adapter
    assert adapter is not None and adapter.statistics is not None
    entry = adapter.statistics.entries[key]
    return builder.cast(builder.load(statistic(adapter, key), entry.dtype, entry.shape), "F64")


def run_piece(
    piece: Piece, files: Files
) -> Mapping[int, np.ndarray[tuple[int, ...], np.dtype[np.floating]]]:
    """The exact outputs of a piece by slot, from whole tensors; raises as Evaluator.arrays."""
    sources = [what for what in piece.inputs if isinstance(what, Source)]

    def read(slot: int, shape: tuple[int, ...], dtype: str) -> Bits:
        return files.tensor(sources[slot], dtype, shape)

    try:
        return execute(piece.program, read, piece.consts)
    except InputNotFinite as error:
        loads = {i.attrs[0]: i for i in piece.program.instrs if i.op == "load"}
        load = loads[f"in{error.slot}"]
        bits = read(error.slot, (math.prod(load.shape),), load.dtype)
        raise not_finite(sources[error.slot], decoded(bits, load.dtype, "F64")) from None


class Foreseen(Evaluator):
    """Lowers nodes without reading a tensor: a number that is measured is some number, and a rank
    that an energy decides is the most it can be."""

    def _measure(self, node: Node) -> float:
        # No two alike, so that no difference of two of them vanishes.
        return (int(node.key[:12], 16) + 1) / (1 << 49)

    def _rank(self, node: Node, site: str, energy: float) -> int:
        return ranks(node)[site]
