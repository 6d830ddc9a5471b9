"""The values that a tuning may give to the params of a recipe, each by its share of the way from
the first, 0, to the last, 1."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from fractions import Fraction
from typing import TypeAlias

from pemlang.artifact.write import param_text
from pemlang.check.checked import Checked
from pemlang.check.params import DeclaredParam, setting
from pemlang.check.values import ParamConstant
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, PemError, listed, visible
from pemlang.graph.numbers import shown

DIGITS = 3
"""Decimals that values have beyond the first one that tells the ends of their range apart: a
default that somebody reads."""


@dataclass(frozen=True)
class Interval:
    """All numbers from one to another, rounded to decimals."""

    low: Fraction
    high: Fraction

    @property
    def step(self) -> Fraction:
        """What values are multiples of: 0.001 from 0 to 1."""
        return Fraction(10) ** (math.floor(math.log10(self.high - self.low)) - DIGITS)

    def at(self, share: float) -> str:
        """The value at a share of the way, as text."""
        wanted = self.low + Fraction(share) * (self.high - self.low)
        least, most = math.ceil(self.low / self.step), math.floor(self.high / self.step)
        return shown(min(max(round(wanted / self.step), least), most) * self.step)

    def share(self, value: str) -> float:
        """The share of the way at which a value is."""
        return float((Fraction(value) - self.low) / (self.high - self.low))

    def holds(self, value: str) -> bool:
        """Whether a text is one of them."""
        try:
            number = setting(value, "number", "")
        except Fault:
            return False
        return isinstance(number, Fraction) and self.low <= number <= self.high

    def spread(self, count: int) -> list[str]:
        """Values at equal distances, both ends among them; one alone is in the middle."""
        shares = [i / (count - 1) for i in range(count)] if count > 1 else [0.5]
        return list(dict.fromkeys(map(self.at, shares)))

    def told(self) -> object:
        """The range as the study has it."""
        return {"low": shown(self.low), "high": shown(self.high)}


@dataclass(frozen=True)
class Choices:
    """Some values, and no others.

    Attributes:
        values: all of them.
        ordered: whether neighbours are alike, as numbers are.
    """

    values: tuple[str, ...]
    ordered: bool = False

    def at(self, share: float) -> str:
        """The value at a share of the way."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def share(self, value: str) -> float:
        """The middle of the shares at which a value is."""
        return (self.values.index(value) + 0.5) / len(self.values)

    def holds(self, value: str) -> bool:
        """Whether a text is one of them."""
        return value in self.values

    def spread(self, count: int) -> list[str]:
        """All of them."""
        return list(self.values)

    def told(self) -> object:
        """The values as the study has them."""
        return list(self.values)


Axis: TypeAlias = "Interval | Choices"
"""What one param may be."""

Space: TypeAlias = "Mapping[str, Axis]"
"""What each param may be that is tuned, in the order in which they are declared."""


def space_of(
    checked: Checked, fixed: Container[str], choices: Mapping[str, Sequence[str]]
) -> Space:
    """What is tuned of a recipe: each param but those that are fixed.

    Args:
        checked: the recipe.
        fixed: the params that have one value.
        choices: the values of some others.

    Raises:
        PemError: PEM0901 a param has no range, PEM0902 there is none to tune, PEM0211 to PEM0214 a
            value is none of a param.
    """
    space: dict[str, Axis] = {}
    wrong = []
    for name, declared in checked.declared.items():
        try:
            if name in choices:
                space[name] = _chosen(name, declared, choices[name])
            elif name not in fixed:
                space[name] = _whole(name, declared)
        except Fault as fault:
            wrong.append(fault.at(declared.statement.span))
    if wrong:
        raise PemError(wrong)
    if not space:
        raise PemError([_none_to_tune(checked).at(None)])
    return space


def _chosen(name: str, declared: DeclaredParam, texts: Sequence[str]) -> Choices:
    values = {text: setting(text, declared.kind, name) for text in texts}
    if declared.within is not None:
        for value in values.values():
            declared.within.hold(name, value)
    numbers = [value for value in values.values() if isinstance(value, Fraction)]
    return Choices(tuple(values), ordered=bool(numbers) and numbers == sorted(numbers))


def _whole(name: str, declared: DeclaredParam) -> Axis:
    """All that a param may be."""
    if declared.kind == "bool":
        return Choices(("false", "true"))
    if declared.within is not None:
        low, high = declared.within.low, declared.within.high
        return Interval(low, high) if low < high else Choices((shown(low),))
    called = visible(name)
    help = f"try some values: --values {called}=…,… or fix it: --set {called}=…"
    if declared.kind == "number":
        help = f"say it in the recipe, as in `{called}: number in 0..1`; or {help}"
    raise Fault("PEM0901", f"`{called}` has no range: nothing says which values to try", help)


def _none_to_tune(checked: Checked) -> Fault:
    if checked.declared:
        names = listed(checked.declared)
        message = f"there is no param left to tune: --set fixes {names}"
        return Fault("PEM0902", message, "leave out the --set of one that is to be found")
    return Fault(
        "PEM0902",
        "the recipe has no param to tune",
        "declare what is to be found: param weight: number in 0..1 = 0.5",
    )


def start_of(checked: Checked, space: Space) -> dict[str, str]:
    """The values that the recipe has by itself; the middle one of a param that has none, or one
    that is not tried."""
    return {name: _own(axis, checked.declared[name].default) for name, axis in space.items()}


def _own(axis: Axis, default: ParamConstant | None) -> str:
    if default is None:
        return axis.at(0.5)
    text = param_text(default)
    if isinstance(axis, Choices):
        return text if text in axis.values else axis.at(0.5)
    return text if Fraction(text) == default else axis.at(axis.share(text))
