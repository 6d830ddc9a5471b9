"""What changed, in the algebra and in the weights."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    weights="compare",
    recipes="RecipeComparison compare_recipes",
    measure="MeasuredAdapter Measurements measured rows_looked_at truncation_curve",
)
