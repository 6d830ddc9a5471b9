"""What an `assert` holds, and what its parts are where it does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from fractions import Fraction
from typing import TypeAlias

from pemlang.check.conditions import Condition, Explained, ValueOf
from pemlang.check.values import RecipeValue
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, Fault, PemError, visible
from pemlang.failures import Failure
from pemlang.graph.node import Node, NumberNode
from pemlang.graph.numbers import shown
from pemlang.graph.rebuild import Rebuilding
from pemlang.ops.measures import Measured
from pemlang.source import Span
from pemlang.syntax import tree as t

MOST_PARTS, DEEPEST = 500, 50  # that are kept of an assertion
MOST_LINES = 12  # that are told
MOST_ITEMS = 8  # of a list
WIDTH = 60  # of an expression in a line


PartValue: TypeAlias = "Fraction | NumberNode | Condition | str"
_VALUES = (Fraction, NumberNode, Condition, str)


@dataclass(eq=False)
class AssertedPart:
    """An expression that an assertion is made from, evaluated.

    Attributes:
        tree: the expression.
        value: what it is, where a line can say that; None where it is an adapter or a schedule.
        parts: those it is made from, in the order in which they were evaluated; of a function that
            it calls also those of the body.
    """

    tree: t.Tree
    value: PartValue | tuple[PartValue, ...] | None = None
    parts: list[AssertedPart] = field(default_factory=list)

    def keep(self, value: RecipeValue) -> None:
        """Take note of its value."""
        values = value if isinstance(value, tuple) else (value,)
        if all(isinstance(item, _VALUES) for item in values):
            self.value = value  # type: ignore[assignment]

    def rebuilt(self, new: Rebuilding) -> AssertedPart:
        """The same over other adapters."""
        if isinstance(self.value, tuple):
            value: PartValue | tuple[PartValue, ...] | None = tuple(
                _rebuilt(item, new) for item in self.value
            )
        else:
            value = None if self.value is None else _rebuilt(self.value, new)
        return AssertedPart(self.tree, value, [part.rebuilt(new) for part in self.parts])

    def has_written(self, part: AssertedPart) -> bool:
        """Whether one of its parts stands in its own text: those of a function's body do not."""
        own, other = self.tree.span, part.tree.span
        return own.source is other.source and own.start <= other.start and other.end <= own.end


class Trace:
    """Takes note of the parts of an assertion while it is evaluated."""

    def __init__(self) -> None:
        self._open: list[AssertedPart] = []
        self._left = MOST_PARTS
        self._first: AssertedPart | None = None

    @property
    def whole(self) -> AssertedPart:
        """The expression that is asserted."""
        assert self._first is not None
        return self._first

    @contextmanager
    def part(self, tree: t.Tree) -> Iterator[AssertedPart]:
        """Evaluate a part, and keep its value."""
        part = AssertedPart(tree)
        if self._left > 0 and len(self._open) < DEEPEST:
            self._left -= 1
            if self._open:
                self._open[-1].parts.append(part)
            else:
                self._first = part
        self._open.append(part)
        try:
            yield part
        finally:
            self._open.pop()


@dataclass(frozen=True, eq=False)
class Assertion:
    """An `assert` of the recipe.

    Attributes:
        condition: what is to hold.
        message: what is said where it does not.
        span: where it is.
        whole: the expression, with all that it is made from.
        notes: where it is made, in a function.
    """

    condition: Condition
    message: str | None
    span: Span
    whole: AssertedPart
    notes: tuple[str, ...] = ()

    def rebuilt(self, new: Rebuilding) -> Assertion:
        """The same over other adapters."""
        whole = self.whole.rebuilt(new)
        return replace(self, condition=self.condition.rebuilt(new), whole=whole)


def _rebuilt(value: PartValue, new: Rebuilding) -> PartValue:
    if isinstance(value, NumberNode):
        return new.number(value)
    return value.rebuilt(new) if isinstance(value, Condition) else value


def failure(assertion: Assertion, value: ValueOf) -> Diagnostic | None:
    """The diagnostic of an assertion that does not hold, with the value of each part that decided
    it; None when it holds."""
    if assertion.condition.holds(value):
        return None
    why = f"{visible(assertion.message)}" if assertion.message else "this does not hold"
    lines = list(_Telling(assertion, value).inside(assertion.whole, "", set()))
    more = len(lines) - MOST_LINES
    lines[MOST_LINES:] = [f"… and {more} more"] * (more > 0)
    return Diagnostic(
        "PEM0501",
        "error",
        f"assertion failed: {why}",
        assertion.span,
        "change what the recipe makes, or what it asserts",
        (*lines, *assertion.notes),
    )


class _Telling:
    """Tells what the parts of an assertion are."""

    def __init__(self, assertion: Assertion, value: ValueOf) -> None:
        self._value = value
        self._measured = _measures(assertion.condition.measured())

    def inside(self, part: AssertedPart, indent: str, told: set[str]) -> Iterator[str]:
        """A line for each part of a part, once in each function; those of a function's body stand
        further in."""
        if isinstance(part.value, Explained) or (
            isinstance(part.value, Condition) and not part.parts
        ):
            yield from (f"{indent}{line}" for line in part.value.sides(self._value))
            return
        told_in_body: set[str] = set()
        for inner in self._telling(part):
            if part.has_written(inner):
                yield from self._lines(inner, indent, told)
            elif inner is part.parts[-1]:  # the body: its value is that of the call
                yield from self.inside(inner, f"{indent}  ", told_in_body)
            else:
                yield from self._lines(inner, f"{indent}  ", told_in_body)

    def _lines(self, part: AssertedPart, indent: str, told: set[str]) -> Iterator[str]:
        """A part, where it is not written as its value, and what is inside."""
        text = visible(" ".join(part.tree.span.text.split()), WIDTH)
        value = None if isinstance(part.tree, t.ListOf) else self._text(part.value)
        line = f"{indent}{text} is {value}"
        if value not in (None, text) and line not in told:
            told.add(line)
            yield line
        yield from self.inside(part, indent, told)

    def _telling(self, part: AssertedPart) -> Sequence[AssertedPart]:
        """Those of its parts that say why it is what it is."""
        if isinstance(part.tree, t.Logic) and part.tree.word != "not":
            settles = part.tree.word == "or"
            for inner in part.parts:  # those after the one that settles it may have no value
                if isinstance(inner.value, Condition) and self._holds(inner.value) == settles:
                    return [inner]
        if isinstance(part.tree, t.ForEach):
            return [inner for inner in part.parts if inner.tree in part.tree.lists]
        if isinstance(part.tree, t.Call) and part.value is None:
            return [inner for inner in part.parts if part.has_written(inner)]
        return part.parts

    def _holds(self, condition: Condition) -> bool:
        return condition.holds(self._value)

    def _text(self, value: PartValue | tuple[PartValue, ...] | None) -> str | None:
        """A value as a reader has it; None where it has none."""
        if isinstance(value, tuple):
            items = [self._text(item) for item in value[:MOST_ITEMS]]
            if None in items:
                return None
            return f"[{', '.join(map(str, items))}{', …' * (len(value) > MOST_ITEMS)}]"
        if isinstance(value, str):
            return f'"{visible(value, WIDTH)}"'
        if isinstance(value, Fraction):
            return shown(value)
        numbers = value.measured() if isinstance(value, Condition) else [value]
        if value is None or not _measures(x for x in numbers if x) <= self._measured:
            return None  # it says nothing of the assertion, and may be read from nowhere
        try:
            if isinstance(value, Condition):
                return "true" if self._holds(value) else "false"
            return f"{float(self._value(value)):.6g}"
        except (Fault, Failure, PemError):  # one that did not decide it
            return None


def _measures(numbers: Iterable[NumberNode]) -> set[Measured]:
    """All that is measured for some numbers."""
    pending: list[Node] = list(numbers)
    seen = set(pending)
    while pending:
        new = [node for node in pending.pop().sources if node not in seen]
        seen.update(new)
        pending += new
    return {node for node in seen if isinstance(node, Measured)}
