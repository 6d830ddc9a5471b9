"""Normal forms and types as a reader writes them: `0.5·movies − 0.6·toxic`, `LoRA, rank 8, 12
sites`. All of it is bounded: a value shared a thousand times over is written out once at most as
long as a line of review is worth."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from pemlang.diagnostics import visible
from pemlang.formats.adapter import kinds_text
from pemlang.graph.node import AdapterNode, Coef, Node, Num, NumberNode
from pemlang.graph.normal import Pair, own_sites
from pemlang.graph.numbers import shown
from pemlang.graph.types import AdapterType, ModelType

NodeName = Callable[[Node], str]
"""What a reader calls a leaf."""

Setting = Num | int | str | None

LONGEST = 600  # characters of one value
SHORT = 36  # of a number in a picture
_NUMBER = re.compile(r"\d[\d./]*(?:e[+-]?\d+)?")


class Formula:
    """Writes the values of one graph.

    Args:
        name: what a leaf is called.
    """

    def __init__(self, name: NodeName) -> None:
        self._name = name
        self._written: dict[Node, str] = {}

    def value(self, node: Node) -> str:
        """An adapter, a model or a measured number."""
        if node not in self._written:
            text = node.formula(self)
            self._written[node] = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
        return self._written[node]

    def name(self, node: Node) -> str:
        """What a leaf is called."""
        return visible(self._name(node), 80)

    def coefficient(self, coef: Coef) -> str:
        """A number, or `0.4 … 1 by site`."""
        if not isinstance(coef, tuple):
            return self.number(coef)
        values = [number for _, number in coef]
        if len(set(values)) == 1:
            return self.number(values[0])
        exact = [value for value in values if isinstance(value, Fraction)]
        if len(exact) < len(values):
            return "(by site)"
        return f"({self.number(min(exact))} … {self.number(max(exact))} by site)"

    def number(self, number: Num) -> str:
        """A number, exact or measured."""
        return number_text(number) if isinstance(number, Fraction) else self.value(number)

    def short(self, text: str) -> str:
        """A number as a picture has room for it."""
        return visible(" ".join(text.split()), SHORT)

    # --- for nodes ----------------------------------------------------------------------------

    def term(self, coef: Coef, x: AdapterNode, node: AdapterNode) -> str:
        """One term of a sum without its sign."""
        return f"{self._size(coef)}·{self.inner(x)}{_where(coef, x, node)}"

    def pair(self, pair: Pair, x: AdapterNode, node: AdapterNode) -> str:
        """One term of a ⊕ without the sign that stands before it."""
        turned = "" if pair[0] == pair[1] else "⊖"
        return f"{self._size(pair[0])}⊗{turned}{self.inner(x)}{_where(pair[0], x, node)}"

    def _size(self, coef: Coef) -> str:
        text = self.coefficient(coef)
        if _is_sum(text):
            return f"({text})"
        if text.startswith("−"):
            return text[1:]
        plain = isinstance(coef, tuple) or _NUMBER.fullmatch(text) or "(" in text
        return text if plain else f"({text})"

    def joined(self, terms: list[tuple[Coef, str]], plus: str) -> str:
        """Terms by name, with what stands between them."""
        if not terms:
            return "0"
        in_order = sorted(terms, key=lambda term: re.split("[·⊗]", term[1], maxsplit=1)[1])
        text = ""
        for index, (coef, term) in enumerate(in_order):
            number = self.coefficient(coef)
            negative = number.startswith("−") and not _is_sum(number)
            if plus == "+":
                sign, lead = ("−", "−") if negative else ("+", "")
            else:  # a negative weight is no ⊖, which turns B alone
                sign, lead = plus, ""
            signed = f"−{term}" if negative and plus != "+" else term
            text += f"{lead}{signed}" if index == 0 else f" {sign} {signed}"
        return text

    def inner(self, node: Node) -> str:
        """A value inside a larger one."""
        text = self.value(node)
        return f"({text})" if node.compound else text

    def call(self, name: str, args: Sequence[str], settings: Sequence[tuple[str, Setting]]) -> str:
        """`name(args, setting=value)`."""
        named = [
            f"{key}={self.number(value) if isinstance(value, Fraction | NumberNode) else value}"
            for key, value in settings
        ]
        return f"{name}({', '.join([*args, *named])})"


def _is_sum(text: str) -> bool:
    """Whether a number is a sum, so that brackets go round it in a product."""
    depth = 0
    for at, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if depth == 0 and text[at : at + 3] in (" + ", " − "):
            return True
    return False


def _where(coef: Coef, x: AdapterNode, node: AdapterNode) -> str:
    """`[6 of 12 sites]`, where a term is not there at all of its sites."""
    own = own_sites(x, node.shapes)
    sites = len(coef) if isinstance(coef, tuple) else len(own)
    total = len(x.shapes)
    return "" if sites == total else f"[{sites} of {total} sites]"


def number_text(number: Fraction) -> str:
    """An exact number with the sign that formulas have: `−0.6`, `2/3`."""
    text = shown(abs(number))
    if Fraction(text) != abs(number) and number.denominator < 1000:
        text = str(abs(number))
    return f"−{text}" if number < 0 else text


def type_text(node: Node) -> str:
    """`LoRA, rank 8, 12 sites`."""
    type_ = node.type
    if isinstance(type_, ModelType):
        return f"model, {count(len(type_.shapes), 'tensor')}"
    if not isinstance(type_, AdapterType) or not isinstance(node, AdapterNode):
        return "number"
    parts = [kinds_text(type_.kinds)]
    if type_.ranked:
        parts.append(rank_text(node))
    return ", ".join([*parts, count(len(type_.shapes), "site")])


def rank_text(node: AdapterNode) -> str:
    """`rank 8`, or `ranks 4 to 16`, of the sites that have one."""
    ranks = [node.ranks[site] for site in node.type.ranked_shapes]
    low, high = min(ranks, default=0), max(ranks, default=0)
    return f"rank {high}" if low == high else f"ranks {low} to {high}"


def count(many: int, what: str) -> str:
    """`1 site`, `1,024 sites`."""
    return f"{many:,} {what}{'s' * (many != 1)}"


def size_text(size: float) -> str:
    """Bytes as `302 kB`."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
