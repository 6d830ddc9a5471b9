"""What an adapter is made of at a site: parametrisations, one record each.

Each file beside this one registers its own; those that a message tells of first are named here.
"""

from __future__ import annotations

import importlib
import pkgutil

from pemlang.modules.record import PARAMETRISATIONS, Parametrisation, SiteValues, register
from pemlang.modules.sites import Shapes, SiteShape
from pemlang.modules.vectors import OneTensor

__all__ = [
    "PARAMETRISATIONS", "OneTensor", "Parametrisation", "Shapes", "SiteShape", "SiteValues",
    "register",
]  # fmt: skip

for _module in ("lora", "ia3", *(module.name for module in pkgutil.iter_modules(__path__))):
    importlib.import_module(f"{__name__}.{_module}")
