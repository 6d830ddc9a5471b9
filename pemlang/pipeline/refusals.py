"""What a build refuses before it reads a tensor, so that a check says it too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pemlang.artifact.target import hold_place
from pemlang.check.checked import Checked
from pemlang.diagnostics import Diagnostic, Fault, PemError, Severity, placed
from pemlang.disk import turn
from pemlang.formats.adapter import Adapter
from pemlang.source import Span
from pemlang.syntax import tree as t


def with_refusals(checked: Checked) -> Checked:
    """A recipe with what a build of it would refuse. That it saves nothing is a warning, where it
    declares adapters and is right otherwise: what only defines is there to be imported."""
    told = checked.told(_of_places(checked))
    wrong = any(diagnostic.severity == "error" for diagnostic in told.diagnostics)
    statements = () if wrong else checked.files.trees[checked.path].statements
    declares = any(isinstance(x, t.AdapterStatement | t.ModelStatement) for x in statements)
    if not declares or checked.outputs:
        return told
    return told.told([saves_nothing(checked, "warning")])


def saves_nothing(checked: Checked, severity: Severity = "error") -> Diagnostic:
    """PEM0114."""
    fault = Fault(
        "PEM0114", "the recipe saves nothing", 'add a line that does, as in save x to "out/x"'
    )
    return fault.at(Span(checked.source, 0, 0), severity)


def _of_places(checked: Checked) -> Iterator[Diagnostic]:
    inputs = inputs_of([checked])
    for output in checked.outputs:
        try:
            with placed(output.span), turn(output.target.parent):
                hold_place(output.target, inputs)
        except PemError as error:
            yield from error.diagnostics


def adapters_of(recipes: Sequence[Checked]) -> list[Adapter]:
    """All adapters that recipes name."""
    return [leaf.adapter for checked in recipes for leaf in checked.graph.all_leaves()]


def inputs_of(recipes: Sequence[Checked]) -> set[Path]:
    """Where they are."""
    return {adapter.place.resolve() for adapter in adapters_of(recipes)}
