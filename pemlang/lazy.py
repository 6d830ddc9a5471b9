"""What is imported when it is first asked for.

A check, a plan and the editor go through the rooms that compute and compute nothing: importing
NumPy would take them as long as all that they do.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["blake3", "door", "numpy", "re2", "regex"]


class _Lazy(ModuleType):
    """Stands for a module until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)  # the next time it is asked for, it is there
        return value


if TYPE_CHECKING:
    import blake3
    import numpy
    import re2
    import regex
else:
    blake3, numpy, re2, regex = (_Lazy(name) for name in ("blake3", "numpy", "re2", "regex"))


def door(package: str, **names: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package: what may be imported from it, each name's module loaded when
    the name is first used.

    Args:
        package: its name.
        names: by module of the package, the names that are in it.
    """
    modules = {name: module for module, text in names.items() for name in text.split()}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return get
