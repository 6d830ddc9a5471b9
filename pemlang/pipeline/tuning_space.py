"""The values that a tuning may give to the params of a recipe, each by its share of the way from
the first, 0, to the last, 1."""

from __future__ import annotations

import math
import shlex
from collections.abc import Container, Mapping, Sequence
from fractions import Fraction
from typing import TypeAlias

from pemlang.artifact.write import param_text
from pemlang.check.checked import Checked
from pemlang.check.outputs import Output
from pemlang.check.params import DeclaredParam, setting
from pemlang.check.values import ParamConstant
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, Fault, PemError, listed, visible
from pemlang.graph.numbers import shown
from pemlang.syntax import tree as t

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


def axes_of(
    checked: Checked, fixed: Container[str], choices: Mapping[str, Sequence[str]]
) -> tuple[Space, Mapping[str, Diagnostic]]:
    """What each param of a recipe may be, and PEM0901 of each that nothing is known of.

    Args:
        checked: the recipe.
        fixed: the params that have one value.
        choices: the values of some others.

    Raises:
        PemError: PEM0901 a param has neither a range nor a default, PEM0211 to PEM0214 a value is
            none of a param.
    """
    axes: dict[str, Axis] = {}
    refused: dict[str, Diagnostic] = {}
    is_wrong = False
    for name, declared in checked.declared.items():
        try:
            if name in choices:
                axes[name] = _chosen(name, declared, choices[name])
            elif name not in fixed:
                axes[name] = _whole(name, declared)
        except Fault as fault:
            refused[name] = fault.at(declared.statement.span)
            is_wrong |= name in choices or declared.default is None
    if is_wrong:
        raise PemError(list(refused.values()))
    return axes, refused


def space_of(
    checked: Checked,
    output: Output,
    axes: Space,
    refused: Mapping[str, Diagnostic],
    choices: Container[str],
) -> Space:
    """What is tuned of a recipe: the params that an output is made with, but those that are fixed.
    The others keep their defaults.

    Args:
        checked: the recipe.
        output: what is measured.
        axes, refused: of its params, by axes_of.
        choices: the params that are tuned in any case.

    Raises:
        PemError: PEM0901 a param has no range, PEM0902 there is none to tune.
    """
    names = _names_behind(checked, output)
    if wrong := [told for name, told in refused.items() if name in names]:
        raise PemError(wrong)
    space = {
        name: axis
        for name, axis in axes.items()
        if name in names or name in choices or checked.declared[name].default is None
    }
    if not space:
        raise PemError([_none_to_tune(checked, names).at(None)])
    return space


def _names_behind(checked: Checked, output: Output) -> Container[str]:
    """All names of the recipe that what is saved, and how, is written with. Its path says only
    where it goes."""
    statements = checked.files.trees[checked.path].statements
    declared = {x.name.name: x for x in statements if isinstance(x, t.Declaration)}
    names: set[str] = set()
    trees: list[t.Tree] = []
    for statement in statements:
        if isinstance(statement, t.Save) and statement.span == output.span:
            trees += [statement.value, *statement.options]
    while trees:
        tree = trees.pop()
        trees += tree.children()
        if isinstance(tree, t.Name) and tree.name in declared and tree.name not in names:
            names.add(tree.name)
            trees.append(declared[tree.name])
    return names


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
    called, own = visible(name), declared.default
    values, value = f"--values {called}=…,…", "…"
    if own is not None:
        value = visible(shlex.quote(param_text(own)), 80)
        values = f"--values {called}={value},…"
    help = f"try some values: {values} or keep one: --set {called}={value}"
    if declared.kind == "number":
        ends = sorted((Fraction(0), 2 * own if isinstance(own, Fraction) and own else Fraction(1)))
        within = "..".join(map(shown, ends))
        help = f"say it in the recipe, as in `{called}: number in {within}`; or {help}"
    raise Fault("PEM0901", f"`{called}` has no range: nothing says which values to try", help)


def _none_to_tune(checked: Checked, names: Container[str]) -> Fault:
    if not checked.declared:
        return Fault(
            "PEM0902",
            "the recipe has no param to tune",
            "declare what is to be found: param weight: number in 0..1 = 0.5",
        )
    fixed = [name for name in checked.declared if name in names]
    if fixed:
        message = f"there is no param left to tune: --set fixes {listed(fixed)}"
        return Fault("PEM0902", message, "leave out the --set of one that is to be found")
    others = listed(checked.declared)
    message = f"there is no param to tune: what is measured does not depend on {others}"
    return Fault("PEM0902", message, "write one into what is saved, as in save weight * x")


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


def whole_values(space: Space, settings: Mapping[str, str], message: str) -> str:
    """The option by which whole numbers are tried, of the first param with a range whose value a
    message names; empty where there is none, or there are hundreds of them."""
    words = {word.strip(",:") for word in message.split()}
    for name, axis in space.items():
        if isinstance(axis, Interval) and settings[name] in words:
            low, high = math.ceil(axis.low), math.floor(axis.high)
            if 0 < high - low < 500:
                return f"--values {visible(name)}={low}:{high}:1"
    return ""
