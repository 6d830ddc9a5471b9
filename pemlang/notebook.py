"""`%load_ext pemlang`: recipes in the cells of a notebook, and expressions over their names."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Protocol

from pemlang.api import Recipe, loads
from pemlang.diagnostics import Diagnostic, Fault, PemError, render, visible
from pemlang.syntax.written import is_name

_USUAL = "recipe"
"""What Python calls the recipe of a cell that gives it no name."""


class NotebookShell(Protocol):
    """What is used of IPython's shell."""

    user_ns: dict[str, object]

    def register_magic_function(
        self, func: object, magic_kind: str = "line", magic_name: str | None = None
    ) -> None:
        """Make a function a magic."""


def load_ipython_extension(ipython: NotebookShell) -> None:
    """Give IPython `%%pem` and `%pem`.

    `%%pem NAME PARAM=VALUE …` makes a recipe of the cell, checks it, shows it and calls it NAME in
    Python, `recipe` where no name is given; its paths are relative to the working directory.
    `%pem norm(a)` tells the value of an expression over the names of the last such recipe.
    """
    magics = _Magics(ipython)
    ipython.register_magic_function(magics.cell, "cell", "pem")
    ipython.register_magic_function(magics.line, "line", "pem")


class _Magics:
    def __init__(self, ipython: NotebookShell) -> None:
        self._ipython = ipython
        self._recipe: Recipe | None = None

    def cell(self, line: str, cell: str) -> Recipe | None:
        """A recipe."""
        try:
            name, params = _words(line)
            recipe = loads(cell, params)
            diagnostics = recipe.check()
        except PemError as error:
            say(error.diagnostics)
            return None
        if any(told.severity == "error" for told in diagnostics):
            say(diagnostics)
            return None
        self._recipe = self._ipython.user_ns[name] = recipe
        return recipe

    def line(self, line: str) -> None:
        """An expression."""
        if self._recipe is None:
            help = "make one in a cell that begins with %%pem"
            say([Fault("PEM0601", "there is no recipe yet", help).at(None)])
            return
        try:
            print(self._recipe.tell(line))
        except PemError as error:
            say(error.diagnostics)


def _words(line: str) -> tuple[str, dict[str, str]]:
    """The name that the line of a cell gives, and the values of params."""
    names = list[str]()
    params = dict[str, str]()
    for word in line.split():
        name, equals, value = word.partition("=")
        if not is_name(name) or (not equals and names) or name in params:
            help = "write it as %%pem recipe weight=0.4: a name, then values for params"
            fault = Fault("PEM0601", f"`{visible(word, 60)}` is out of place", help)
            raise PemError([fault.at(None)])
        if equals:
            params[name] = value
        else:
            names.append(name)
    return (names or [_USUAL])[0], params


def say(diagnostics: Iterable[Diagnostic]) -> None:
    """Messages below a cell, as `pem check` shows them."""
    for told in diagnostics:
        print(render(told) + "\n", file=sys.stderr)
