"""The typed graph of a recipe as a picture: adapters, what is made of them, what is saved.

Here is what is drawn, and how Mermaid and Graphviz say it; svg.py draws it itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pemlang.check.checked import Checked
from pemlang.check.options import Output
from pemlang.diagnostics import visible
from pemlang.graph.formula import Algebra, type_text
from pemlang.graph.node import Node

MOST_VERTICES, MOST_EDGES = 400, 1500
_TITLE, _DETAIL, _TERM = 36, 40, 36  # characters of a name, of a line below it, of a coefficient

Kind = Literal["adapter", "operator", "number", "output"]


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

    kind: Kind
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
        self._algebra = Algebra(lambda node: leaf_name(checked, node))
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
        terms = [(arg, coefficient(self._algebra, node, i)) for i, arg in enumerate(node.args)]
        terms += [(number, "") for number in node.sources[len(node.args) :]]
        # by name: the order of keys would change with the folder
        terms = sorted(
            dict.fromkeys(terms), key=lambda term: (self._algebra.value(term[0]), term[1])
        )
        sources = [(self._add(arg), arg, term) for arg, term in terms]
        self._index[node] = found = len(self._vertices)
        self._vertices.append(self._vertex(node))
        for index, arg, term in sources:
            self._edges.append(Edge(index, found, f"{term} {type_text(arg)}".lstrip()))
        return found

    def _vertex(self, node: Node) -> Vertex:
        if node.op in ("leaf", "model"):
            path = self._checked.elaborator.leaves.get(node, ("", node.op))[1]
            name = visible(leaf_name(self._checked, node), _TITLE)
            return Vertex("adapter", name, visible(path, _DETAIL))
        number = node.op in ("measure", "polynomial", "reciprocal")
        whole = node if node.op not in ("compress", "pad", "rescale") else node.args[0]
        formula = _cut(self._algebra.value(whole))
        return Vertex("number" if number else "operator", visible(_title(node), _TITLE), formula)


def leaf_name(checked: Checked, node: Node) -> str:
    """What a reader calls a leaf: the name the recipe gives an adapter, the base of a model."""
    name = checked.leaf_name(node)
    return getattr(node.type, "base", None) or name if name == "?" else name


def coefficient(algebra: Algebra, node: Node, index: int) -> str:
    """What stands before an argument of a node, `0.5 ·`; empty where nothing does."""
    if node.op == "sum":
        return _cut(algebra.coefficient(node.attrs[1][index]), _TERM) + " ·"
    if node.op == "mix":
        one, two = (algebra.coefficient(coef) for coef in node.attrs[1][index])
        if one == two:
            return _cut(one, _TERM) + " ⊗"
        return f"{_cut(one, _TERM)} A, {_cut(two, _TERM)} B ·"
    if node.op == "merge":
        weights = node.attrs[3]
        if len(weights) == len(node.args) and any(weight != 1 for weight in weights):
            return f"weight {_cut(algebra.number(weights[index]), _TERM)} ·"
    return ""


def _title(node: Node) -> str:
    """What an operator is called."""
    if node.op == "compress":
        rank, energy = node.attrs
        return f"compress to rank {rank}" if rank is not None else f"compress to energy {energy}"
    if node.op == "pad":
        return f"pad to rank {node.attrs[0]}"
    if node.op in ("merge", "measure"):
        return str(node.attrs[0])
    if not node.args:
        return "zero"
    names = {
        "mix": "⊕",
        "bake": "model + adapter",
        "task_vector": "task vector",
        "polynomial": "arithmetic",
    }
    return names.get(node.op, node.op)


def _cut(text: str, limit: int = _DETAIL) -> str:
    return visible(" ".join(text.split()), limit)


# --- Mermaid ---------------------------------------------------------------------------------

_SHAPES: dict[Kind, tuple[str, str]] = {
    "adapter": ("([", "])"),
    "operator": ("[", "]"),
    "number": ("(", ")"),
    "output": ("[[", "]]"),
}
_PLAIN = frozenset(" .,/_-+=?!~*^…·⊕⊗⊖−²³‖Δ√Σ()")


def as_mermaid(found: Picture) -> str:
    """The picture as a Mermaid flowchart, which GitHub and GitLab draw."""
    lines = ["flowchart LR"]
    for index, vertex in enumerate(found.vertices):
        left, right = _SHAPES[vertex.kind]
        label = "<br/>".join(map(_entities, _lines(vertex)))
        lines.append(f'  n{index}{left}"{label}"{right}')
    for edge in found.edges:
        lines.append(f'  n{edge.source} -->|"{_entities(edge.label)}"| n{edge.target}')
    return "\n".join(lines) + "\n"


def _entities(text: str) -> str:
    """Text inside quotes: what Mermaid, Markdown or HTML could read as theirs is a code."""
    return "".join(
        "#quot;" if c == '"' else c if c.isalnum() or c in _PLAIN else f"#{ord(c)};" for c in text
    )


# --- Graphviz --------------------------------------------------------------------------------

_STYLES: dict[Kind, str] = {
    "adapter": 'shape=box, style="rounded,filled", fillcolor="#e8f1fb"',
    "operator": 'shape=box, style="rounded"',
    "number": 'shape=box, style="rounded,dashed"',
    "output": 'shape=box, style="rounded,filled", fillcolor="#e6f4ea"',
}


def as_dot(found: Picture) -> str:
    """The picture for Graphviz."""
    lines = [
        "digraph recipe {",
        "  rankdir=LR;",
        '  node [fontname="Helvetica", fontsize=11];',
        '  edge [fontname="Helvetica", fontsize=9];',
    ]
    for index, vertex in enumerate(found.vertices):
        label = r"\n".join(map(_quotable, _lines(vertex)))
        lines.append(f'  n{index} [label="{label}", {_STYLES[vertex.kind]}];')
    for edge in found.edges:
        lines.append(f'  n{edge.source} -> n{edge.target} [label="{_quotable(edge.label)}"];')
    return "\n".join([*lines, "}"]) + "\n"


def _quotable(text: str) -> str:
    """Text inside a quoted string, where Graphviz knows backslashes and the entities of HTML."""
    return visible(text, 500).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')


def _lines(vertex: Vertex) -> Iterable[str]:
    return filter(None, (vertex.title, vertex.detail))
