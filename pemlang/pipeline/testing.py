"""Tests of a recipe, run: what each of them tells, and what does not hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pemlang.check.assertions import failure
from pemlang.check.check import check
from pemlang.check.checked import Checked
from pemlang.check.tests import CheckedTest
from pemlang.check.values import Params
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, PemError, Report, placed
from pemlang.disk import temporary
from pemlang.execute.cpu import CpuExecutor
from pemlang.execute.executor import no_progress
from pemlang.execute.machine import algebra_libraries, one_algebra_thread
from pemlang.inputs.identities import identified
from pemlang.inputs.samples import SampleResolver
from pemlang.lower.lowering import Lowering
from pemlang.pipeline.jobs import measuring_with
from pemlang.pipeline.prints import lines_of
from pemlang.source import Source, Span
from pemlang.syntax.parser import parse
from pemlang.tensorfiles.reader import TensorReader

FAILED = "PEM0501"
"""The code of an assertion that does not hold."""


@dataclass(frozen=True)
class TestOutcome:
    """What became of a test.

    Attributes:
        title: what it is called.
        span: where it is.
        seconds: how long it took, its check left out.
        wrong: what does not hold, or is no recipe; nothing where it passed.
        printed: what it tells.
    """

    title: str
    span: Span
    seconds: float
    wrong: Sequence[Diagnostic]
    printed: Sequence[str]

    @property
    def passed(self) -> bool:
        return not self.wrong


def load_all() -> None:
    """Load what is loaded as the first test runs, so that processes which are forked afterwards
    have it."""
    import llvmlite.binding  # noqa: F401
    import numpy.random  # noqa: F401

    algebra_libraries()
    parse(Source("", "let x = 1"), Report())


def run_tests(
    path: Path, source: Source, params: Params, wanted: Callable[[str], bool] = lambda title: True
) -> list[TestOutcome]:
    """Run the tests of a recipe, one after the other.

    Args:
        path, source: the recipe.
        params: values for its params.
        wanted: says by its title whether a test is to be run.

    Raises:
        PemError: everything wrong with the recipe outside its tests.
    """
    with temporary("tests") as folder, one_algebra_thread(), TensorReader() as reader:
        resolver = SampleResolver(folder)
        checked = check(path, source, resolver, params, testing=True)
        checked.raise_errors()
        tests = [test for test in checked.tests if wanted(test.title)]
        right = [test for test in tests if all(x.code == FAILED for x in _errors(test))]
        whole = _at_hand(checked, right, resolver)
        lowering = Lowering(whole.graph, measuring_with(CpuExecutor, reader, no_progress))
        measured = {test.span: test for test in whole.tests}
        return [
            _run(measured[test.span], lowering, whole)
            if test in right
            else TestOutcome(test.title, test.span, 0.0, _errors(test), ())
            for test in tests
        ]


def _at_hand(checked: Checked, tests: Iterable[CheckedTest], resolver: SampleResolver) -> Checked:
    """A recipe with some of its tests. The adapters that these measure are fetched whole and known
    by their content; of the others, which may be large, no tensor is looked at."""
    graph, tests = checked.graph, tuple(tests)
    measured = {leaf for test in tests for node in test.nodes() for leaf in graph.leaves(node)}
    spellings = {leaf: spelt for leaf, spelt in checked.spellings.items() if leaf in measured}
    alone = replace(checked, tests=tests, outputs=(), assertions=(), prints=())
    return identified(replace(alone, spellings=spellings), resolver)


def _errors(test: CheckedTest) -> list[Diagnostic]:
    """What is wrong with a test from headers alone."""
    return [told for told in test.diagnostics if told.severity == "error"]


def _run(test: CheckedTest, lowering: Lowering, checked: Checked) -> TestOutcome:
    began = time.perf_counter()
    report = Report()
    printed: list[str] = []
    for told in _errors(test):
        report.add(told)
    try:
        for assertion in test.assertions:
            with placed(assertion.span):
                failed = failure(assertion, lowering.value)
            if failed is not None:
                report.add(failed)
        printed = lines_of(test.prints, lowering, checked)
    except PemError as error:
        for told in error.diagnostics:
            report.add(told)
    return TestOutcome(test.title, test.span, time.perf_counter() - began, list(report), printed)
