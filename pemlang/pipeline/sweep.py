"""One recipe at many values of a param: each value saves to a place of its own, and what is said
of one names it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pemlang.check.checked import Checked
from pemlang.check.outputs import same_place
from pemlang.check.values import Params, ParamValue
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, Fault, PemError, visible
from pemlang.source import Span


@dataclass(frozen=True)
class Sweep:
    """One param, and the values to build a recipe at; as for `load`, text is read as the param's
    type. Raises ValueError where there is no value."""

    name: str
    values: tuple[ParamValue, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a sweep needs a value")


@dataclass(frozen=True)
class SweepPoint:
    """One value of a sweep, or a build without one.

    Attributes:
        settings: values for the recipe's params.
        note: what is added to messages: which value it is.
    """

    settings: Params
    note: tuple[str, ...] = ()

    def noted(self, diagnostics: Sequence[Diagnostic]) -> list[Diagnostic]:
        """Diagnostics that say which value they are about."""
        return [
            replace(diagnostic, notes=(*diagnostic.notes, *self.note)) for diagnostic in diagnostics
        ]

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What is raised inside says which value it is about."""
        try:
            yield
        except PemError as error:
            raise PemError(self.noted(error.diagnostics)) from None


def sweep_points(settings: Params, sweep: Sweep | None) -> list[SweepPoint]:
    """The values of a sweep, with the other settings."""
    if sweep is None:
        return [SweepPoint(settings)]
    name = sweep.name
    return [
        SweepPoint({**settings, name: value}, (f"at {visible(name)} = {visible(value)}",))
        for value in sweep.values
    ]


def told_once(warnings: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Warnings of a sweep, each told at the first of the values that it is about."""
    groups: dict[tuple[str, Span | None], list[Diagnostic]] = {}
    for warning in warnings:
        groups.setdefault((warning.code, warning.span), []).append(warning)
    told = []
    for group in groups.values():
        first = [warning for warning in group if warning.notes[-1:] == group[0].notes[-1:]]
        more = len({warning.notes[-1:] for warning in group}) - 1
        note = (f"and at {more} other value{'s' * (more > 1)}",) * bool(more)
        told += [replace(warning, notes=(*warning.notes, *note)) for warning in first]
    return told


def saved_apart(recipes: Sequence[Checked], sweep: Sweep | None) -> None:
    """Hold each value of a sweep to save to a place of its own; raises PemError PEM0347."""
    seen: set[Path] = set()
    around: set[Path] = set()
    for checked in recipes:
        for output in checked.outputs:
            target = same_place(output.target)
            if seen & {target, *target.parents} or target in around:
                assert sweep is not None
                name = visible(sweep.name)
                fault = Fault(
                    "PEM0347",
                    f"a sweep over `{name}` saves more than one adapter to {visible(output.path)}",
                    f'name the value in the path: save {output.label} to "out/{name}-{{{name}}}"',
                )
                raise PemError([fault.at(output.span)])
        targets = [same_place(output.target) for output in checked.outputs]
        seen.update(targets)
        around.update(folder for target in targets for folder in target.parents)
