"""Every message as a reader sees it.

A case is a recipe, `messages/CODE-what.pem`, and what is said of it, `CODE-what.txt` beside it.
Lines at its top that start with `#!` say more:

    #! build              the message comes only when the recipe is built
    #! test               the message comes only when its tests are run
    #! set weight=3       a value for a param
    #! paste              the help, put in the place of the marked text, makes the recipe right
    #! instead let x = 1  this line, put in the place of the marked one, makes the recipe right

What no recipe can show is a function in `support/messages`. `pytest --rewrite` writes the texts
anew.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path

import pytest
from support import pem, recipe
from support.messages import CASES, HERE, Case, CaseRuns
from support.messages.case import MISTAKES

import pemlang
from pemlang.show import MEANT, pasteable

SOURCES = Path(pemlang.__file__).parent


@pytest.fixture(scope="module")
def runs(stocked: Path) -> CaseRuns:
    return CaseRuns(stocked)


def hold(name: str, text: str, request: pytest.FixtureRequest) -> None:
    """Hold a text to what was written down for it."""
    golden = HERE / f"{name}.txt"
    if request.config.getoption("--rewrite"):
        golden.write_text(text, encoding="utf-8")
    assert golden.exists(), "no such text yet: write it with pytest --rewrite"
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_message(case: Case, runs: CaseRuns, request: pytest.FixtureRequest) -> None:
    diagnostics = runs.of(case)
    assert {diagnostic.code for diagnostic in diagnostics} == {case.code}
    text = runs.shown(diagnostics)
    assert all(char == "\n" or char.isprintable() for char in text)
    hold(case.name, text, request)


MENDED = {n: case for n, case in CASES.items() if {"paste", "instead"} & set(case.options)}


@pytest.mark.parametrize("case", MENDED.values(), ids=MENDED)
def test_help_mends_the_recipe(case: Case, runs: CaseRuns) -> None:
    again = runs.again(case, case.mended(runs.of(case)))
    assert runs.shown(told for told in again if told.code != "PEM0114") == "\n"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_help_pastes_or_says_what_to_do(case: Case, runs: CaseRuns) -> None:
    """What a help shows, in the place of what is marked, mends that and brings nothing new; any
    other is a sentence."""
    diagnostics = runs.of(case)
    known = Counter((d.code, d.message) for d in diagnostics)
    for diagnostic in diagnostics:
        assert diagnostic.help, "it says nothing of what to do"
        assert not diagnostic.help.isalnum(), "a word that does not say where it goes"
        new, span = pasteable(diagnostic.help), diagnostic.span
        if new is None or span is None:
            assert new is None or MEANT.fullmatch(diagnostic.help), "a text that has no place"
            continue
        if not case.text:  # what it is about is no recipe of its own
            continue
        text = case.text[: span.start] + new + case.text[span.end :]
        # A merge at a rank loses something, and a line by itself saves nothing: both are said then.
        again = [d for d in runs.again(case, text) if d.code not in ("PEM0114", "PEM0702")]
        left = Counter((d.code, d.message) for d in again)
        assert left <= known - Counter([(diagnostic.code, diagnostic.message)])


def test_every_mistake_is_shown(runs: CaseRuns) -> None:
    """Each place in the compiler that makes a message is reached by a case."""
    for case in CASES.values():
        runs.of(case)
    names = {kind.__name__ for kind in MISTAKES}
    missed = [
        f"{path.relative_to(SOURCES)}:{call.lineno}"
        for path in sorted(SOURCES.rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in names
        if (str(path), call.lineno) not in runs.reached
    ]
    assert "\n".join(missed) == ""


def test_no_text_is_left_over() -> None:
    texts = {path.stem for path in HERE.glob("*.txt")}
    assert texts == set(CASES) | {"shown-in-colour", "shown-as-json"}


def test_in_colour(runs: CaseRuns, request: pytest.FixtureRequest) -> None:
    diagnostics = runs.of(CASES["PEM0306-add"])
    text = runs.shown(diagnostics, colour=True)
    hold("shown-in-colour", text.replace("\x1b", "␛"), request)


def test_as_json(runs: CaseRuns, request: pytest.FixtureRequest) -> None:
    case = CASES["PEM0306-add"]
    path = recipe(runs.root, case.text, f"{case.name}.pem")
    shown = pem("check", "--format", "json", path.name, folder=runs.root).out
    assert json.loads(shown)["messages"][0]["code"] == case.code
    hold("shown-as-json", shown, request)
