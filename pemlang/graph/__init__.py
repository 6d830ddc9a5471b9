"""The typed DAG of a recipe, exact numbers, coefficients, and normal forms."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    node="Node AdapterNode",
    leaves="Leaf",
    dag="Graph",
    types="AdapterType",
    normal="Mix Sum",
    coef="at",
    numbers="MAX_BITS Polynomial exact",
)
