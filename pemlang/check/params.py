"""Values of params: given from outside as text or Python values, and held to their range."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from pemlang.check.assertions import AssertedPart, Assertion
from pemlang.check.conditions import Combined, Comparison, Decided
from pemlang.check.kinds import article
from pemlang.check.scope import Scope, resolve_names
from pemlang.check.values import ParamConstant, RecipeValue
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.graph.node import NumberNode
from pemlang.graph.numbers import shown
from pemlang.ops.ranks import unmeasured
from pemlang.syntax import tree as t
from pemlang.syntax.builder import number_value

if TYPE_CHECKING:
    from pemlang.check.elaborate import Elaborator

_NUMBER = re.compile(r"(-?)(\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?)", re.ASCII)


def setting(value: str | float | bool, kind: str, name: str) -> ParamConstant:
    """A value given from outside as the param's kind; raises PEM0212."""
    if kind == "bool":
        if isinstance(value, bool) or value in ("true", "false"):
            return Decided(value in (True, "true"))
    elif kind == "string" and isinstance(value, str):
        return value
    elif kind == "number" and not isinstance(value, bool):
        match = _NUMBER.fullmatch(str(value).strip())
        if match is not None:
            return number_value(match[2]) * (-1 if match[1] else 1)
    raise Fault(
        "PEM0212",
        f"{visible(repr(value), 40)} is not a {kind}, which `{visible(name)}` is",
        {"bool": "give true or false", "number": "give a number, such as 0.6"}.get(
            kind, "give a text"
        ),
    )


@dataclass(frozen=True)
class NumberRange:
    """`in low..high`: the numbers that a param takes, both ends included.

    Args:
        kind: of the param.

    Raises:
        Fault: PEM0212, there can be no such range.
    """

    kind: str
    low: Fraction
    high: Fraction

    def __post_init__(self) -> None:
        if self.kind != "number":
            raise Fault("PEM0212", f"{article(self.kind)} has no range", "remove `in …`")
        if self.low > self.high:
            raise Fault(
                "PEM0212",
                f"no number lies in {self}",
                f"write the lower end first: in {shown(self.high)}..{shown(self.low)}",
            )

    def __str__(self) -> str:
        return f"{shown(self.low)}..{shown(self.high)}"

    def hold(self, name: str, value: RecipeValue) -> None:
        """Raise PEM0214 for a number outside of it."""
        if isinstance(value, Fraction) and not self.low <= value <= self.high:
            raise Fault(
                "PEM0214",
                f"`{visible(name)}` is {shown(value)}, outside {self}",
                f"give a value from {shown(self.low)} to {shown(self.high)}",
            )

    def claim(
        self, name: str, number: NumberNode, given: t.Tree, notes: tuple[str, ...]
    ) -> Assertion:
        """What is to hold of a number that is measured; `notes` say where it is given."""
        text = visible(" ".join(given.span.text.split()), 60)
        above = Comparison("<=", self.low, number, (shown(self.low), text))
        below = Comparison("<=", number, self.high, (text, shown(self.high)))
        both = Combined("and", (above, below))
        message = f"`{visible(name)}` lies outside {self}"
        return Assertion(both, message, given.span, AssertedPart(given, both), notes)


class DeclaredParam(NamedTuple):
    """A param of the main file as it is declared, whatever value it is given.

    Attributes:
        kind: `number`, `string` or `bool`.
        within: what stands after `in`.
        default: its value where none is given.
        statement: that declares it.
    """

    kind: str
    within: NumberRange | None
    default: ParamConstant | None
    statement: t.Param

    def hold(self, name: str, value: ParamConstant) -> None:
        """Raise PEM0214 for a value outside of its range."""
        if self.within is not None:
            self.within.hold(name, value)


def declared_range(
    elaborator: Elaborator, tree: t.Param | t.DefParam, kind: str, scope: Scope
) -> NumberRange | None:
    """The range that a param of some kind is declared with, where it is; reports PEM0212, or
    PEM0314 of an end that is measured."""
    if tree.low is None or tree.high is None:
        return None
    low, high = (_end(elaborator, end, scope) for end in (tree.low, tree.high))
    with elaborator.at(tree.span):
        return NumberRange(kind, low, high)


def _end(elaborator: Elaborator, tree: t.Tree, scope: Scope) -> Fraction:
    """An end of a range, which is known before weights are read."""
    resolve_names(tree, scope, elaborator.report)
    number = elaborator.number(tree, scope)
    with elaborator.at(tree.span):
        return unmeasured(number, "the end of a range")


def hold_argument(
    elaborator: Elaborator,
    within: NumberRange,
    value: RecipeValue,
    given: t.Tree,
    param: t.DefParam,
) -> None:
    """Hold what a function is given to the range of its param, now or once weights are read."""
    with elaborator.at(given.span):
        within.hold(param.name.name, value)
    if isinstance(value, NumberNode):
        claim = within.claim(param.name.name, value, given, elaborator.expansion.notes)
        elaborator.claims.setdefault((given.span, value), claim)
