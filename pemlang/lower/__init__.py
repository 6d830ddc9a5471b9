"""From the graph to programs, and from programs to a plan."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    lowering="Lowering",
    plan="BuildPlan OutputRequest joined_loops make_plan",
)
