"""The charts of a report, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from pemlang.compare.measure import (
    TILE,
    Alike,
    Measured,
    Subject,
    in_order,
    layer_name,
    mean_spectrum,
    truncation_curve,
)
from pemlang.compare.summary import pattern_of
from pemlang.kernels.lowrank import Matrix
from pemlang.ops.agree import TITLES
from pemlang.show.page import Chart, View, chart, paragraph

_MOST_NUMBERS = 150_000
"""Numbers of one chart that can be chosen by site: a page stays a few megabytes."""
_LONGEST_SPECTRUM = 512
_MOST_PAIRS = 60
_NOTHING = 1e-10
"""Below this share of the largest, a singular value is rounding."""

_ALL = "all modules"
_DELTA = {
    "lora": "‖Δ‖ (Frobenius), Δ = s·B·A, over the sites of a layer",
    "ia3": "‖l − 1‖, the gains' distance from doing nothing, over the sites of a layer",
}


def _methods(subjects: Sequence[Subject]) -> dict[str, list[Subject]]:
    found: dict[str, list[Subject]] = {}
    for subject in subjects:
        found.setdefault(subject.method, []).append(subject)
    return found


def _label(subject: Subject) -> str:
    return subject.name if subject.kind == "input" else f"→ {subject.name}"


# --- norms -----------------------------------------------------------------------------------


def norm_maps(found: Measured) -> str:
    """For each method a heat map, adapters by layers; one kind of module at a time, or all."""
    return "".join(
        chart(
            Chart(
                "heat",
                f"Norm by layer, {TITLES[method]}",
                f"{_DELTA[method]}. Outputs are marked with an arrow.",
                layers := in_order(layer_name(s) for one in subjects for s in one.shapes),
                "layer",
                [_norm_view(found, subjects, layers, only) for only in _patterns(subjects, layers)],
                "norm",
                choice="modules",
            )
        )
        for method, subjects in _methods(list(found.norms)).items()
    )


def _patterns(subjects: Sequence[Subject], layers: Sequence[str]) -> list[str | None]:
    """The kinds of modules to choose from, as far as a page can hold them; None is all."""
    patterns = sorted({pattern_of(site) for one in subjects for site in one.shapes})
    numbers = len(patterns) * len(subjects) * len(layers)
    return [None, *patterns] if len(patterns) > 1 and numbers <= _MOST_NUMBERS else [None]


def _norm_view(
    found: Measured, subjects: Sequence[Subject], layers: Sequence[str], only: str | None
) -> View:
    rows = [(_label(s), by_layer(found.norms[s], only).row(layers)) for s in subjects]
    return View(only or _ALL, rows)


class _Layers:
    """Squares of norms, added up by layer."""

    def __init__(self) -> None:
        self._squares: dict[str, float] = {}

    def add(self, site: str, norm: float) -> None:
        layer = layer_name(site)
        self._squares[layer] = self._squares.get(layer, 0.0) + norm**2

    def row(self, layers: Sequence[str]) -> list[float | None]:
        """The norm over the sites of each layer; None where there is no site."""
        found = self._squares
        return [found[layer] ** 0.5 if layer in found else None for layer in layers]


def by_layer(norms: Mapping[str, float], only: str | None = None) -> _Layers:
    """The norms of an adapter by layer, those of a pattern alone where one is given."""
    found = _Layers()
    for site, norm in norms.items():
        if only is None or pattern_of(site) == only:
            found.add(site, norm)
    return found


def module_map(found: Measured, subject: Subject) -> str:
    """A heat map of one adapter, kinds of modules by layers."""
    norms = found.norms[subject]
    layers = in_order(map(layer_name, norms))
    kinds: dict[str, _Layers] = {}
    for site, norm in norms.items():
        kinds.setdefault(pattern_of(site), _Layers()).add(site, norm)
    if len(kinds) * len(layers) > _MOST_NUMBERS:
        kinds = {}  # names that have nothing in common: the table of sites is what tells
    rows = [(kind, of_kind.row(layers)) for kind, of_kind in sorted(kinds.items())]
    view = View("", [*rows, ("all", by_layer(norms).row(layers))])
    about = _DELTA[subject.method].replace("over the sites of a layer", "at each module")
    return chart(
        Chart("heat", "Norm by module and layer", f"{about}.", layers, "layer", [view], "norm")
    )


# --- likeness --------------------------------------------------------------------------------


def likeness(alike: Alike) -> str:
    """Cosines and sign conflicts of every two adapters, in all and by layer."""
    names, layers = [one.name for one in alike.subjects], in_order(alike.products)
    method = TITLES[alike.subjects[0].method]
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
    return [(name, _known(row)) for name, row in zip(names, values, strict=True)]


def _known(values: Matrix) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _pairs(alike: Alike, layers: Sequence[str]) -> str:
    """One pair at a time, by layer."""
    cosines = np.array([alike.cosine([layer]) for layer in layers])
    conflicts = np.array([alike.conflict([layer]) for layer in layers])
    pairs = list(combinations(enumerate(one.name for one in alike.subjects), 2))[:_MOST_PAIRS]
    views = [
        View(
            f"{one} and {other}",
            [("cosine", _known(cosines[:, i, j])), ("sign conflict", _known(conflicts[:, i, j]))],
        )
        for (i, one), (j, other) in pairs
    ]
    return chart(
        Chart(
            "lines",
            f"Likeness by layer, {TITLES[alike.subjects[0].method]}",
            "The cosine and the sign conflict of two adapters in each layer.",
            layers,
            "layer",
            views,
            "",
            choice="adapters",
        )
    )


# --- spectra ---------------------------------------------------------------------------------


def spectra(found: Measured) -> str:
    """Singular values, at a site or their mean, and what a truncation would lose."""
    known = {s: values for s, values in found.spectra.items() if values}
    if not known:
        return paragraph("None of these is a LoRA: a gain has no spectrum.")
    return f'<div class="pair">{chart(_spectrum(known))}{chart(_losses(known))}</div>'


def _spectrum(known: Mapping[Subject, Mapping[str, Matrix]]) -> Chart:
    sites = sorted({site for values in known.values() for site in values})
    count = sum(len(v) for values in known.values() for v in values.values())
    means = {subject: mean_spectrum(values) for subject, values in known.items()}
    most = min(_LONGEST_SPECTRUM, max(map(len, means.values())))
    views = [View("mean over sites", [(_label(s), _falling(v, most)) for s, v in means.items()])]
    if count <= _MOST_NUMBERS:
        views += [
            View(
                site, [(_label(s), _falling(v[site], most)) for s, v in known.items() if site in v]
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


def _losses(known: Mapping[Subject, Mapping[str, Matrix]]) -> Chart:
    chosen = [s for s in known if s.kind == "output"] or list(known)
    curves = {subject: truncation_curve(known[subject]) for subject in chosen}
    most = min(_LONGEST_SPECTRUM, max(map(len, curves.values())))
    rows = [
        (_label(s), [*map(float, c[:most]), *[None] * (most - len(c))]) for s, c in curves.items()
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
