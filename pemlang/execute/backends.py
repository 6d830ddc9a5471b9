"""The backends: what can run a plan, by name."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, cast

import pemlang.execute

if TYPE_CHECKING:
    from pemlang.execute.executor import ExecutionOptions, Executor

_HELPERS = (
    "algebra", "backends", "crew", "deltas", "elementwise", "executor", "helpers", "kernel_files",
    "loop", "machine", "native", "result", "site", "stream",
)  # fmt: skip

BACKENDS: dict[str, str] = {
    module.name: f"pemlang.execute.{module.name}"
    for module in pkgutil.iter_modules(pemlang.execute.__path__)
    if module.name not in _HELPERS
}
"""The module of each: a file beside this one is one, but for the helpers. It is imported only when
it is asked for, and has a function `executor`."""


def open_backend(name: str, options: ExecutionOptions) -> Executor:
    """The executor of a backend; raises Failure where it cannot work here."""
    return cast("Executor", importlib.import_module(BACKENDS[name]).executor(options))
