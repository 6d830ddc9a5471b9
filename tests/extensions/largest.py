"""A merge method: of the adapters' weighted entries the largest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pemlang.kernels import Elementwise
from pemlang.ops import OVER, RANK, WEIGHTS, MergeMethod, Section, merge_operator, register


def reference(xs: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """What it does, on dense tensors."""
    return largest(np.array([weight * x for weight, x in zip(weights, xs, strict=True)]))


def look(field, settings):
    """Nothing has to be known of the whole tensors."""


def at(field, rows, weights, known, settings):
    """The merged entries of some rows."""
    tiles = (weights[i] * field.tile(i, rows) for i in range(field.count))
    return largest(np.array(list(tiles))).astype("f8" if settings.dtype == "F64" else "f4")


def largest(stack: np.ndarray) -> np.ndarray:
    """Of numbers on top of each other the one of largest magnitude."""
    return np.take_along_axis(stack, np.abs(stack).argmax(axis=0)[None], axis=0)[0]


register(
    Section(
        "Mine",
        "A method of my own.",
        (
            merge_operator(
                MergeMethod("largest", Elementwise(reference, look, at)),
                *(WEIGHTS, OVER, RANK),
                summary="Takes of the adapters' entries the one of largest magnitude.",
                formula="Δ = wᵢ·Δᵢ where |wᵢ·Δᵢ| is largest, entry by entry",
                source="a test",
                rank="min(out, in), or rank",
                laws=("largest([x]) = x",),
            ),
        ),
    )
)
