"""The charts of a report, from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from pemlang.compare.measure import (
    TILE,
    Alike,
    MeasuredAdapter,
    Measurements,
    in_order,
    layer_name,
    mean_spectrum,
    truncation_curve,
)
from pemlang.compare.summary import pattern_of
from pemlang.kernels.algebra import Matrix
from pemlang.lazy import numpy as np
from pemlang.modules import PARAMETRISATIONS, Parametrisation
from pemlang.show.page import Chart, View, chart, paragraph

_MOST_NUMBERS = 150_000
"""Numbers of one chart that can be chosen by site: a page stays a few megabytes."""
_LONGEST_SPECTRUM = 512
_MOST_PAIRS = 60
_NOTHING = 1e-10
"""Below this share of the largest, a singular value is rounding."""

_ALL = "all modules"


def _by_kinds(
    adapters: Iterable[MeasuredAdapter],
) -> dict[tuple[str, ...], list[MeasuredAdapter]]:
    groups: dict[tuple[str, ...], list[MeasuredAdapter]] = {}
    for adapter in adapters:
        groups.setdefault(adapter.kinds, []).append(adapter)
    return groups


def _label(adapter: MeasuredAdapter) -> str:
    return adapter.name if adapter.role == "input" else f"→ {adapter.name}"


def _norm_title(adapter: MeasuredAdapter) -> str:
    """What its norm is; of one that mixes kinds what all norms are."""
    [*records] = (PARAMETRISATIONS[kind] for kind in adapter.kinds)
    return records[0].norm_title if len(records) == 1 else Parametrisation.norm_title


# --- norms -----------------------------------------------------------------------------------


def norm_maps(measurements: Measurements) -> str:
    """For each method a heat map, adapters by layers; one kind of module at a time, or all."""
    return "".join(
        _norm_map(measurements, adapters) for adapters in _by_kinds(measurements.norms).values()
    )


def _norm_map(measurements: Measurements, adapters: Sequence[MeasuredAdapter]) -> str:
    layers = in_order(layer_name(site) for adapter in adapters for site in adapter.shapes)
    return chart(
        Chart(
            "heat",
            f"Norm by layer, {adapters[0].title}",
            f"{_norm_title(adapters[0])}, over the sites of a layer. Outputs are marked with an "
            "arrow.",
            layers,
            "layer",
            [
                _norm_view(measurements, adapters, layers, only)
                for only in _patterns(adapters, layers)
            ],
            "norm",
            choice="modules",
        )
    )


def _patterns(adapters: Sequence[MeasuredAdapter], layers: Sequence[str]) -> list[str | None]:
    """The kinds of modules to choose from, as far as a page can hold them; None is all."""
    patterns = sorted({pattern_of(site) for adapter in adapters for site in adapter.shapes})
    numbers = len(patterns) * len(adapters) * len(layers)
    return [None, *patterns] if len(patterns) > 1 and numbers <= _MOST_NUMBERS else [None]


def _norm_view(
    measurements: Measurements,
    adapters: Sequence[MeasuredAdapter],
    layers: Sequence[str],
    only: str | None,
) -> View:
    rows = [(_label(x), by_layer(measurements.norms[x], only).row(layers)) for x in adapters]
    return View(only or _ALL, rows)


class _LayerNorms:
    """Squares of norms, added up by layer."""

    def __init__(self) -> None:
        self._squares: dict[str, float] = {}

    def add(self, site: str, norm: float) -> None:
        layer = layer_name(site)
        self._squares[layer] = self._squares.get(layer, 0.0) + norm**2

    def row(self, layers: Sequence[str]) -> list[float | None]:
        """The norm over the sites of each layer; None where there is no site."""
        squares = (self._squares.get(layer) for layer in layers)
        return [None if square is None else square**0.5 for square in squares]


def by_layer(norms: Mapping[str, float], only: str | None = None) -> _LayerNorms:
    """The norms of an adapter by layer, those of a pattern alone where one is given."""
    total = _LayerNorms()
    for site, norm in norms.items():
        if only is None or pattern_of(site) == only:
            total.add(site, norm)
    return total


def module_map(measurements: Measurements, adapter: MeasuredAdapter, title: str = "") -> str:
    """A heat map of one adapter, kinds of modules by layers; `title` says what its norm is where
    its kind does not."""
    norms = measurements.norms[adapter]
    layers = in_order(map(layer_name, norms))
    kinds: dict[str, _LayerNorms] = {}
    for site, norm in norms.items():
        kinds.setdefault(pattern_of(site), _LayerNorms()).add(site, norm)
    if len(kinds) * len(layers) > _MOST_NUMBERS:
        kinds = {}  # names that have nothing in common: the table of sites is what tells
    rows = [(kind, of_kind.row(layers)) for kind, of_kind in sorted(kinds.items())]
    view = View("", [*rows, ("all", by_layer(norms).row(layers))])
    about = f"{title or _norm_title(adapter)}, at each module"
    return chart(
        Chart("heat", "Norm by module and layer", f"{about}.", layers, "layer", [view], "norm")
    )


# --- likeness --------------------------------------------------------------------------------


def likeness(alike: Alike) -> str:
    """Cosines and sign conflicts of every two adapters, in all and by layer."""
    names, layers = [adapter.name for adapter in alike.adapters], in_order(alike.products)
    method = alike.adapters[0].title
    rows = f" Sites of more than {TILE:,} entries are judged by a sample of their rows."
    cosine = Chart(
        "heat",
        f"Cosine, {method}",
        "⟨Δx, Δy⟩ / (‖Δx‖·‖Δy‖) over all sites: 1 the same direction, 0 nothing in common, "
        "−1 opposite.",
        names,
        "",
        [View("", _square(names, alike.cosine(layers)))],
        "cosine",
        range=(-1.0, 0.0, 1.0),
    )
    conflict = Chart(
        "heat",
        f"Sign conflict, {method}",
        "The share of all entries of Δ where the two have opposite signs, each entry counted "
        "alike: 0.5 is what chance gives." + rows * alike.sampled,
        names,
        "",
        [View("", _square(names, alike.conflict(layers)))],
        "share of entries",
        range=(1.0, 0.5, 0.0),
    )
    return f'<div class="pair">{chart(cosine)}{chart(conflict)}</div>' + _pairs(alike, layers)


def _square(names: Sequence[str], values: Matrix) -> list[tuple[str, list[float | None]]]:
    return [(name, _finite(row)) for name, row in zip(names, values, strict=True)]


def _finite(values: Matrix) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _pairs(alike: Alike, layers: Sequence[str]) -> str:
    """One pair at a time, by layer."""
    cosines = np.array([alike.cosine([layer]) for layer in layers])
    conflicts = np.array([alike.conflict([layer]) for layer in layers])
    names = enumerate(adapter.name for adapter in alike.adapters)
    pairs = list(combinations(names, 2))[:_MOST_PAIRS]
    views = [
        View(
            f"{left} and {right}",
            [("cosine", _finite(cosines[:, i, j])), ("sign conflict", _finite(conflicts[:, i, j]))],
        )
        for (i, left), (j, right) in pairs
    ]
    return chart(
        Chart(
            "lines",
            f"Likeness by layer, {alike.adapters[0].title}",
            "The cosine and the sign conflict of two adapters in each layer.",
            layers,
            "layer",
            views,
            "",
            choice="adapters",
        )
    )


# --- spectra ---------------------------------------------------------------------------------


SiteSpectra = Mapping[MeasuredAdapter, Mapping[str, Matrix]]


def spectra(measurements: Measurements) -> str:
    """Singular values, at a site or their mean, and what a truncation would lose."""
    low_rank = {x: by_site for x, by_site in measurements.spectra.items() if by_site}
    if not low_rank:
        return paragraph("None of these is a LoRA: only what has a rank has a spectrum here.")
    return f'<div class="pair">{chart(_spectrum(low_rank))}{chart(_losses(low_rank))}</div>'


def _spectrum(spectra: SiteSpectra) -> Chart:
    sites = sorted({site for by_site in spectra.values() for site in by_site})
    count = sum(len(values) for by_site in spectra.values() for values in by_site.values())
    means = {adapter: mean_spectrum(by_site) for adapter, by_site in spectra.items()}
    most = min(_LONGEST_SPECTRUM, max(map(len, means.values())))
    views = [View("mean over sites", [(_label(x), _falling(v, most)) for x, v in means.items()])]
    if count <= _MOST_NUMBERS:
        views += [
            View(
                site,
                [
                    (_label(adapter), _falling(by_site[site], most))
                    for adapter, by_site in spectra.items()
                    if site in by_site
                ],
            )
            for site in sites
        ]
    more = "" if count <= _MOST_NUMBERS else " There are too many sites to choose one here."
    return Chart(
        "lines",
        "Singular values of Δ",
        "Falling. In the mean, a site of a lower rank counts as zero where it has none." + more,
        [str(i + 1) for i in range(most)],
        "index",
        views,
        "σ",
        choice="site",
        log=True,
    )


def _falling(values: Matrix, most: int) -> list[float | None]:
    floor = _NOTHING * float(values.max(initial=0.0))
    kept = [float(value) if value > floor else None for value in values[:most]]
    return kept + [None] * (most - len(kept))


def _losses(spectra: SiteSpectra) -> Chart:
    chosen = [adapter for adapter in spectra if adapter.role == "output"] or list(spectra)
    curves = {adapter: truncation_curve(spectra[adapter]) for adapter in chosen}
    most = min(_LONGEST_SPECTRUM, max(map(len, curves.values())))
    rows = [
        (_label(adapter), [*map(float, curve[:most]), *[None] * (most - len(curve))])
        for adapter, curve in curves.items()
    ]
    return Chart(
        "lines",
        "What a truncation loses",
        "‖Δ − Δ cut to a rank‖ / ‖Δ‖ over all sites: what `with rank=…` would cost at best.",
        [str(i) for i in range(most)],
        "rank",
        [View("", rows)],
        "share of the norm",
    )
