"""What a command does: check, plan, build, sweep, tune."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    build="BuildOptions BuildResult",
    documenting="documented",
    faults="fault_of",
    forecast="Forecast OutputForecast",
    jobs="measuring_with",
    metric="MetricRuns metric_of numbers_of",
    processes="Died side_by_side",
    samplers="SAMPLERS SamplingContext",
    study="Objective Trial best_of",
    sweep="Sweep",
    tuning="Tuned TuningOptions",
    tuning_space="Choices Interval",
)
