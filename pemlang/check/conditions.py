"""Truth of an `assert`: known at once, or once measures are."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import field, replace
from fractions import Fraction

from pemlang.dataclass import dataclass
from pemlang.graph.formula import Formula
from pemlang.graph.node import Num, NumberNode
from pemlang.graph.numbers import shown
from pemlang.graph.rebuild import Rebuilding

COMPARE: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}

COMPARABLE = {
    frozenset({"adapter"}): "compare numbers, cosine(a, b) < 0.9, or meanings: same(a, b)",
    frozenset({"adapter", "number"}): "compare two numbers, such as norm(a) < 0.9",
    frozenset({"string"}): "compare texts with == or !=",
    frozenset({"bool"}): "a bool is a condition by itself: join two with `and`, `or`, `not`",
}
"""What to compare instead, by the kinds of two values that are not compared."""

_TURNED = {">": "<", ">=": "<="}

ValueOf = Callable[[Num], Fraction]


class Condition:
    """A truth value of the language."""

    kind = "bool"
    size = depth = 1

    def holds(self, value: ValueOf) -> bool:
        """Whether it is true, given the values of numbers."""
        raise AssertionError("every condition says when it holds")

    def measured(self) -> list[NumberNode]:
        """The numbers it needs that are not known before weights are read."""
        return []

    def sides(self, value: ValueOf) -> list[str]:
        """A line for each side of a comparison that is not a plain number: its value."""
        return []

    def meaning(self) -> object:
        """What it says: equal for those that mean the same."""
        return self.truth

    @property
    def truth(self) -> bool | None:
        """Whether it holds, where that is known before weights are read."""
        return None if self.measured() else self.holds(exactly)

    def formula(self, write: Formula) -> str:
        """It as a reader writes it."""
        return "true" if self.truth else "false"

    def rebuilt(self, new: Rebuilding) -> Condition:
        """The same of other numbers."""
        return self


@dataclass(frozen=True, eq=False)
class Decided(Condition):
    """A truth that needs no weights."""

    is_true: bool

    def holds(self, value: ValueOf) -> bool:
        return self.is_true


@dataclass(frozen=True, eq=False)
class Explained(Decided):
    """A truth that needs no weights, with what is told where it does not hold."""

    lines: tuple[str, ...]

    def sides(self, value: ValueOf) -> list[str]:
        return list(self.lines)


@dataclass(frozen=True, eq=False)
class Comparison(Condition):
    """left symbol right; `texts` are the two sides as written."""

    symbol: str
    left: Num
    right: Num
    texts: tuple[str, str]

    def holds(self, value: ValueOf) -> bool:
        return COMPARE[self.symbol](value(self.left), value(self.right))

    def formula(self, write: Formula) -> str:
        return f"{write.number(self.left)} {self.symbol} {write.number(self.right)}"

    def meaning(self) -> object:
        """Law: x > y is y < x."""
        left, right = (
            side.key if isinstance(side, NumberNode) else str(side)
            for side in (self.left, self.right)
        )
        turned = _TURNED.get(self.symbol)
        if turned is not None or (self.symbol in ("==", "!=") and right < left):
            left, right = right, left
        return (turned or self.symbol, left, right)

    def rebuilt(self, new: Rebuilding) -> Condition:
        return replace(self, left=new.number(self.left), right=new.number(self.right))

    def measured(self) -> list[NumberNode]:
        return [side for side in (self.left, self.right) if isinstance(side, NumberNode)]

    def sides(self, value: ValueOf) -> list[str]:
        lines = []
        for text, side in zip(self.texts, (self.left, self.right), strict=True):
            number = value(side)
            value_text = f"{float(number):.6g}" if isinstance(side, NumberNode) else shown(number)
            if value_text != text:
                lines.append(f"{text} is {value_text}")
        return lines


@dataclass(frozen=True, eq=False)
class Combined(Condition):
    """`and`, `or`, `not`."""

    word: str
    parts: tuple[Condition, ...]
    size: int = field(init=False, compare=False)
    depth: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", 1 + sum(part.size for part in self.parts))
        object.__setattr__(self, "depth", 1 + max(part.depth for part in self.parts))

    def holds(self, value: ValueOf) -> bool:
        if self.word == "not":
            return not self.parts[0].holds(value)
        joined = all if self.word == "and" else any
        return joined(part.holds(value) for part in self.parts)

    def meaning(self) -> object:
        return (self.word, *(part.meaning() for part in self.parts))

    def formula(self, write: Formula) -> str:
        parts = [part.formula(write) for part in self.parts]
        if self.word == "not":
            return f"not ({parts[0]})"
        return f"({f' {self.word} '.join(parts)})"

    def rebuilt(self, new: Rebuilding) -> Condition:
        return Combined(self.word, tuple(part.rebuilt(new) for part in self.parts))

    def measured(self) -> list[NumberNode]:
        return [node for part in self.parts for node in part.measured()]

    def sides(self, value: ValueOf) -> list[str]:
        return [line for part in self._decisive(value) for line in part.sides(value)]

    def _decisive(self, value: ValueOf) -> tuple[Condition, ...]:
        """The parts that settled it: those after the one that did may have no value."""
        settles = self.word == "or"
        if self.word != "not":
            for part in self.parts:
                if part.holds(value) == settles:
                    return (part,)
        return self.parts


def exactly(number: Num) -> Fraction:
    """The value of a number that is not measured: itself."""
    assert isinstance(number, Fraction)  # a condition that is not measured has no other
    return number
