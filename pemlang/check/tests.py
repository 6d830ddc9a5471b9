"""What a recipe tells of itself: `print`, and `test "name" { … }`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pemlang.check.assertions import Assertion
from pemlang.check.conditions import Condition
from pemlang.check.values import RecipeValue
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic
from pemlang.graph.node import Node, NumberNode
from pemlang.graph.rebuild import Rebuilding
from pemlang.source import Span


@dataclass(frozen=True, eq=False)
class Printed:
    """A `print`: a value, with its place."""

    value: RecipeValue
    span: Span

    def rebuilt(self, new: Rebuilding) -> Printed:
        """The same over other adapters."""
        return replace(self, value=_rebuilt(self.value, new))


@dataclass(frozen=True, eq=False)
class CheckedTest:
    """A test, checked.

    Attributes:
        title: what it is called.
        span: where it is.
        assertions: what is to hold once weights are read.
        prints: what it tells.
        diagnostics: what is wrong with it from headers alone.
    """

    title: str
    span: Span
    assertions: Sequence[Assertion]
    prints: Sequence[Printed]
    diagnostics: Sequence[Diagnostic]

    def nodes(self) -> Iterator[Node]:
        """What has to be measured for it."""
        for assertion in self.assertions:
            yield from assertion.condition.measured()
        for printed in self.prints:
            yield from _measured(printed.value)

    def rebuilt(self, new: Rebuilding) -> CheckedTest:
        """The same over other adapters."""
        return replace(
            self,
            assertions=[assertion.rebuilt(new) for assertion in self.assertions],
            prints=[printed.rebuilt(new) for printed in self.prints],
        )


def _measured(value: RecipeValue) -> Iterator[Node]:
    """The numbers in a value that are known once weights are read."""
    if isinstance(value, tuple):
        for item in value:
            yield from _measured(item)
    elif isinstance(value, NumberNode):
        yield value
    elif isinstance(value, Condition):
        yield from value.measured()


def _rebuilt(value: RecipeValue, new: Rebuilding) -> RecipeValue:
    if isinstance(value, tuple):
        return tuple(_rebuilt(item, new) for item in value)  # type: ignore[misc]
    if isinstance(value, Node):
        return new.node(value)
    return value.rebuilt(new) if isinstance(value, Condition) else value
