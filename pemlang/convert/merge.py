"""One merge of a configuration, as a method of mergekit's sees it while it is written as an
expression."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Literal, Protocol

from pemlang.convert.configuration import (
    MarkedMapping,
    MergedSlice,
    MergekitSetting,
    ModelInput,
    setting,
)
from pemlang.convert.written import schedule
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault
from pemlang.graph.numbers import shown
from pemlang.source import Span

BaseRole = Literal["origin", "first", "optional", "member"]


@dataclass(frozen=True, eq=False)
class MergekitMethod:
    """A method of mergekit.

    Attributes:
        name: its `merge_method`.
        write: the expression that it is of a merge.
        base: what it makes of base_model: the point that it takes differences to (`origin`; where
            there may be none, `optional`), the first of two models (`first`), one model of those
            that it merges (`member`).
        of_all: the settings for all models, with their defaults; None is needed.
        of_each: those of each model.
        models: how many models it takes beside the base; None for any number.
    """

    name: str
    write: Callable[[ModelMerge], str]
    base: BaseRole
    of_all: Mapping[str, Fraction | None]
    of_each: Mapping[str, Fraction | None]
    models: int | None = None


class RecipeDraft(Protocol):
    """What a merge adds to the recipe that is written."""

    def let(self, name: str, text: str) -> str:
        """A name for a value, which is given to no other text."""

    def remark(self, text: str) -> None:
        """A comment."""

    def warn(self, message: str, span: Span, help: str) -> None:
        """Say what was left out."""


class ModelMerge:
    """The models of a slice, with their settings.

    Attributes:
        base: what the method takes differences to, by its name in the recipe.
        points: the models, by their names.
    """

    def __init__(
        self,
        method: MergekitMethod,
        part: MergedSlice,
        base: str | None,
        points: Mapping[str, ModelInput | None],
        recipe: RecipeDraft,
    ) -> None:
        self.base = base
        self.points = [*points]
        self.span = part.span
        self._method, self._part, self._inputs, self._recipe = method, part, points, recipe

    @property
    def vectors(self) -> list[str]:
        """What each model adds to the base."""
        return [f"{point} - {self.base}" for point in self.points]

    @property
    def _layers(self) -> int | None:
        first = self._part.inputs[0].layers
        return None if first is None else first[1] - first[0] + 1

    def remark(self, text: str) -> None:
        """A comment in the recipe."""
        self._recipe.remark(text)

    def let(self, name: str, text: str) -> str:
        """A name for a value."""
        return self._recipe.let(name, text)

    def setting(self, name: str) -> MergekitSetting:
        """A setting for all models; raises Fault PEM0832 where it is needed and not there."""
        found = setting(name, self._part.levels, self._method.of_all[name])
        if found is None:
            raise self.wrong(self.span, f"`{self._method.name}` needs `{name}`", _adding(name))
        return found

    def number(self, name: str) -> str:
        """A setting for all models, as the recipe writes it."""
        return self._text(self.setting(name), name)

    def constant(self, name: str) -> Fraction:
        """A setting that is one number everywhere; raises Fault PEM0833 where it is not."""
        found = self.setting(name)
        if found.constant is None:
            raise self.refused(name, f"`{name}` varies by tensor", f"give one {name} for all")
        return found.constant

    def truth(self, name: str) -> bool:
        """A setting that is true or false."""
        return self.constant(name) != 0

    def refused(self, name: str, message: str, help: str) -> Fault:
        """What is wrong with a setting that does not carry over."""
        of_all = name in self._method.of_all
        span = (self.setting(name) if of_all else self._of(self.points[0], name)).span or self.span
        return Fault("PEM0833", message, help, place=span)

    def wrong(self, span: Span, message: str, help: str) -> Fault:
        """What is wrong with the configuration itself."""
        return Fault("PEM0832", message, help, place=span)

    def each(self, name: str) -> list[str]:
        """A setting of each model, as the recipe writes it."""
        return [
            self._text(self._of(point, name), f"{point}_{name}".split("[")[0])
            for point in self.points
        ]

    def constants(self, name: str) -> list[Fraction] | None:
        """A setting of each model, where all are one number everywhere."""
        numbers = [self._of(point, name).constant for point in self.points]
        exact = [number for number in numbers if number is not None]
        return exact if len(exact) == len(numbers) else None

    def _of(self, point: str, name: str) -> MergekitSetting:
        each = self._inputs[point]
        own: Sequence[MarkedMapping] = () if each is None else (each.parameters,)
        found = setting(name, (*own, *self._part.levels), self._method.of_each[name])
        if found is None:
            place = self.span if each is None else each.span
            message = f"`{self._method.name}` needs a `{name}` of this model"
            raise self.wrong(place, message, _adding(name))
        return found

    def _text(self, found: MergekitSetting, name: str) -> str:
        text = schedule(found, self._layers)
        return text if found.constant is not None else self._recipe.let(name, text)


def _adding(name: str) -> str:
    return f"add it below parameters: {name}: 0.5"


def call(name: str, args: Iterable[str], **settings: str | None) -> str:
    """A call; a setting that is None is left out."""
    named = [f"{key}={value}" for key, value in settings.items() if value is not None]
    return f"{name}({', '.join([*args, *named])})"


def listed(items: Iterable[str]) -> str:
    """A list of a recipe."""
    return f"[{', '.join(items)}]"


def unless(text: str, default: Fraction | int) -> str | None:
    """A number, or None where it is the default."""
    return None if text == shown(Fraction(default)) else text
