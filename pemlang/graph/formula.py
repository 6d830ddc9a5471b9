"""Normal forms and types as a reader writes them: `0.5·movies − 0.6·toxic`, `LoRA, rank 8, 12
sites`. All of it is bounded: a value shared a thousand times over is written out once at most as
long as a line of review is worth."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from pemlang.check.conditions import Combined, Comparison, Condition, known
from pemlang.diagnostics import visible
from pemlang.graph.coef import Coef
from pemlang.graph.node import AdapterType, ModelType, Node, Num
from pemlang.graph.normal import adapter_type, own_sites
from pemlang.graph.numbers import shown
from pemlang.ops.agree import TITLES
from pemlang.ops.merge import KINDS
from pemlang.ops.record import ranks

Name = Callable[[Node], str]
"""What a reader calls a leaf."""

LONGEST = 600  # characters of one value
_NUMBER = re.compile(r"\d[\d./]*(?:e[+-]?\d+)?")


class Algebra:
    """Writes the values of one graph.

    Args:
        name: what a leaf is called.
    """

    def __init__(self, name: Name) -> None:
        self._name = name
        self._said: dict[Node, str] = {}

    def value(self, node: Node) -> str:
        """An adapter, a model or a measured number."""
        if node not in self._said:
            text = self._write(node)
            self._said[node] = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
        return self._said[node]

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

    def condition(self, condition: Condition) -> str:
        """What an assertion holds."""
        if isinstance(condition, Comparison):
            left, right = self.number(condition.left), self.number(condition.right)
            return f"{left} {condition.symbol} {right}"
        if isinstance(condition, Combined):
            parts = [self.condition(part) for part in condition.parts]
            if condition.word == "not":
                return f"not ({parts[0]})"
            return f"({f' {condition.word} '.join(parts)})"
        return "true" if condition.holds(known) else "false"

    def _write(self, node: Node) -> str:
        if node.op in ("leaf", "model"):
            return visible(self._name(node), 80)
        if node.op == "sum":
            return self._joined(
                [(coef, self._term(coef, arg, node)) for arg, coef in _terms(node)], "+"
            )
        if node.op == "mix":
            parts = [(pair[0], self._pair(pair, arg, node)) for arg, pair in _terms(node)]
            return self._joined(parts, "⊕")
        if node.op == "polynomial":
            return self._polynomial(node)
        if node.op == "reciprocal":
            return f"1/{self._inner(node.args[0])}"
        if node.op in ("bake", "task_vector"):
            one, two = node.args
            return f"{self._inner(one)} {'+' if node.op == 'bake' else '−'} {self._inner(two)}"
        return self._call(node)

    def _term(self, coef: Coef, arg: Node, node: Node) -> str:
        """One term of a sum without its sign."""
        return f"{self._size(coef)}·{self._inner(arg)}{_where(coef, arg, node)}"

    def _pair(self, pair: tuple[Coef, Coef], arg: Node, node: Node) -> str:
        """One term of a ⊕ without the sign that stands before it."""
        turned = "" if pair[0] == pair[1] else "⊖"
        return f"{self._size(pair[0])}⊗{turned}{self._inner(arg)}{_where(pair[0], arg, node)}"

    def _size(self, coef: Coef) -> str:
        text = self.coefficient(coef)
        if text.startswith("−"):
            return text[1:]
        plain = isinstance(coef, tuple) or _NUMBER.fullmatch(text) or "(" in text
        return text if plain and " + " not in text else f"({text})"

    def _joined(self, parts: list[tuple[Coef, str]], plus: str) -> str:
        """Terms by name, with what stands between them."""
        if not parts:
            return "0"
        told = sorted(parts, key=lambda part: re.split("[·⊗]", part[1], maxsplit=1)[1])
        text = ""
        for index, (coef, term) in enumerate(told):
            negative = self.coefficient(coef).startswith("−")
            if plus == "+":
                sign, lead = ("−", "−") if negative else ("+", "")
            else:  # a negative weight is no ⊖, which turns B alone
                sign, lead = plus, ""
            shown_term = f"−{term}" if negative and plus != "+" else term
            text += f"{lead}{shown_term}" if index == 0 else f" {sign} {shown_term}"
        return text

    def _inner(self, node: Node) -> str:
        """A value inside a larger one."""
        text = self.value(node)
        whole = node.op not in ("sum", "mix", "polynomial", "bake", "task_vector", "reciprocal")
        return text if whole else f"({text})"

    def _polynomial(self, node: Node) -> str:
        terms = []
        for by, powers in node.attrs:
            factors = [
                self._inner(arg) + (f"^{power}" if power > 1 else "")
                for arg, power in zip(node.args, powers, strict=True)
                if power
            ]
            lead = [number_text(by)] if by != 1 or not factors else []
            terms.append("·".join([*lead, *factors]))
        return " + ".join(terms).replace("+ −", "− ")

    def _call(self, node: Node) -> str:
        args = [self.value(arg) for arg in node.args]
        if node.op == "merge":
            name, over, limit, weights, settings = node.attrs
            if KINDS[name].symmetric:  # by name: the node has them in an order of their content
                pairs = sorted(zip(args, weights, strict=True), key=lambda pair: pair[0])
                args, weights = [arg for arg, _ in pairs], [weight for _, weight in pairs]
            named = [("rank", limit)] if limit is not None else []
            named += [(key, value) for key, value in settings if value is not None]
            if over == "factors":
                named.append(("over", over))
            if any(weight != 1 for weight in weights):
                listed = ", ".join(self.number(weight) for weight in weights)
                named.append(("weights", f"[{listed}]"))
            return f"{name}([{', '.join(args)}]{self._settings(named)})"
        if node.op == "compress":
            rank, energy = node.attrs
            by = ("rank", rank) if rank is not None else ("energy", energy)
            return f"compress({args[0]}{self._settings([by])})"
        if node.op == "pad":
            return f"pad({args[0]}{self._settings([('rank', node.attrs[0])])})"
        if node.op == "rescale":
            scales = sorted({scale for _, scale in node.attrs[0]})
            to = f"{scales[0]:g}" if len(scales) == 1 else f"{scales[0]:g} … {scales[-1]:g}"
            return f"rescale({args[0]} to scale {to})"
        name, *more = node.attrs  # a measure; of two adapters, which may change places
        args.sort()
        return f"{name}({', '.join([*args, *map(str, more)])})"

    def _settings(self, named: list[tuple[str, Any]]) -> str:
        return "".join(
            f", {name}={self.number(value) if isinstance(value, Fraction | Node) else value}"
            for name, value in named
        )


def _terms(node: Node) -> list[tuple[Node, Any]]:
    return list(zip(node.args, node.attrs[1], strict=True))


def _where(coef: Coef, arg: Node, node: Node) -> str:
    """`[6 of 12 sites]`, where a term is not there at all of its sites."""
    own = own_sites(arg, adapter_type(node).shapes)
    count = len(coef) if isinstance(coef, tuple) else len(own)
    total = len(adapter_type(arg).shapes)
    return "" if count == total else f"[{count} of {total} sites]"


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
    if not isinstance(type_, AdapterType):
        return "number"
    parts = [TITLES[type_.method]]
    if type_.method == "lora":
        parts.append(rank_text(ranks(node)))
    return ", ".join([*parts, count(len(type_.shapes), "site")])


def rank_text(found: Mapping[str, int]) -> str:
    """`rank 8`, or `ranks 4 to 16`."""
    low, high = min(found.values(), default=0), max(found.values(), default=0)
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
