"""What tests of recipes came to: for a terminal, as JSON, and as JUnit XML."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as xml

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, render, visible
from pemlang.graph.formula import count
from pemlang.pipeline.testing import TestOutcome


@dataclass(frozen=True)
class TestJson:
    """A test: its file and line, whether it passed, and what it tells."""

    file: str
    line: int
    name: str
    passed: bool
    seconds: float
    printed: Sequence[str]


@dataclass(frozen=True)
class TestsJson:
    """`pem test`: the tests that were run; `messages` has what does not hold."""

    tests: Sequence[TestJson]
    passed: int
    failed: int


@dataclass(frozen=True)
class FileTests:
    """The tests of a file, run; or what is wrong with the file.

    Attributes:
        name: of the file, as it was given.
        outcomes: what became of each.
        wrong: why none could be run.
    """

    name: str
    outcomes: Sequence[TestOutcome]
    wrong: Sequence[Diagnostic] = ()

    @property
    def tells(self) -> bool:
        """Whether there is anything to tell of it."""
        return bool(self.outcomes or self.wrong)


def as_json(files: Sequence[FileTests]) -> TestsJson:
    """All of them as plain values."""
    tests = [_test(file, outcome) for file in files for outcome in file.outcomes]
    passed = sum(test.passed for test in tests)
    return TestsJson(tests, passed, len(tests) - passed)


def _test(file: FileTests, outcome: TestOutcome) -> TestJson:
    line, _ = outcome.span.source.position(outcome.span.start)
    seconds = round(outcome.seconds, 6)
    return TestJson(file.name, line, outcome.title, outcome.passed, seconds, outcome.printed)


def diagnostics_of(files: Sequence[FileTests]) -> list[Diagnostic]:
    """Everything that does not hold, and everything wrong."""
    return [
        told
        for file in files
        for told in (*file.wrong, *(x for outcome in file.outcomes for x in outcome.wrong))
    ]


def progress_line(file: FileTests) -> str:
    """A file, with a sign for each of its tests."""
    signs = "".join("." if outcome.passed else "F" for outcome in file.outcomes)
    return f"{visible(file.name)} {'E' if file.wrong else signs}"


def details(files: Sequence[FileTests], colour: bool) -> list[str]:
    """What does not hold, test by test, and what tests that passed have printed."""
    parts = []
    for file in files:
        for outcome in file.outcomes:
            lines = [f"  {line}" for line in outcome.printed]
            lines += [render(told, colour) + "\n" for told in outcome.wrong]
            if lines:
                sign = "passed" if outcome.passed else "FAILED"
                parts += [f"{sign} {visible(file.name)}: {visible(outcome.title)}", *lines]
        if file.wrong:
            parts += [f"WRONG {visible(file.name)}"]
            parts += [render(told, colour) + "\n" for told in file.wrong]
    return parts


def summary(files: Sequence[FileTests], seconds: float) -> str:
    """How many tests passed, and how many did not."""
    tests = as_json(files)
    wrong = sum(bool(file.wrong) for file in files)
    parts = [f"{tests.failed} failed"] * bool(tests.failed)
    parts += [f"{count(wrong, 'file')} wrong"] * bool(wrong)
    parts.append(f"{tests.passed} passed")
    return f"{', '.join(parts)} in {seconds:.2f} s"


def as_junit(files: Sequence[FileTests], seconds: float) -> str:
    """All of them as JUnit XML, which services that run tests read."""
    tests = as_json(files)
    wrong = sum(bool(file.wrong) for file in files)
    root = xml.Element(
        "testsuites",
        tests=str(len(tests.tests) + wrong),
        failures=str(tests.failed),
        errors=str(wrong),
        time=f"{seconds:.3f}",
    )
    for file in files:
        failed = sum(not outcome.passed for outcome in file.outcomes)
        suite = xml.SubElement(
            root,
            "testsuite",
            name=_plain(file.name),
            tests=str(len(file.outcomes) or 1),
            failures=str(failed),
            errors=str(int(bool(file.wrong))),
        )
        for outcome in file.outcomes:
            case = _case(suite, file, outcome.title, outcome.seconds)
            if not outcome.passed:
                _told(case, "failure", outcome.wrong)
            if outcome.printed:
                xml.SubElement(case, "system-out").text = _plain("\n".join(outcome.printed))
        if file.wrong:
            _told(_case(suite, file, "the file", 0.0), "error", file.wrong)
    xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + xml.tostring(root, encoding="unicode")


def _case(suite: xml.Element, file: FileTests, title: str, seconds: float) -> xml.Element:
    return xml.SubElement(
        suite,
        "testcase",
        classname=_plain(file.name),
        name=_plain(title),
        time=f"{seconds:.3f}",
    )


def _told(case: xml.Element, what: str, wrong: Sequence[Diagnostic]) -> None:
    """What is wrong with a test, in it."""
    told = xml.SubElement(case, what, message=_plain(wrong[0].message), type=wrong[0].code)
    told.text = _plain("\n".join(render(diagnostic, False) for diagnostic in wrong))


def _plain(text: str) -> str:
    """A text without what XML cannot hold."""
    return "\n".join(visible(line, 4096) for line in text.split("\n"))
