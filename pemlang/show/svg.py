"""The picture of a graph as SVG: layers from left to right, every label in a place of its own.

Boxes stand in even columns. A line goes through a place in each column between its ends, and has
its label on it in the first odd one, so that no label can lie on a box or on another label.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence
from dataclasses import field
from itertools import pairwise
from pathlib import Path

from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.show.graph import Edge, Picture, Vertex

_BOX, _LABEL, _LANE = 46.0, 30.0, 14.0  # heights
_GAP, _CURVE, _MARGIN, _ARROW = 14.0, 24.0, 12.0, 7.0
_TITLE_SIZE, _DETAIL_SIZE, _LABEL_SIZE = 13.0, 11.0, 11.0
_SWEEPS = 12
_FITS = 1600.0  # a wider picture would not be readable when it is made to fit a page
_NARROW, _WIDE = frozenset("iIjlrtf.,:;'|!()[]{} -·/\\"), frozenset("mwMWQOG%@&⊕⊗⊖—…")


@dataclass(eq=False)
class _VertexPlace:
    """Where a box is, or where a line goes through a column."""

    layer: int
    width: float
    height: float
    vertex: Vertex | None = None
    y: float = 0.0
    before: list[_VertexPlace] = field(default_factory=list)
    after: list[_VertexPlace] = field(default_factory=list)


@dataclass(frozen=True)
class _EdgePath:
    """An edge with the places it goes through, its ends included."""

    edge: Edge
    through: Sequence[_VertexPlace]


def as_svg(picture: Picture, alone: bool = True) -> str:
    """The picture as an SVG element.

    Args:
        picture: what to draw.
        alone: a file of its own, with its colours; else the page around it has STYLE's rules.
    """
    columns, lines = _columns(picture)
    for index in range(_SWEEPS):
        _order(columns, forward=index % 2 == 0)
    for index in range(_SWEEPS):
        _settle(columns, forward=index % 2 == 0)
    lefts, widths = _across(columns)
    top = min((p.y - p.height / 2 for column in columns for p in column), default=0.0)
    for column in columns:
        for place in column:
            place.y += _MARGIN - top
    height = max((p.y + p.height / 2 for c in columns for p in c), default=0.0) + _MARGIN
    width = (lefts[-1] + widths[-1] if columns else 0.0) + _MARGIN
    body = [_drawn_line(line, lefts, widths) for line in lines]
    body += [
        _drawn_box(place, lefts[place.layer])
        for column in columns
        for place in column
        if place.vertex is not None
    ]
    style = f"<style>{graph_style()}</style>" if alone else ""
    kind = "pem-graph" if width <= _FITS else "pem-graph wide"
    return (
        f'<svg class="{kind}" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'aria-label="{escaped(_summary(picture))}" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">{style}\n' + "\n".join(body) + "\n</svg>\n"
    )


def graph_style() -> str:
    """The rules of the classes used here, for light and dark."""
    return (Path(__file__).parent / "assets" / "graph.css").read_text(encoding="utf-8").strip()


def _summary(picture: Picture) -> str:
    adapters = sum(vertex.kind == "adapter" for vertex in picture.vertices)
    outputs = [vertex.title for vertex in picture.vertices if vertex.kind == "output"]
    return f"A graph from {adapters} adapters to {len(outputs)} outputs: {', '.join(outputs)}"


# --- columns ---------------------------------------------------------------------------------


def _columns(picture: Picture) -> tuple[list[list[_VertexPlace]], list[_EdgePath]]:
    """The places of every column, and the lines through them."""
    layers = _layers(picture)
    columns: list[list[_VertexPlace]] = [[] for _ in range(2 * max(layers, default=-1) + 1)]
    boxes = []
    for vertex, layer in zip(picture.vertices, layers, strict=True):
        place = _VertexPlace(2 * layer, _box_width(vertex), _BOX, vertex)
        boxes.append(place)
        columns[place.layer].append(place)
    lines = []
    for edge in picture.edges:
        start, end = boxes[edge.source], boxes[edge.target]
        lane = [_VertexPlace(start.layer + 1, text_width(edge.label, _LABEL_SIZE) + 4, _LABEL)]
        lane += [_VertexPlace(layer, 0, _LANE) for layer in range(start.layer + 2, end.layer)]
        for place in lane:
            columns[place.layer].append(place)
        through = [start, *lane, end]
        for place, next_place in pairwise(through):
            place.after.append(next_place)
            next_place.before.append(place)
        lines.append(_EdgePath(edge, through))
    return columns, lines


def _layers(picture: Picture) -> list[int]:
    """The column of each box: after all it is made from; what is made from nothing just before
    its first use, and all outputs in the last."""
    import networkx as nx

    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(picture.vertices)))
    graph.add_edges_from((edge.source, edge.target) for edge in picture.edges)
    layer = {
        node: depth
        for depth, generation in enumerate(nx.topological_generations(graph))
        for node in generation
    }
    for node in graph:
        if not graph.in_degree(node) and graph.out_degree(node):
            layer[node] = min(layer[user] for user in graph.successors(node)) - 1
    last = max(layer.values(), default=0)
    return [
        last if vertex.kind == "output" else layer[i] for i, vertex in enumerate(picture.vertices)
    ]


def _order(columns: Sequence[list[_VertexPlace]], forward: bool) -> None:
    """Sort each column by the mean rank of the neighbours in the one before (or after)."""
    for column in columns:
        _rank(column)
    for column in columns if forward else reversed(columns):
        column.sort(key=lambda place: _beside(place, forward))
        _rank(column)


def _rank(column: Sequence[_VertexPlace]) -> None:
    for index, place in enumerate(column):
        place.y = float(index)


def _beside(place: _VertexPlace, forward: bool) -> float:
    """The mean y of the neighbours in the column before (or after), or in the other where there
    are none; its own where it stands alone."""
    near = (place.before if forward else place.after) or place.before or place.after
    return sum(other.y for other in near) / len(near) if near else place.y


def _settle(columns: Sequence[list[_VertexPlace]], forward: bool) -> None:
    """Move the places of each column as close to their neighbours as their order and heights
    let them."""
    for column in columns if forward else reversed(columns):
        wanted = [_beside(place, forward) for place in column]
        for place, y in zip(column, _apart(wanted, [p.height for p in column]), strict=True):
            place.y = y


def _apart(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Places in the order given that do not overlap, by least squares from those wanted: what
    runs into another joins it, and both move to their mean (pool adjacent violators)."""
    offsets = [0.0]
    for height, next_height in pairwise(heights):
        offsets.append(offsets[-1] + (height + next_height) / 2 + _GAP)
    blocks: list[tuple[float, int]] = []
    for y, offset in zip(wanted, offsets, strict=False):
        mean, size = y - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, size = (before * many + mean * size) / (many + size), many + size
        blocks.append((mean, size))
    flat = [mean for mean, size in blocks for _ in range(size)]
    return [mean + offset for mean, offset in zip(flat, offsets, strict=False)]


def _across(columns: Sequence[Sequence[_VertexPlace]]) -> tuple[list[float], list[float]]:
    """The left edge and the width of each column."""
    lefts, widths, x = [], [], _MARGIN
    for column in columns:
        lefts.append(x)
        widths.append(max((place.width for place in column), default=0.0))
        x += widths[-1] + _CURVE
    return lefts, widths


# --- drawing ---------------------------------------------------------------------------------


def _drawn_box(place: _VertexPlace, left: float) -> str:
    vertex = place.vertex
    assert vertex is not None
    middle, lines = left + place.width / 2, [("title", vertex.title)]
    if vertex.detail:
        lines.append(("detail", vertex.detail))
    first = place.y + (-3.0 if len(lines) == 2 else 4.5)
    texts = "".join(
        f'<text class="{name}" x="{middle:.1f}" y="{first + 17 * i:.1f}">{escaped(text)}</text>'
        for i, (name, text) in enumerate(lines)
    )
    return (
        f'<g class="{vertex.kind}"><rect x="{left:.1f}" y="{place.y - _BOX / 2:.1f}" '
        f'width="{place.width:.1f}" height="{_BOX:.0f}" rx="8"/>{texts}</g>'
    )


def _drawn_line(line: _EdgePath, lefts: Sequence[float], widths: Sequence[float]) -> str:
    start, *lane, end = line.through
    x, y = lefts[start.layer] + widths[start.layer], start.y
    steps = [f"M{lefts[start.layer] + start.width:.1f} {y:.1f}H{x:.1f}"]
    for place in lane:
        left = lefts[place.layer]
        steps.append(_curve(x, y, left, place.y))
        x, y = left + widths[place.layer], place.y
        steps.append(f"H{x:.1f}")
    tip = lefts[end.layer]
    steps.append(_curve(x, y, tip - _ARROW, end.y))
    arrow = f"M{tip:.1f} {end.y:.1f}l-{_ARROW + 1:.0f} -4v8z"
    label = lane[0]
    middle = lefts[label.layer] + widths[label.layer] / 2
    return (
        f'<g class="line"><path d="{"".join(steps)}"/><path class="tip" d="{arrow}"/>'
        f'<text x="{middle:.1f}" y="{label.y - 5:.1f}">{escaped(line.edge.label)}</text></g>'
    )


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    if abs(y - to_y) < 0.05:
        return f"H{to_x:.1f}"
    half = (to_x - x) / 2
    return f"C{x + half:.1f} {y:.1f} {to_x - half:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"


def _box_width(vertex: Vertex) -> float:
    title = text_width(vertex.title, _TITLE_SIZE) * 1.06  # bold
    return max(title, text_width(vertex.detail, _DETAIL_SIZE)) + 24


def text_width(text: str, size: float) -> float:
    """About how wide a text is in a sans-serif font of a size, rather too wide than too narrow."""
    return size * sum(map(_character_width, text))


def _character_width(c: str) -> float:
    if unicodedata.combining(c):
        return 0.0
    if unicodedata.east_asian_width(c) in "WF":
        return 1.05
    if c in _NARROW:
        return 0.38
    if c in _WIDE:
        return 0.95
    return 0.7 if c.isupper() else 0.62


def escaped(text: str) -> str:
    """Text for XML, which has no code for a few characters."""
    return html.escape(visible(text, 500)).replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd")
