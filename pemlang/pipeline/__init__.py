"""What a command does: check, plan, build, sweep."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    build="BuildOptions BuildResult",
    documenting="documented",
    faults="fault_of",
    forecast="Forecast OutputForecast",
    jobs="measuring_with",
    processes="Died side_by_side",
    sweep="Sweep",
)
