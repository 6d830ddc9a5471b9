"""pemlang: a language and a compiler for arithmetic on parameter-efficient modules.

>>> import pemlang
>>> recipe = pemlang.load("merge.pem")
>>> recipe.check()
>>> recipe.build()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pemlang.version import __version__

__all__ = [
    "Diagnostic", "PemError", "PemWarning", "Recipe", "__version__", "apply",
    "collect_statistics", "load",
]  # fmt: skip

if TYPE_CHECKING:
    from pemlang.api import Recipe, apply, load
    from pemlang.collect import collect_statistics
    from pemlang.diagnostics import Diagnostic, PemError, PemWarning


def __getattr__(name: str) -> Any:
    # Importing the package is free; its parts are imported when first asked for.
    if name in ("Diagnostic", "PemError", "PemWarning"):
        from pemlang import diagnostics

        return getattr(diagnostics, name)
    if name == "collect_statistics":
        from pemlang import collect

        return collect.collect_statistics
    if name in __all__:
        from pemlang import api

        return getattr(api, name)
    raise AttributeError(f"module 'pemlang' has no attribute {name!r}")
