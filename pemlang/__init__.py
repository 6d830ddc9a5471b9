"""pemlang: a language and a compiler for arithmetic on parameter-efficient modules.

>>> import pemlang
>>> recipe = pemlang.load("merge.pem")
>>> recipe.check()
>>> recipe.build()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pemlang.lazy import door
from pemlang.version import __version__

__all__ = [
    "BuildOptions", "BuildResult", "Built", "Diagnostic", "Forecast", "Objective", "PemError",
    "PemWarning", "Recipe", "Sweep", "Tuned", "TuningOptions", "__version__", "apply",
    "collect_statistics", "load", "loads",
]  # fmt: skip

if TYPE_CHECKING:
    from pemlang.api import Recipe, apply, load, loads
    from pemlang.artifact.write import Built
    from pemlang.collect import collect_statistics
    from pemlang.diagnostics import Diagnostic, PemError, PemWarning
    from pemlang.pipeline.build import BuildOptions, BuildResult
    from pemlang.pipeline.forecast import Forecast
    from pemlang.pipeline.study import Objective
    from pemlang.pipeline.sweep import Sweep
    from pemlang.pipeline.tuning import Tuned, TuningOptions
else:
    # Importing the package is free; its parts are imported when first asked for.
    __getattr__ = door(
        __name__,
        api="Recipe apply load loads",
        collect="collect_statistics",
        notebook="load_ipython_extension",
        diagnostics="Diagnostic PemError PemWarning",
        artifact="Built",
        pipeline="BuildOptions BuildResult Forecast Objective Sweep Tuned TuningOptions",
    )
