"""How far functions and lists expand: where an evaluation is, and the bounds of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.source import Span

MAX_STEPS = 50_000  # of a recipe, and of each of its tests
MAX_STEPS_OF_TESTS = 100_000  # of all of them
MAX_CALLS = 100


@dataclass(eq=False)
class Expansion:
    """What is expanded, from the outermost call to the innermost, and the steps that took.

    Attributes:
        places: a line for each call, and for each item of a list, that is at work.
    """

    places: list[str] = field(default_factory=list)
    _steps: int = 0
    _of_tests: int = 0
    _most: int = MAX_STEPS

    @contextmanager
    def inside(self, what: str, span: Span) -> Iterator[None]:
        """Evaluate what is evaluated several times; `what` says which time this is."""
        line, column = span.source.position(span.start)
        self.places.append(f"{what} at {visible(span.source.name)}:{line}:{column}")
        try:
            yield
        finally:
            self.places.pop()

    @contextmanager
    def of_a_test(self) -> Iterator[None]:
        """Count the steps of a test apart."""
        before, self._steps = self._steps, 0
        self._most = min(MAX_STEPS, MAX_STEPS_OF_TESTS - self._of_tests)
        try:
            yield
        finally:
            self._of_tests += self._steps
            self._steps, self._most = before, MAX_STEPS

    @property
    def notes(self) -> tuple[str, ...]:
        """Where it is: the innermost places, then the outermost, which is the recipe's own."""
        first, last = self.places[:-2][:1], self.places[-2:]
        return (*reversed(last), *first)

    def notes_of(self, fault: Fault, span: Span) -> tuple[str, ...]:
        """Where it is, and first of a fault that is told of elsewhere, such as a pattern of a
        schedule, what was evaluated as it came up."""
        if fault.place is None or span.contains(fault.place):
            return self.notes
        line, column = span.source.position(span.start)
        return (f"used at {visible(span.source.name)}:{line}:{column}", *self.notes)

    def fits(self, steps: int) -> bool:
        """Count some steps; whether there may be as many as there are now."""
        self._steps += steps
        return self._steps <= self._most

    def too_far(self) -> Fault:
        """Why it ends where it does not fit."""
        what, most = "this recipe's functions and lists expand", MAX_STEPS
        if self._most < MAX_STEPS:
            what, most = "the tests of this recipe expand together", MAX_STEPS_OF_TESTS
        return Fault(
            "PEM0333",
            f"{what} to more than {most:,} steps",
            "a function that calls another twice doubles the work at each level: name a result "
            "with `let` and pass it on",
        )

    def hold_depth(self) -> None:
        """Raise PEM0333 where calls are too deep within each other."""
        if len(self.places) >= MAX_CALLS:
            message = f"calls are more than {MAX_CALLS} deep here"
            raise Fault("PEM0333", message, "call fewer functions within each other")
