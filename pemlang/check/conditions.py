"""Truth of an `assert`: known at once, or once measures are."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from pemlang.diagnostics import Diagnostic, visible
from pemlang.graph.node import Node, Num
from pemlang.graph.numbers import shown
from pemlang.source import Span

COMPARE: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}

Value = Callable[[Num], Fraction]


class Condition:
    """A truth value of the language."""

    kind = "bool"
    size = depth = 1

    def holds(self, value: Value) -> bool:
        """Whether it is true, given the values of numbers."""
        raise AssertionError("every condition says when it holds")

    def measured(self) -> list[Node]:
        """The numbers it needs that are not known before weights are read."""
        return []

    def sides(self, value: Value) -> list[str]:
        """A line for each side of a comparison that is not a plain number: its value."""
        return []


@dataclass(frozen=True)
class Known(Condition):
    """A truth that needs no weights."""

    truth: bool

    def holds(self, value: Value) -> bool:
        return self.truth


@dataclass(frozen=True)
class Comparison(Condition):
    """left symbol right; `texts` are the two sides as written."""

    symbol: str
    left: Num
    right: Num
    texts: tuple[str, str]

    def holds(self, value: Value) -> bool:
        return COMPARE[self.symbol](value(self.left), value(self.right))

    def measured(self) -> list[Node]:
        return [side for side in (self.left, self.right) if isinstance(side, Node)]

    def sides(self, value: Value) -> list[str]:
        lines = []
        for text, side in zip(self.texts, (self.left, self.right), strict=True):
            number = value(side)
            said = f"{float(number):.6g}" if isinstance(side, Node) else shown(number)
            if said != text:
                lines.append(f"{text} is {said}")
        return lines


@dataclass(frozen=True)
class Combined(Condition):
    """`and`, `or`, `not`."""

    word: str
    parts: tuple[Condition, ...]
    size: int = field(init=False, compare=False)
    depth: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", 1 + sum(part.size for part in self.parts))
        object.__setattr__(self, "depth", 1 + max(part.depth for part in self.parts))

    def holds(self, value: Value) -> bool:
        if self.word == "not":
            return not self.parts[0].holds(value)
        joined = all if self.word == "and" else any
        return joined(part.holds(value) for part in self.parts)

    def measured(self) -> list[Node]:
        return [node for part in self.parts for node in part.measured()]

    def sides(self, value: Value) -> list[str]:
        return [line for part in self._decisive(value) for line in part.sides(value)]

    def _decisive(self, value: Value) -> tuple[Condition, ...]:
        """The parts that settled it: those after the one that did may have no value."""
        settles = self.word == "or"
        if self.word != "not":
            for part in self.parts:
                if part.holds(value) == settles:
                    return (part,)
        return self.parts


@dataclass(frozen=True)
class Assertion:
    """An `assert` of the recipe."""

    condition: Condition
    message: str | None
    span: Span


def known(number: Num) -> Fraction:
    """The value of a number that is not measured: itself."""
    assert isinstance(number, Fraction)  # a condition that is not measured has no other
    return number


def failure(assertion: Assertion, value: Value) -> Diagnostic | None:
    """The diagnostic of an assertion that does not hold, with both values; None when it does."""
    if assertion.condition.holds(value):
        return None
    said = f"{visible(assertion.message)}" if assertion.message else "this does not hold"
    return Diagnostic(
        "PEM0501",
        "error",
        f"assertion failed: {said}",
        assertion.span,
        None,
        tuple(assertion.condition.sides(value)),
    )
