"""The operators of the language, one record each.

Each file beside this one registers its own; the sections that the documentation tells of first
are named here.
"""

from __future__ import annotations

import importlib
import pkgutil

from pemlang.ops.record import (
    FUNCTIONS,
    INFIX,
    PREFIX,
    SECTIONS,
    Operator,
    Parameter,
    Section,
    every_operator,
    register,
)

__all__ = [
    "DENSITY", "FUNCTIONS", "INFIX", "MEASURES", "METHODS", "OVER", "PREFIX", "RANK", "SCALE",
    "SECTIONS", "SEED", "WEIGHTS", "Compress", "MergeMethod", "Operator", "Pad", "Parameter",
    "Rescale", "Section", "every_operator", "merge_operator", "register",
]  # fmt: skip

_FIRST = (
    "On what modules do", "Weighted sums", "Sparse merges", "Merges that elect a sign",
    "Merges by what is shared", "Merges by importance", "Geometric merges", "Spectral merges",
    "Low-rank merges", "Merges by overlap", "Merges by data", "On their parameters",
    "Ranks and scales", "Schedules", "Measures", "Lists",
)  # fmt: skip

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

# A file is imported, and registers its own, when the first other one needs it.
SECTIONS.sort(key=lambda x: _FIRST.index(x.title) if x.title in _FIRST else len(_FIRST))

from pemlang.ops.compress import Compress  # noqa: E402
from pemlang.ops.measures import MEASURES  # noqa: E402  # once every file has registered its own
from pemlang.ops.merge import (  # noqa: E402
    DENSITY,
    METHODS,
    OVER,
    RANK,
    SCALE,
    SEED,
    WEIGHTS,
    MergeMethod,
    merge_operator,
)
from pemlang.ops.shaping import Pad, Rescale  # noqa: E402
