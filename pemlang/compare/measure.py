"""The numbers of a report, a site at a time and from factors: norms, spectra, and how alike
adapters are. Of Δ itself only the signs are looked at, over rows that fit a tile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Literal

from pemlang.dataclass import dataclass
from pemlang.diagnostics import placed
from pemlang.failures import TooLarge
from pemlang.formats.adapter import kinds_text
from pemlang.graph.dag import Graph
from pemlang.graph.node import AdapterNode
from pemlang.kernels import lowrank
from pemlang.kernels.algebra import Matrix
from pemlang.kernels.lowrank import LowRank
from pemlang.kernels.site import SitePart
from pemlang.lazy import numpy as np
from pemlang.modules import Shapes
from pemlang.modules.sites import layer_of
from pemlang.pipeline.reading import SiteReader, measurable, reading

if TYPE_CHECKING:
    from pemlang.pipeline.making import Tick

MOST_ADAPTERS = 24
"""Adapters that are measured, and as many outputs: no heat map of more is readable."""
MOST_ALIKE = 16
"""Adapters that are compared with each other, two by two."""
TILE = 1 << 18
"""Entries of Δ at a site whose signs are compared."""


@dataclass(frozen=True, eq=False)
class MeasuredAdapter:
    """What is measured: an adapter that goes in, or one that comes out."""

    name: str
    role: Literal["input", "output"]
    node: AdapterNode

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the parametrisations of its sites."""
        return self.node.type.kinds

    @property
    def title(self) -> str:
        """Its kinds, as a reader calls them."""
        return kinds_text(self.kinds)

    @property
    def shapes(self) -> Shapes:
        """Its sites."""
        return self.node.shapes


@dataclass(frozen=True, eq=False)
class Alike:
    """Adapters of one method and the same sites, two by two.

    Attributes:
        adapters: at most MOST_ALIKE of them.
        products: by layer, ⟨Δᵢ, Δⱼ⟩.
        conflicts: by layer, how many entries of Δᵢ and Δⱼ have opposite signs.
        entries: by layer, how many entries a Δ has.
        sampled: some sites are so large that their conflicts are those of a sample of rows.
    """

    adapters: Sequence[MeasuredAdapter]
    products: Mapping[str, Matrix]
    conflicts: Mapping[str, Matrix]
    entries: Mapping[str, int]
    sampled: bool

    def cosine(self, layers: Iterable[str]) -> Matrix:
        """Of every two, over some layers; NaN with a zero adapter."""
        products: Matrix = np.sum([self.products[layer] for layer in layers], axis=0)
        norms = np.sqrt(np.diagonal(products))
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines: Matrix = np.clip(products / np.outer(norms, norms), -1.0, 1.0)
        return cosines

    def conflict(self, layers: Iterable[str]) -> Matrix:
        """The share of entries with opposite signs, of every two, over some layers."""
        layers = list(layers)
        counts: Matrix = np.sum([self.conflicts[layer] for layer in layers], axis=0)
        return counts / sum(self.entries[layer] for layer in layers)


@dataclass
class Measurements:
    """Attributes:
    norms: ‖Δ‖ (Frobenius) of each adapter by site; ‖l − 1‖ for (IA)³.
    spectra: the singular values of Δ, falling, by site; empty for (IA)³.
    alike: the inputs that can be compared, by method and sites.
    """

    norms: dict[MeasuredAdapter, dict[str, float]]
    spectra: dict[MeasuredAdapter, dict[str, Matrix]]
    alike: list[Alike] = field(default_factory=list)

    def add(self, adapter: MeasuredAdapter, site: str, part: SitePart | None) -> None:
        """Measure an adapter at one of its sites, or at some numbers of it; None is zero."""
        if not adapter.node.type.record(site).factored:
            before = self.norms[adapter].get(site, 0.0)
            self.norms[adapter][site] = math.hypot(before, 0.0 if part is None else part.norm())
            return
        factors = None if part is None else part.low_rank
        values = np.zeros(1) if factors is None else lowrank.singular_values(factors)
        self.spectra[adapter][site] = values
        self.norms[adapter][site] = float(np.linalg.norm(values))


def layer_name(site: str) -> str:
    """The layer of a site, `other` outside the layers."""
    layer = layer_of(site)
    return "other" if layer is None else str(layer)


def in_order(layers: Iterable[str]) -> list[str]:
    """Layers by number, `other` last; each once."""
    return sorted(
        set(layers), key=lambda name: (name == "other", 0 if name == "other" else int(name))
    )


def measured(graph: Graph, adapters: Sequence[MeasuredAdapter], tick: Tick) -> Measurements:
    """Measure adapters of one graph.

    Args:
        graph: their graph.
        adapters: what to measure.
        tick: told of progress.

    Raises:
        PemError: PEM0502 an input that is not finite, PEM0503 a number too large on the way.
    """
    measurements = Measurements({x: {} for x in adapters}, {x: {} for x in adapters})
    groups = [_AlikeSums(alike) for alike in _groups(adapters)]
    sites = sorted({site for adapter in adapters for site in adapter.shapes})
    with placed(None), reading(graph) as reader:
        for done, site in enumerate(sites):
            tick(f"measuring {site}", done, len(sites))
            for there, parts in _by_site(reader, adapters, site):
                here = {x: part for x, part in zip(there, parts, strict=True) if part is not None}
                for adapter in there:
                    with measurable(adapter.name):
                        measurements.add(adapter, site, here.get(adapter))
                for group in groups:
                    with measurable(site):
                        group.add(site, here)
        reader.files.unchanged()
        for adapter, norms in measurements.norms.items():
            with measurable(adapter.name):
                if not math.isfinite(sum(norm * norm for norm in norms.values())):
                    raise TooLarge(None)
    measurements.alike = [group.alike() for group in groups]
    return measurements


def _by_site(
    reader: SiteReader, adapters: Sequence[MeasuredAdapter], site: str
) -> Iterator[tuple[list[MeasuredAdapter], list[SitePart | None]]]:
    """The adapters that have a site with their parameters there: those of factors whole, those of
    experts one after the other, those of one tensor some numbers after others."""
    there = [adapter for adapter in adapters if site in adapter.shapes]
    factored = [x for x in there if x.node.type.record(site).factored]
    if factored:
        yield factored, reader.parts([x.node for x in factored], site)
    plain = [x for x in there if x not in factored]
    of_pieces = [x for x in plain if len(x.node.type.record(site).factors) > 1]
    if of_pieces:
        parts = reader.parts([x.node for x in of_pieces], site)
        count = max((len(part.pieces) for part in parts if part is not None), default=0)
        for piece in range(count):
            yield of_pieces, [None if part is None else part.pieces[piece] for part in parts]
    others = [x for x in plain if x not in of_pieces]
    if others:
        for parts in reader.tiles([x.node for x in others], site):
            yield others, parts


def _groups(adapters: Sequence[MeasuredAdapter]) -> list[list[MeasuredAdapter]]:
    groups: dict[tuple[tuple[str, ...], Shapes], list[MeasuredAdapter]] = {}
    for adapter in adapters:
        if adapter.role == "input":
            groups.setdefault((adapter.kinds, adapter.shapes), []).append(adapter)
    return [group[:MOST_ALIKE] for group in groups.values() if len(group) > 1]


class _AlikeSums:
    """Sums over the sites of a layer, for adapters that are compared."""

    def __init__(self, adapters: Sequence[MeasuredAdapter]) -> None:
        self._adapters = adapters
        self._products: dict[str, Matrix] = {}
        self._conflicts: dict[str, Matrix] = {}
        self._entries: dict[str, int] = {}
        self._sampled = False

    def add(self, site: str, here: Mapping[MeasuredAdapter, SitePart]) -> None:
        """Take a site."""
        parts = [here[adapter] for adapter in self._adapters if adapter in here]
        if not parts:
            return
        layer, nothing = layer_name(site), np.zeros((len(parts), len(parts)))
        self._products[layer] = self._products.get(layer, nothing) + inner_products(parts)
        share, entries, sampled = sign_conflicts(parts)
        self._conflicts[layer] = self._conflicts.get(layer, nothing) + share * entries
        self._entries[layer] = self._entries.get(layer, 0) + entries
        self._sampled |= sampled

    def alike(self) -> Alike:
        """What they come to."""
        return Alike(self._adapters, self._products, self._conflicts, self._entries, self._sampled)


def inner_products(parts: Sequence[SitePart]) -> Matrix:
    """⟨Δᵢ, Δⱼ⟩ of every two adapters at a site: Σ (BᵢᵀBⱼ) ∘ (AᵢAⱼᵀ), by two matrix products for
    all of them. Within an adapter as it was trained nothing cancels that this would lose."""
    factors = _all_factors(parts)
    if factors is None:
        deltas = np.array([part.delta().ravel() for part in parts])
        products: Matrix = deltas @ deltas.T
        return products
    pairs = [lowrank.matrices(part) for part in factors]
    b = np.hstack([part.scale * b for part, (b, _) in zip(factors, pairs, strict=True)])
    a = np.vstack([a for _, a in pairs])
    starts = np.cumsum([0, *(len(a) for _, a in pairs[:-1])])
    by_row = np.add.reduceat((b.T @ b) * (a @ a.T), starts, axis=0)
    return np.add.reduceat(by_row, starts, axis=1)


def sign_conflicts(parts: Sequence[SitePart]) -> tuple[Matrix, int, bool]:
    """The share of the entries of Δᵢ and Δⱼ (of l − 1 for (IA)³) that have opposite signs.

    Returns:
        The share of every two adapters, how many entries a Δ has, and whether the share is that
        of a sample of rows, the same on every machine.
    """
    factors = _all_factors(parts)
    if factors is None:
        deltas = [part.delta().ravel() for part in parts]
        return _opposite(deltas), deltas[0].size, False
    count, columns = factors[0].b.shape[0], factors[0].a[0].size
    rows = rows_looked_at(count, columns)
    deltas = [_rows(part, rows) for part in factors]
    return _opposite(deltas), count * columns, len(rows) < count


def _all_factors(parts: Sequence[SitePart]) -> list[LowRank] | None:
    """The factors of adapters that all have them."""
    factors = [part.low_rank for part in parts]
    return [part for part in factors if part is not None] if all(factors) else None


def _opposite(deltas: Sequence[Matrix]) -> Matrix:
    """The share of entries with opposite signs, of every two."""
    above = np.array([delta > 0 for delta in deltas], np.float32)
    below = np.array([delta < 0 for delta in deltas], np.float32)
    opposite = (above @ below.T).astype(np.float64)
    share: Matrix = (opposite + opposite.T) / deltas[0].size
    return share


def rows_looked_at(count: int, columns: int) -> list[int]:
    """All rows of a Δ of at most TILE entries; else as many as make a tile, spread by the golden
    ratio, which falls in step with no pattern of heads or blocks."""
    most = max(1, TILE // columns)
    if count <= most:
        return list(range(count))
    return sorted({int(i * 0.6180339887498949 % 1 * count) for i in range(most)})


def _rows(part: LowRank, rows: list[int]) -> Matrix:
    """Some rows of Δ, one after the other."""
    b, a = lowrank.matrices(part)
    delta: Matrix = (part.scale * b[rows]) @ a
    return delta.ravel()


def mean_spectrum(spectra: Mapping[str, Matrix]) -> Matrix:
    """The mean over sites of each singular value; a site of a lower rank has zeros there."""
    mean: Matrix = np.mean(_even(spectra), axis=0)
    return mean


def truncation_curve(spectra: Mapping[str, Matrix]) -> Matrix:
    """‖Δ − Δ cut to rank k‖ / ‖Δ‖ over all sites, for k = 0, 1, … up to the largest rank."""
    squares: Matrix = np.sum(_even(spectra) ** 2, axis=0)
    tails = np.append(np.cumsum(squares[::-1])[::-1], 0.0)
    return np.sqrt(tails / tails[0]) if tails[0] else tails


def _even(spectra: Mapping[str, Matrix]) -> Matrix:
    longest = max(map(len, spectra.values()))
    return np.array([np.pad(v, (0, longest - len(v))) for v in spectra.values()])
