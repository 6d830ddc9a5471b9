"""What is in an adapter directory, for a person: `pem inspect`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pemlang.check.elaborate import leaf
from pemlang.diagnostics import visible
from pemlang.formats.peft import Adapter, read_adapter
from pemlang.graph.node import Graph
from pemlang.inputs.hub import SCHEME, read_hub_adapter
from pemlang.kernels import lowrank
from pemlang.lower.evaluate import Evaluator
from pemlang.ops.agree import TITLES
from pemlang.ops.schedule import layer_of
from pemlang.tensorfiles.digests import adapter_digest
from pemlang.tensorfiles.reader import Files

_BARS = " ▏▎▍▌▋▊▉█"
_WIDTH = 24


@dataclass(frozen=True)
class Row:
    """Sites alike but for their layer: `encoder.layer.*.query`."""

    pattern: str
    count: int
    layers: str
    shape: str
    rank: str
    scale: str
    norm: float


@dataclass(frozen=True)
class Summary:
    """Attributes:
    facts: label and value, in the order to show them.
    rows: the sites by pattern.
    layers: the norm of Δ by layer; the key is empty for sites outside the layers.
    """

    facts: list[tuple[str, str]]
    rows: list[Row]
    layers: dict[str, float]


def summarise(place: str) -> Summary:
    """Read an adapter, in a directory or on the hub, and measure it.

    Raises:
        Fault: as read_adapter and read_hub_adapter; PEM0502 when a tensor holds NaN or infinity.
    """
    adapter = opened(place)
    norms = _norms(adapter)
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for site, site_shape in adapter.layout.shapes.items():
        pattern = pattern_of(site)
        rank = str(adapter.layout.ranks.get(site, "–"))
        scale = f"{adapter.scales[site]:g}" if site in adapter.scales else "–"
        groups.setdefault((pattern, str(site_shape), rank, scale), []).append(site)
    rows = [
        Row(visible(pattern), len(sites), _span(sites), shape, rank, scale, _total(norms, sites))
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
        ("heads", ", ".join(visible(key) for key in adapter.layout.heads) or "none"),
        ("norm", f"{_total(norms, list(norms)):.4g}"),
        ("file", f"{adapter.weights.name}, content {adapter_digest(adapter)[:12]}"),
    ]
    return Summary(facts, rows, layers)


def opened(place: str) -> Adapter:
    """The adapter in a directory or on the hub; raises as read_adapter and read_hub_adapter."""
    if place.startswith(SCHEME):
        return read_hub_adapter(place, whole=True)
    return read_adapter(Path(place))


def pattern_of(site: str) -> str:
    """What sites that are alike but for their layer have in common: `encoder.layer.*.query`."""
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", site, count=1)


def _norms(adapter: Adapter) -> dict[str, float]:
    graph = Graph()
    node = leaf(graph, "", adapter, adapter.config.base)
    with Files() as files:
        evaluator = Evaluator(graph, files)
        found: dict[str, float] = {}
        for site in adapter.layout.shapes:
            [part] = evaluator.arrays([node], site)
            found[site] = 0.0 if part is None else lowrank.norm(part)
        return found


def _total(norms: Mapping[str, float], sites: list[str]) -> float:
    return float(np.linalg.norm([norms[site] for site in sites]))


def _span(sites: list[str]) -> str:
    layers = sorted({layer for site in sites if (layer := layer_of(site)) is not None})
    if not layers:
        return "–"
    whole = layers == list(range(layers[0], layers[-1] + 1))
    if len(layers) == 1:
        return str(layers[0])
    return f"{layers[0]}–{layers[-1]}" if whole else ", ".join(map(str, layers))


def facts_of(adapter: Adapter) -> list[tuple[str, str]]:
    """What config and header say of an adapter, with its heads left out: label and value."""
    config, layout = adapter.config, adapter.layout
    parameters = sum(
        int(np.prod(adapter.header.entries[key].shape))
        for keys in layout.factors.values()
        for key in keys
    )
    facts = [
        ("method", TITLES[adapter.method] + (", rsLoRA" if config.rslora else "")),
        ("base", visible(config.base or "not said")),
        ("sites", str(len(layout.shapes))),
    ]
    if layout.ranks:
        facts += [
            ("rank", _values(layout.ranks)),
            ("scale", _values(adapter.scales)),
        ]
    facts += [
        ("dtype", ", ".join(sorted(layout.dtypes)).lower()),
        ("parameters", f"{parameters:,}"),
    ]
    return facts


def _values(found: Mapping[str, float]) -> str:
    counts = Counter(found.values())
    if len(counts) == 1:
        return f"{next(iter(counts)):g}"
    return ", ".join(f"{value:g} at {count} sites" for value, count in sorted(counts.items()))


def bar(share: float) -> str:
    """A bar of a share from 0 to 1, in eighths of a character."""
    eighths = round(max(0.0, min(1.0, share)) * _WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_BARS[rest] if rest else "")


def as_text(summary: Summary) -> str:
    """The summary as lines for a terminal."""
    width = max(len(label) for label, _ in summary.facts)
    lines = [f"{label:<{width}}  {value}" for label, value in summary.facts]
    head = ("sites", "n", "layers", "shape", "rank", "scale", "norm")
    table = [
        (row.pattern, str(row.count), row.layers, row.shape, row.rank, row.scale, f"{row.norm:.4g}")
        for row in summary.rows
    ]
    widths = [max(len(cells[i]) for cells in [head, *table]) for i in range(len(head))]
    lines.append("")
    for cells in [head, *table]:
        lines.append("  ".join(f"{c:<{w}}" for c, w in zip(cells, widths, strict=True)).rstrip())
    top = max(summary.layers.values(), default=0.0) or 1.0
    label = max(len(name) for name in summary.layers) if summary.layers else 1
    lines += ["", "norm of Δ by layer"]
    for name, norm in summary.layers.items():
        lines.append(f"{name or '–':>{max(label, 1)}}  {bar(norm / top):<{_WIDTH}}  {norm:.4g}")
    return "\n".join(lines)
