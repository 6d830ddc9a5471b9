"""What a case of a message is, how it is run, and what the cases in Python are made with."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import pemlang
from pemlang.diagnostics import Diagnostic, Fault, render
from pemlang.failures import Failure, NoGpu, Undefined
from pemlang.pipeline import fault_of
from pemlang.show import pasteable
from support import pem, shelf
from support import recipe as write_recipe

Diagnostics = tuple[Diagnostic, ...]
Made = Callable[[Path, pytest.MonkeyPatch], Iterable[Diagnostic]]

MADE: dict[str, Made] = {}
"""The cases in Python."""

MISTAKES: tuple[type[Exception], ...] = (Fault, NoGpu, Undefined)
"""What is made with words for a reader where something is wrong."""


def made(function: Made) -> None:
    """A case in Python; PEM0100_missing is the case PEM0100-missing."""
    MADE[function.__name__.replace("_", "-")] = function


def checked(path: Path | str, **params: Any) -> Diagnostics:
    """What a check says of a recipe."""
    try:
        return pemlang.load(path, params).check()
    except pemlang.PemError as error:
        return error.diagnostics


def text_checked(root: Path, text: str, **params: Any) -> Diagnostics:
    """What a check says of a text."""
    return checked(write_recipe(root, text, "made.pem").name, **params)


def loaded(root: Path, text: str) -> pemlang.Recipe:
    """A recipe of a text."""
    return pemlang.load(write_recipe(root, text, "made.pem"))


def raised(action: Callable[[], object]) -> Diagnostics:
    """What an action raises."""
    try:
        action()
    except pemlang.PemError as error:
        return error.diagnostics
    except Fault as fault:
        return (fault.at(None),)
    except Failure as failure:
        return (fault_of(failure).at(None),)
    raise AssertionError("nothing was raised")


def told(where: str, *words: str | Path) -> Diagnostics:
    """What is said on the terminal by a command, or by `main` of one."""
    collected: list[Diagnostic] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            f"pemlang.cli.{where}.say", lambda some, form, *_: collected.extend(some) or 1
        )
        pem(*([] if where == "main" else [where.replace("_", "-")]), *words)
    return tuple(collected)


@dataclass
class Case:
    """One message, or a few of one code."""

    name: str
    text: str = ""
    options: dict[str, list[str]] = field(default_factory=dict)

    @cached_property
    def code(self) -> str:
        return self.name.partition("-")[0]

    def run(self, text: str) -> Diagnostics:
        """What is said of the recipe in the folder it lies in."""
        write_recipe(Path(), text, f"{self.name}.pem")
        params = dict(value.split("=", 1) for value in self.options.get("set", ()))
        try:
            recipe = pemlang.load(f"{self.name}.pem", params)
            if "test" in self.options:
                return tuple(told for outcome in recipe.test() for told in outcome.wrong)
            return recipe.build().warnings if "build" in self.options else recipe.check()
        except pemlang.PemError as error:
            return error.diagnostics
        finally:
            shelf.clear(Path())

    def mended(self, diagnostics: Diagnostics) -> str:
        """The recipe with the help, or what the case names, in the place of the mistake."""
        text = self.text
        for diagnostic in sorted(diagnostics, key=lambda d: -d.span.start if d.span else 0):
            assert diagnostic.span is not None
            start, end = diagnostic.span.start, diagnostic.span.end
            new = pasteable(diagnostic.help or "")
            if "instead" in self.options:
                start, end = text.rfind("\n", 0, start) + 1, text.find("\n", start)
                [new] = self.options["instead"]
            assert new is not None
            text = text[:start] + new + text[end:]
        return text


def read_case(path: Path) -> Case:
    """A case that is a recipe."""
    text = path.read_text(encoding="utf-8")
    options: dict[str, list[str]] = {}
    for line in re.findall(r"^#! (.+)$", text, re.MULTILINE):
        word, _, rest = line.partition(" ")
        options.setdefault(word, []).append(rest)
    assert set(options) <= {"build", "test", "set", "paste", "instead"}, path
    return Case(path.stem, text, options)


@dataclass
class CaseRuns:
    """The folder of adapters in which all cases run, each once.

    Attributes:
        root: the folder.
        results: what each case said.
        reached: file and line of each place where a mistake was made on the way.
    """

    root: Path
    results: dict[str, Diagnostics] = field(default_factory=dict)
    reached: set[tuple[str, int]] = field(default_factory=set)

    def of(self, case: Case) -> Diagnostics:
        """What a case says."""
        if case.name not in self.results:
            with pytest.MonkeyPatch.context() as patch, self._noting():
                patch.chdir(self.root)
                if case.name in MADE:
                    self.results[case.name] = tuple(MADE[case.name](self.root, patch))
                else:
                    self.results[case.name] = case.run(case.text)
        return self.results[case.name]

    def again(self, case: Case, text: str) -> Diagnostics:
        """What a case says with another text."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            return case.run(text)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note the lines at which mistakes are made."""

        with pytest.MonkeyPatch.context() as patch:
            for kind in MISTAKES:
                patch.setattr(kind, "__init__", self._noted(kind.__init__))
            yield

    def _noted(self, begin: Callable[..., None]) -> Callable[..., None]:
        def init(mistake: Exception, *args: Any, **more: Any) -> None:
            frame = sys._getframe(1)
            self.reached.add((frame.f_code.co_filename, frame.f_lineno))
            begin(mistake, *args, **more)

        return init

    def shown(self, diagnostics: Iterable[Diagnostic], colour: bool = False) -> str:
        """Diagnostics as a reader sees them, wherever the folder is."""
        text = "\n\n".join(render(diagnostic, colour) for diagnostic in diagnostics) + "\n"
        return text.replace(str(self.root), "/here")
