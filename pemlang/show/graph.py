"""The typed graph of a recipe as a picture: adapters, what is made of them, what is saved.

Here is what is drawn, and how Mermaid and Graphviz say it; svg.py draws it itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pemlang.check.checked import Checked
from pemlang.check.outputs import Output
from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.graph.formula import Formula, type_text
from pemlang.graph.leaves import Stored
from pemlang.graph.node import Node

MOST_VERTICES, MOST_EDGES = 400, 1500
_TITLE, _DETAIL = 36, 40  # characters of a name, and of a line below it

VertexKind = Literal["adapter", "operator", "number", "output"]


class TooMany(Exception):
    """A graph that no picture makes readable; its text says how large it is."""


@dataclass(frozen=True)
class Vertex:
    """A box.

    Attributes:
        kind: what it stands for.
        title: its name: of an adapter, an operator, the path of an output.
        detail: the line below: a path, a formula, what is saved.
    """

    kind: VertexKind
    title: str
    detail: str


@dataclass(frozen=True)
class Edge:
    """From what is used to what is made from it, by index, with its coefficient and type."""

    source: int
    target: int
    label: str


@dataclass(frozen=True)
class Picture:
    """What is drawn: sources before what is made from them, outputs last."""

    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class GraphJson:
    """`pem graph`: boxes, sources before what is made from them, outputs last; and lines between
    them, by index."""

    vertices: Sequence[Vertex]
    edges: Sequence[Edge]


def picture(checked: Checked) -> Picture:
    """The graph of everything a recipe saves.

    The order of its boxes depends on the recipe's text alone, not on where its files lie.

    Raises:
        TooMany: above MOST_VERTICES boxes or MOST_EDGES lines.
    """
    roots = [output.node for output in checked.outputs]
    nodes = checked.graph.order(roots)
    lines = sum(len(node.sources) for node in nodes) + len(roots)
    if len(nodes) + len(roots) > MOST_VERTICES or lines > MOST_EDGES:
        raise TooMany(
            f"this graph has {len(nodes) + len(roots):,} boxes and {lines:,} lines; a picture of "
            f"more than {MOST_VERTICES} or {MOST_EDGES:,} is not readable"
        )
    return _Drawn(checked).all(checked.outputs)


class _Drawn:
    """Collects the boxes and lines of one recipe."""

    def __init__(self, checked: Checked) -> None:
        self._checked = checked
        self._write = Formula(lambda node: leaf_name(checked, node))
        self._index: dict[Node, int] = {}
        self._vertices: list[Vertex] = []
        self._edges: list[Edge] = []

    def all(self, outputs: Sequence[Output]) -> Picture:
        for output in outputs:
            self._add(output.node)
        for output in outputs:
            dtype = f", {output.dtype.lower()}" if output.dtype else ""
            saved = Vertex("output", visible(output.path, _TITLE), _cut(output.label) + dtype)
            self._vertices.append(saved)
            source, target = self._index[output.node], len(self._vertices) - 1
            self._edges.append(Edge(source, target, type_text(output.node)))
        return Picture(tuple(self._vertices), tuple(self._edges))

    def _add(self, node: Node) -> int:
        """The index of a node, which follows those it is made from. It is at most MAX_DEPTH
        deep."""
        if node in self._index:
            return self._index[node]
        terms = [(arg, node.weight(self._write, i)) for i, arg in enumerate(node.args)]
        terms += [(number, "") for number in node.sources[len(node.args) :]]
        # by name: the order of keys would change with the folder
        terms = sorted(dict.fromkeys(terms), key=lambda term: (self._write.value(term[0]), term[1]))
        sources = [(self._add(arg), arg, weight) for arg, weight in terms]
        self._index[node] = here = len(self._vertices)
        self._vertices.append(self._vertex(node))
        for index, arg, weight in sources:
            self._edges.append(Edge(index, here, f"{weight} {type_text(arg)}".lstrip()))
        return here

    def _vertex(self, node: Node) -> Vertex:
        if node.drawn_as == "adapter":
            declared = self._checked.leaves.get(node) if isinstance(node, Stored) else None
            path = node.kind if declared is None else declared.path
            name = visible(leaf_name(self._checked, node), _TITLE)
            return Vertex("adapter", name, visible(path, _DETAIL))
        formula = _cut(self._write.value(node.pictured))
        return Vertex(node.drawn_as, visible(node.title, _TITLE), formula)


def leaf_name(checked: Checked, node: Node) -> str:
    """What a reader calls a leaf: the name the recipe gives an adapter, the base of a model."""
    name = checked.leaf_name(node)
    return getattr(node.type, "base", None) or name if name == "?" else name


def _cut(text: str) -> str:
    return visible(" ".join(text.split()), _DETAIL)


# --- Mermaid ---------------------------------------------------------------------------------

_SHAPES: dict[VertexKind, tuple[str, str]] = {
    "adapter": ("([", "])"),
    "operator": ("[", "]"),
    "number": ("(", ")"),
    "output": ("[[", "]]"),
}
_PLAIN = frozenset(" .,/_-+=?!~*^…·⊕⊗⊖−²³‖Δ√Σ()")


def as_mermaid(picture: Picture) -> str:
    """The picture as a Mermaid flowchart, which GitHub and GitLab draw."""
    lines = ["flowchart LR"]
    for index, vertex in enumerate(picture.vertices):
        left, right = _SHAPES[vertex.kind]
        label = "<br/>".join(map(_entities, _lines(vertex)))
        lines.append(f'  n{index}{left}"{label}"{right}')
    for edge in picture.edges:
        lines.append(f'  n{edge.source} -->|"{_entities(edge.label)}"| n{edge.target}')
    return "\n".join(lines) + "\n"


def _entities(text: str) -> str:
    """Text inside quotes: what Mermaid, Markdown or HTML could read as theirs is a code."""
    return "".join(
        "#quot;" if c == '"' else c if c.isalnum() or c in _PLAIN else f"#{ord(c)};" for c in text
    )


# --- Graphviz --------------------------------------------------------------------------------

_STYLES: dict[VertexKind, str] = {
    "adapter": 'shape=box, style="rounded,filled", fillcolor="#e8f1fb"',
    "operator": 'shape=box, style="rounded"',
    "number": 'shape=box, style="rounded,dashed"',
    "output": 'shape=box, style="rounded,filled", fillcolor="#e6f4ea"',
}


def as_dot(picture: Picture) -> str:
    """The picture for Graphviz."""
    lines = [
        "digraph recipe {",
        "  rankdir=LR;",
        '  node [fontname="Helvetica", fontsize=11];',
        '  edge [fontname="Helvetica", fontsize=9];',
    ]
    for index, vertex in enumerate(picture.vertices):
        label = r"\n".join(map(_quotable, _lines(vertex)))
        lines.append(f'  n{index} [label="{label}", {_STYLES[vertex.kind]}];')
    for edge in picture.edges:
        lines.append(f'  n{edge.source} -> n{edge.target} [label="{_quotable(edge.label)}"];')
    return "\n".join([*lines, "}"]) + "\n"


def _quotable(text: str) -> str:
    """Text inside a quoted string, where Graphviz knows backslashes and the entities of HTML."""
    return visible(text, 500).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')


def _lines(vertex: Vertex) -> Iterable[str]:
    return filter(None, (vertex.title, vertex.detail))
