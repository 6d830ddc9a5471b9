"""Tests of recipes under pytest: each `test "…" { … }` of a *.pem file is an item. Nothing of
pemlang is imported before there is such a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest._code.code import TerminalRepr

    from pemlang.diagnostics import PemError
    from pemlang.pipeline.testing import TestOutcome


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A recipe; certificates, which share the extension, are none."""
    if file_path.suffix != ".pem":
        return None
    from pemlang.syntax.files import is_certificate

    if is_certificate(file_path):
        return None
    recipe: pytest.Collector = TestedRecipe.from_parent(parent, path=file_path)
    return recipe


class TestedRecipe(pytest.File):
    """A recipe with its tests, which may be none."""

    def collect(self) -> Iterator[pytest.Item]:
        from pemlang.diagnostics import Fault, Report, render
        from pemlang.syntax.files import read_source
        from pemlang.syntax.parser import parse
        from pemlang.syntax.tree import Test

        report = Report()
        try:
            source = read_source(self.path)
        except Fault as fault:
            raise self.CollectError(render(fault.at(None))) from None
        tests = [x for x in parse(source, report).statements if isinstance(x, Test)]
        wrong = [told for told in report if told.severity == "error"]
        if wrong and "test" in source.text:
            raise self.CollectError("\n\n".join(map(render, wrong)))
        for test in tests:
            title = "".join(part for part in test.title.parts if isinstance(part, str))
            item: RecipeTest = RecipeTest.from_parent(self, name=title)
            item.line, _ = source.position(test.span.start)
            yield item

    @cached_property
    def outcomes(self) -> Mapping[str, TestOutcome] | PemError:
        """What became of those of its tests that are to be run, by name: the file is checked once
        for all of them. Or what is wrong with the file."""
        from pemlang.api import load
        from pemlang.diagnostics import PemError

        names = {item.name for item in self.session.items if item.parent is self}
        try:
            return {outcome.title: outcome for outcome in load(self.path).test(names.__contains__)}
        except PemError as error:
            return error


class RecipeTest(pytest.Item):
    """A test of a recipe."""

    line: int
    funcargs: Mapping[str, object] = MappingProxyType({})
    """It has no fixtures; plugins such as pytest-lsp look into this."""

    def runtest(self) -> None:
        from pemlang.diagnostics import PemError

        assert isinstance(self.parent, TestedRecipe)
        outcomes = self.parent.outcomes
        if isinstance(outcomes, PemError):
            raise PemError(outcomes.diagnostics)
        outcome = outcomes[self.name]
        if outcome.printed:
            self.add_report_section("call", "printed", "\n".join(outcome.printed))
        if outcome.wrong:
            raise PemError(outcome.wrong)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None
    ) -> str | TerminalRepr:
        from pemlang.diagnostics import PemError, render

        if isinstance(excinfo.value, PemError):
            return "\n\n".join(map(render, excinfo.value.diagnostics))
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self.line - 1, self.name
