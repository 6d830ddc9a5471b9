"""A merge method: of the adapters' weighted entries the largest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pemlang.kernels import Elementwise, Entries, Value
from pemlang.ops import OVER, RANK, WEIGHTS, MergeMethod, Section, merge_operator, register


def reference(xs: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """What it does, on dense tensors."""
    stack = np.array([weight * x for weight, x in zip(weights, xs, strict=True)])
    return np.take_along_axis(stack, np.abs(stack).argmax(axis=0)[None], axis=0)[0]


def largest(e: Entries) -> Value:
    """The same in steps."""
    most, *others = [e.scaled(x, weight) for x, weight in zip(e.xs, e.weights, strict=True)]
    for x in others:
        most = e.where(e.less(e.size_of(most), e.size_of(x)), x, most)
    return most


register(
    Section(
        "Mine",
        "A method of my own.",
        (
            merge_operator(
                MergeMethod("largest", Elementwise(reference, largest)),
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
