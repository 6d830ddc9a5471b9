"""The numbers of a report, a site at a time and from factors: norms, spectra, and how alike
adapters are. Of Δ itself only the signs are looked at, over rows that fit a tile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from pemlang.artifact.staging import placed
from pemlang.graph.node import Graph, Node
from pemlang.graph.normal import adapter_type
from pemlang.kernels import lowrank
from pemlang.kernels.lowrank import Arrays, Matrix
from pemlang.lower.evaluate import Evaluator
from pemlang.modules.sites import Shapes
from pemlang.ops.schedule import layer_of
from pemlang.tensorfiles.reader import Files

MOST_SUBJECTS = 24
"""Adapters that are measured, and as many outputs: no heat map of more is readable."""
MOST_ALIKE = 16
"""Adapters that are compared with each other, two by two."""
TILE = 1 << 18
"""Entries of Δ at a site whose signs are compared."""

Tick = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is measured: an adapter that goes in, or one that comes out."""

    name: str
    kind: Literal["input", "output"]
    node: Node

    @property
    def method(self) -> str:
        return adapter_type(self.node).method

    @property
    def shapes(self) -> Shapes:
        return adapter_type(self.node).shapes


@dataclass(frozen=True, eq=False)
class Alike:
    """Adapters of one method and the same sites, two by two.

    Attributes:
        subjects: at most MOST_ALIKE of them.
        products: by layer, ⟨Δᵢ, Δⱼ⟩.
        conflicts: by layer, how many entries of Δᵢ and Δⱼ have opposite signs.
        entries: by layer, how many entries a Δ has.
        sampled: some sites are so large that their conflicts are those of a sample of rows.
    """

    subjects: Sequence[Subject]
    products: Mapping[str, Matrix]
    conflicts: Mapping[str, Matrix]
    entries: Mapping[str, int]
    sampled: bool

    def cosine(self, layers: Iterable[str]) -> Matrix:
        """Of every two, over some layers; NaN with a zero adapter."""
        products: Matrix = np.sum([self.products[layer] for layer in layers], axis=0)
        norms = np.sqrt(np.diagonal(products))
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Matrix = np.clip(products / np.outer(norms, norms), -1.0, 1.0)
        return found

    def conflict(self, layers: Iterable[str]) -> Matrix:
        """The share of entries with opposite signs, of every two, over some layers."""
        layers = list(layers)
        counts: Matrix = np.sum([self.conflicts[layer] for layer in layers], axis=0)
        return counts / sum(self.entries[layer] for layer in layers)


@dataclass
class Measured:
    """Attributes:
    norms: ‖Δ‖ (Frobenius) of each subject by site; ‖l − 1‖ for (IA)³.
    spectra: the singular values of Δ, falling, by site; empty for (IA)³.
    alike: the inputs that can be compared, by method and sites.
    """

    norms: dict[Subject, dict[str, float]]
    spectra: dict[Subject, dict[str, Matrix]]
    alike: list[Alike] = field(default_factory=list)


def layer_name(site: str) -> str:
    """The layer of a site, `other` outside the layers."""
    layer = layer_of(site)
    return "other" if layer is None else str(layer)


def in_order(layers: Iterable[str]) -> list[str]:
    """Layers by number, `other` last; each once."""
    return sorted(
        set(layers), key=lambda name: (name == "other", 0 if name == "other" else int(name))
    )


def measured(graph: Graph, subjects: Sequence[Subject], tick: Tick) -> Measured:
    """Measure adapters of one graph.

    Args:
        graph: their graph.
        subjects: what to measure.
        tick: told of progress.

    Raises:
        PemError: PEM0502 an input that is not finite, PEM0503 a number too large on the way.
    """
    found = Measured({s: {} for s in subjects}, {s: {} for s in subjects})
    groups = [_Group(alike) for alike in _groups(subjects)]
    sites = sorted({site for subject in subjects for site in subject.shapes})
    # One thread in the linear algebra: the same digits whatever the machine.
    with placed(None), threadpool_limits(1), Files() as files:
        evaluator = Evaluator(graph, files)
        for done, site in enumerate(sites):
            tick(f"measuring {site}", done, len(sites))
            parts = evaluator.arrays([subject.node for subject in subjects], site)
            here = {s: part for s, part in zip(subjects, parts, strict=True) if part is not None}
            for subject in subjects:
                if site in subject.shapes:
                    _measure(found, subject, site, here.get(subject))
            for group in groups:
                group.add(site, here)
        files.unchanged()
    found.alike = [group.found() for group in groups]
    return found


def _measure(found: Measured, subject: Subject, site: str, part: Arrays | None) -> None:
    if subject.method != "lora":
        found.norms[subject][site] = 0.0 if part is None else lowrank.norm(part)
        return
    values = np.zeros(1) if part is None else lowrank.singular_values(part)
    found.spectra[subject][site] = values
    found.norms[subject][site] = float(np.linalg.norm(values))


def _groups(subjects: Sequence[Subject]) -> list[list[Subject]]:
    groups: dict[tuple[str, Shapes], list[Subject]] = {}
    for subject in subjects:
        if subject.kind == "input":
            groups.setdefault((subject.method, subject.shapes), []).append(subject)
    return [group[:MOST_ALIKE] for group in groups.values() if len(group) > 1]


class _Group:
    """Sums over the sites of a layer, for adapters that are compared."""

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self._subjects = subjects
        self._products: dict[str, Matrix] = {}
        self._conflicts: dict[str, Matrix] = {}
        self._entries: dict[str, int] = {}
        self._sampled = False

    def add(self, site: str, here: Mapping[Subject, Arrays]) -> None:
        parts = [here[subject] for subject in self._subjects if subject in here]
        if not parts:
            return
        layer, nothing = layer_name(site), np.zeros((len(parts), len(parts)))
        self._products[layer] = self._products.get(layer, nothing) + inner_products(parts)
        share, entries, sampled = sign_conflicts(parts)
        self._conflicts[layer] = self._conflicts.get(layer, nothing) + share * entries
        self._entries[layer] = self._entries.get(layer, 0) + entries
        self._sampled |= sampled

    def found(self) -> Alike:
        return Alike(self._subjects, self._products, self._conflicts, self._entries, self._sampled)


def inner_products(parts: Sequence[Arrays]) -> Matrix:
    """⟨Δᵢ, Δⱼ⟩ of every two adapters at a site: Σ (BᵢᵀBⱼ) ∘ (AᵢAⱼᵀ), by two matrix products for
    all of them. Within an adapter as it was trained nothing cancels that this would lose."""
    if parts[0].b is None:
        gains = np.array([part.a.ravel().astype(np.float64) for part in parts])
        found: Matrix = gains @ gains.T
        return found
    pairs = [lowrank.matrices(part) for part in parts]
    b = np.hstack([part.scale * b for part, (b, _) in zip(parts, pairs, strict=True)])
    a = np.vstack([a for _, a in pairs])
    starts = np.cumsum([0, *(len(a) for _, a in pairs[:-1])])
    by_row = np.add.reduceat((b.T @ b) * (a @ a.T), starts, axis=0)
    return np.add.reduceat(by_row, starts, axis=1)


def sign_conflicts(parts: Sequence[Arrays]) -> tuple[Matrix, int, bool]:
    """The share of the entries of Δᵢ and Δⱼ (of l − 1 for (IA)³) that have opposite signs.

    Returns:
        The share of every two adapters, how many entries a Δ has, and whether the share is that
        of a sample of rows, the same on every machine.
    """
    first = parts[0]
    columns = first.a.size if first.b is None else first.a[0].size
    count = 1 if first.b is None else first.b.shape[0]
    rows = rows_looked_at(count, columns)
    deltas = [_rows(part, rows) for part in parts]
    above = np.array([delta > 0 for delta in deltas], np.float32)
    below = np.array([delta < 0 for delta in deltas], np.float32)
    opposite = (above @ below.T).astype(np.float64)
    return (opposite + opposite.T) / deltas[0].size, count * columns, len(rows) < count


def rows_looked_at(count: int, columns: int) -> list[int]:
    """All rows of a Δ of at most TILE entries; else as many as make a tile, spread by the golden
    ratio, which falls in step with no pattern of heads or blocks."""
    most = max(1, TILE // columns)
    if count <= most:
        return list(range(count))
    return sorted({int(i * 0.6180339887498949 % 1 * count) for i in range(most)})


def _rows(part: Arrays, rows: list[int]) -> Matrix:
    """Some rows of Δ, one after the other."""
    if part.b is None:
        return part.a.ravel().astype(np.float64)
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
