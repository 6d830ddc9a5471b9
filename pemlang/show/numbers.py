"""The numbers behind the charts of a report, as `pem report --format json` gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal

from pemlang.compare.measure import (
    Alike,
    MeasuredAdapter,
    Measurements,
    in_order,
    layer_name,
    truncation_curve,
)
from pemlang.dataclass import dataclass
from pemlang.show.figures import by_layer


@dataclass(frozen=True)
class MeasuredJson:
    """An adapter that was measured, or a model by what it changes of the one that it is made from
    or by its weights: its norm in all and by layer, ‖l − 1‖ for (IA)³; and the share
    of the norm that a truncation to rank 0, 1, … loses, which an (IA)³ has none of."""

    name: str
    role: Literal["input", "output"]
    norm: float
    layers: Mapping[str, float]
    lost_at_rank: Sequence[float]


@dataclass(frozen=True)
class LikenessJson:
    """Two adapters of one method and the same sites: the cosine of their Δ, null with a zero one;
    and the share of entries with opposite signs."""

    adapters: tuple[str, str]
    cosine: float | None
    sign_conflict: float


@dataclass(frozen=True)
class FiguresJson:
    """What was measured of a recipe, an adapter or a model."""

    target: str
    adapters: Sequence[MeasuredJson]
    likeness: Sequence[LikenessJson]


@dataclass(frozen=True)
class ReportJson:
    """`pem report`: the page that was written, the titles of its sections, and the numbers behind
    its charts."""

    path: str
    sections: Sequence[str]
    figures: Sequence[FiguresJson]


def figures_of(target: str, measurements: Measurements) -> FiguresJson:
    """What was measured, as plain values."""
    return FiguresJson(
        target,
        [_measured(measurements, adapter) for adapter in measurements.norms],
        [pair for alike in measurements.alike for pair in _pairs(alike)],
    )


def _measured(measurements: Measurements, adapter: MeasuredAdapter) -> MeasuredJson:
    norms, spectra = measurements.norms[adapter], measurements.spectra[adapter]
    layers = in_order(map(layer_name, norms))
    by_name = zip(layers, by_layer(norms).row(layers), strict=True)
    return MeasuredJson(
        adapter.name,
        adapter.role,
        sum(norm**2 for norm in norms.values()) ** 0.5,
        {layer: norm for layer, norm in by_name if norm is not None},
        [float(share) for share in truncation_curve(spectra)] if spectra else [],
    )


def _pairs(alike: Alike) -> Iterator[LikenessJson]:
    cosines, conflicts = alike.cosine(alike.products), alike.conflict(alike.products)
    for (i, left), (j, right) in combinations(enumerate(alike.adapters), 2):
        yield LikenessJson((left.name, right.name), float(cosines[i, j]), float(conflicts[i, j]))
