"""Data-aware methods: how much each adapter counts, and where, comes from statistics of the data
it was trained on, saved beside it by `pemlang.collect_statistics`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.failures import Undefined
from pemlang.kernels.methods import MergeSettings, SiteKernel
from pemlang.kernels.sketch import best_factors
from pemlang.lazy import numpy as np
from pemlang.ops.merge import WEIGHTS, MergeMethod, merge_operator, total_rank
from pemlang.ops.record import Parameter, Section, Within, register

if TYPE_CHECKING:
    from pemlang.kernels.algebra import StoredTensor
    from pemlang.kernels.lowrank import LowRank
    from pemlang.kernels.sketch import Merged
    from pemlang.kernels.step import Dense
    from pemlang.tensorfiles.dtypes import Array

RIDGE = 1e-9
"""Of the mean diagonal: directions that no input had are left as they are nearly nothing."""


class Fisher(SiteKernel):
    """Each parameter by itself, on A and B or on the tensor: Σ wF·x / Σ wF, and the weighted mean
    where no adapter has any F."""

    def of_tensors(self, xs: Sequence[StoredTensor], s: MergeSettings) -> Array:
        """See SiteKernel."""
        return _weighed([x.whole() for x in xs], [f[0] for f in s.statistics], _counts(s))

    def of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """See SiteKernel."""
        a = _weighed([part.a for part in parts], [f[0] for f in s.statistics], _counts(s))
        b = _weighed([part.b for part in parts], [f[1] for f in s.statistics], _counts(s))
        return a, b, np.zeros(2)

    def workspace(self, rows: int, columns: int, ranks: int, s: MergeSettings) -> int:
        """See SiteKernel."""
        return 8 * 8 * (rows + columns) * max(1, s.rank)

    def meaning_of_tensors(self, xs: Sequence[Dense], s: MergeSettings) -> Dense:
        """See SiteKernel."""
        return self._meant(xs, 0, s)

    def meaning_of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """See SiteKernel."""
        a = self._meant([part.a for part in parts], 0, s)
        return a, self._meant([part.b for part in parts], 1, s), np.zeros(2)

    def _meant(self, xs: Sequence[Dense], part: int, s: MergeSettings) -> Dense:
        return np.asarray(self.reference(xs, [f[part] for f in s.statistics], s.weights))


def _counts(s: MergeSettings) -> Sequence[float]:
    """The weights; raises PEM0348 where one is less than zero, as those that are measured may be:
    a mean with such a weight has no bound."""
    if min(s.weights) < 0:
        raise Undefined(
            "PEM0348",
            "a weight is less than zero: it says how often an adapter counts",
            "give weights of at least zero",
        )
    return s.weights


def _weighed(xs: Sequence[Array], fishers: Sequence[Array], weights: Sequence[float]) -> Array:
    total = sum(w * f for w, f in zip(weights, fishers, strict=True))
    summed = sum(w * f * x for w, f, x in zip(weights, fishers, xs, strict=True))
    plain = sum(w * x for w, x in zip(weights, xs, strict=True)) / (sum(weights) or 1.0)
    return np.asarray(np.where(total > 0, summed / np.where(total > 0, total, 1), plain))


class RegMean(SiteKernel):
    """Σ wᵢ·sᵢ·Bᵢ·(Aᵢ·Gᵢ·M⁻¹) with M = Σ wᵢ·Gᵢ. It keeps the factors: only A changes, by one
    solve."""

    def of_tensors(self, xs: Sequence[StoredTensor], s: MergeSettings) -> Array:
        """See SiteKernel."""
        raise AssertionError("this method is for LoRA alone")

    def of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """See SiteKernel."""
        total, rows = np.zeros_like(s.statistics[0][0]), []
        for part, (gram,), weight in zip(parts, s.statistics, _counts(s), strict=True):
            shrunk = _shrunk(gram, s["off_diagonal"]) * weight
            rows.append(part.a @ shrunk)
            total += shrunk
        mean = float(np.trace(total)) / len(total)
        total[np.diag_indices(len(total))] += RIDGE * mean if mean > 0 else 1.0
        a = np.linalg.solve(total, np.concatenate(rows).T).T
        b = np.concatenate([part.b * part.scale for part in parts], axis=1)
        return a, b, np.zeros(2)

    def workspace(self, rows: int, columns: int, ranks: int, s: MergeSettings) -> int:
        """See SiteKernel."""
        return 8 * (4 * columns**2 + 4 * (rows + columns) * max(1, ranks))

    def meaning_of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """See SiteKernel."""
        deltas = [part.scale * part.b @ part.a for part in parts]
        grams = [gram for (gram,) in s.statistics]
        delta = self.reference(deltas, grams, s.weights, s["off_diagonal"])
        return best_factors(np.asarray(delta), s.rank)


def _shrunk(gram: Array, by: float) -> Array:
    """A Gram matrix with what is off its diagonal scaled."""
    shrunk: Array = gram * by + np.diag(np.diagonal(gram) * (1 - by))
    return shrunk


def _fisher_reference(
    xs: Sequence[Dense], fishers: Sequence[Dense], weights: Sequence[float]
) -> Dense:
    w = np.stack([a * f for a, f in zip(weights, fishers, strict=True)])
    even = np.stack([np.full(np.shape(x), a) for a, x in zip(weights, xs, strict=True)])
    w = np.where(w.sum(axis=0) > 0, w, even)
    return np.asarray((w * np.stack(xs)).sum(axis=0) / w.sum(axis=0))


def _regmean_reference(
    xs: Sequence[Dense], grams: Sequence[Dense], weights: Sequence[float], off_diagonal: float
) -> Dense:
    eye = np.eye(len(grams[0]))
    g = [w * (off_diagonal * x + (1 - off_diagonal) * eye * x)
         for w, x in zip(weights, grams, strict=True)]  # fmt: skip
    total = np.linalg.inv(np.sum(g, axis=0))
    return np.asarray(np.sum([x @ m for x, m in zip(xs, g, strict=True)], axis=0) @ total)


FISHER = merge_operator(
    MergeMethod(
        "fisher",
        Fisher(_fisher_reference),
        statistics="fisher",
        factors=True,
        divides=True,
        counts=True,
    ),
    WEIGHTS,
    summary="The mean of parameters, each weighed by how much its adapter's loss depends on it: "
    "the diagonal of the Fisher information.",
    formula="θ = Σ wᵢ·Fᵢ∘θᵢ / Σ wᵢ·Fᵢ for A and for B, or for g",
    laws=("fisher([x]) = x", "fisher([x, x]) = x", "fisher([x, y]) = fisher([y, x])"),
    source="Matena and Raffel 2022, *Merging Models with Fisher-Weighted Averaging*",
    rank="the adapters', which need one rank and one scale",
    acts_on="factors",
)

REGMEAN = merge_operator(
    MergeMethod(
        "regmean",
        RegMean(_regmean_reference),
        rank=total_rank,
        counts=True,
        needs_factors=True,
        statistics="gram",
    ),
    WEIGHTS,
    Parameter(
        "off_diagonal",
        ("number",),
        Fraction(9, 10),
        within=Within(Fraction(0), Fraction(1)),
    ),
    summary="The adapter whose outputs come nearest to those of each adapter on its own inputs.",
    formula="Δ = (Σ wᵢ·Δᵢ·Gᵢ)·(Σ wᵢ·Gᵢ)⁻¹, Gᵢ the mean of x·xᵀ over the inputs of the module, what "
    "is off its diagonal scaled by off_diagonal",
    laws=("regmean([x]) = x", "regmean([x, x]) = x", "regmean([x, y]) = regmean([y, x])"),
    source="Jin et al. 2023, *Dataless Knowledge Fusion by Merging Weights of Language Models*",
    rank="the sum of the adapters': only A changes",
)

register(
    Section(
        "Merges by data",
        "How much each adapter counts, and where, comes from statistics of its data, which "
        "`pemlang.collect_statistics(model, batches, directory)` writes beside it as "
        "statistics.safetensors. In a recipe that uses them they are part of the adapter's "
        "content, and of its hash.",
        (FISHER, REGMEAN),
    )
)
