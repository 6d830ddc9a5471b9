"""What is in an adapter."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pemlang.artifact.provenance import read_provenance
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.formats import Adapter
from pemlang.formats.homes import tensor_of_head
from pemlang.formats.identity import adapter_digest
from pemlang.graph.dag import Graph
from pemlang.graph.formula import count
from pemlang.graph.leaves import leaf
from pemlang.lazy import numpy as np
from pemlang.modules.sites import layer_of
from pemlang.pipeline.reading import reading


@dataclass(frozen=True)
class PatternRow:
    """Sites alike but for their layer: `encoder.layer.*.query`."""

    pattern: str
    count: int
    layers: str
    shape: str
    rank: str
    scale: str
    norm: float


@dataclass(frozen=True)
class AdapterSummary:
    """Attributes:
    facts: label and value, in the order to show them.
    rows: the sites by pattern.
    layers: the norm of Δ by layer; the key is empty for sites outside the layers.
    """

    facts: list[tuple[str, str]]
    rows: list[PatternRow]
    layers: dict[str, float]


def summarise(adapter: Adapter) -> AdapterSummary:
    """Measure an adapter; raises Fault PEM0502 when a tensor holds NaN or infinity."""
    norms = _norms(adapter)
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for site, site_shape in adapter.layout.shapes.items():
        pattern = pattern_of(site)
        rank = str(adapter.layout.ranks.get(site, "–"))
        scale = f"{adapter.scales[site]:g}" if site in adapter.scales else "–"
        groups.setdefault((pattern, str(site_shape), rank, scale), []).append(site)
    rows = [
        PatternRow(
            visible(pattern), len(sites), _span(sites), shape, rank, scale, _total(norms, sites)
        )
        for (pattern, shape, rank, scale), sites in groups.items()
    ]
    by_layer: dict[str, list[str]] = {}
    for site in norms:
        layer = layer_of(site)
        by_layer.setdefault("" if layer is None else str(layer), []).append(site)
    order = sorted(by_layer, key=lambda name: (name == "", int(name or 0)))
    layers = {name: _total(norms, by_layer[name]) for name in order}
    facts = [
        *facts_of(adapter),
        *heads_of(adapter),
        ("norm", f"{_total(norms, list(norms)):.4g}"),
        ("file", f"{visible(adapter.weights.name)}, content {adapter_digest(adapter)[:12]}"),
        *origin_of(adapter.place),
    ]
    return AdapterSummary(facts, rows, layers)


def heads_of(adapter: Adapter) -> list[tuple[str, str]]:
    """What is saved whole beside an adapter: label and value."""
    layout = adapter.layout
    told_apart = layout.copies | layout.of_base
    heads = ", ".join(visible(key) for key in layout.heads if key not in told_apart)
    copies = ", ".join(visible(key) for key in sorted(layout.copies))
    biases = len(layout.of_base - layout.rows.keys())
    trained = [f"{biases} bias{'es' * (biases != 1)}"] * bool(biases)
    for key, tokens in layout.rows.items():
        trained.append(f"{count(len(tokens), 'row')} of {visible(tensor_of_head(key))}")
    return [
        ("heads", heads or "none"),
        *[("base's own", copies)] * bool(copies),
        *[("trained", ", ".join(trained))] * bool(trained),
    ]


def origin_of(place: Path) -> Iterator[tuple[str, str]]:
    """What built an output, by what it says of itself: label and value; of anything else none."""
    try:
        made = read_provenance(place)
    except Fault:
        return
    yield "built from", f"{visible(made.recipe)}: {visible(made.expression, 80)}"


def pattern_of(site: str) -> str:
    """What sites that are alike but for their layer have in common: `encoder.layer.*.query`."""
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", site, count=1)


def _norms(adapter: Adapter) -> dict[str, float]:
    graph = Graph()
    node = leaf(graph, "", adapter, adapter.base)
    norms: dict[str, float] = {}
    with reading(graph) as reader:
        for site in adapter.layout.shapes:
            [part] = reader.parts([node], site)
            with np.errstate(over="ignore"):  # a norm may be infinite
                norms[site] = 0.0 if part is None else part.norm()
    return norms


def _total(norms: Mapping[str, float], sites: list[str]) -> float:
    return math.hypot(*(norms[site] for site in sites))


def _span(sites: list[str]) -> str:
    layers = sorted({layer for site in sites if (layer := layer_of(site)) is not None})
    if not layers:
        return "–"
    whole = layers[-1] - layers[0] + 1 == len(layers)
    if len(layers) == 1:
        return str(layers[0])
    return f"{layers[0]}–{layers[-1]}" if whole else ", ".join(map(str, layers))


def facts_of(adapter: Adapter) -> list[tuple[str, str]]:
    """What config and header say of an adapter, with its heads left out: label and value."""
    layout = adapter.layout
    facts = [
        ("method", adapter.title),
        ("base", visible(adapter.base or "not said")),
        ("sites", str(len(layout.shapes))),
    ]
    if layout.ranks:
        facts += [
            ("rank", _values(layout.ranks)),
            ("scale", _values(adapter.scales)),
        ]
    facts += [
        ("dtype", ", ".join(sorted(layout.dtypes)).lower()),
        ("parameters", f"{adapter.parameters():,}"),
    ]
    return facts


def _values(by_site: Mapping[str, float]) -> str:
    counts = Counter(by_site.values())
    if len(counts) == 1:
        return f"{next(iter(counts)):g}"
    return ", ".join(f"{value:g} at {count(n, 'site')}" for value, n in sorted(counts.items()))
