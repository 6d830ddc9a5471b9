"""Data-aware methods: how much each adapter counts, and where, comes from statistics of the data
it was trained on, saved beside it by `pemlang.collect_statistics`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pemlang.ops.merge import WEIGHTS, Kind, many, total_rank
from pemlang.ops.record import Operator, Param, Within

if TYPE_CHECKING:
    from pemlang.kernels.lowrank import Arrays
    from pemlang.kernels.methods import Found, Method, Request, Settings
    from pemlang.tensorfiles.dtypes import Array

RIDGE = 1e-9
"""Of the mean diagonal: directions that no input had are left as they are nearly nothing."""


class _Fisher:
    """See merging.Method. Each parameter by itself, on A and B or on the gain."""

    def merge(
        self, parts: Sequence[Arrays], weights: Sequence[float], s: Settings, ask: Request
    ) -> Found:
        """Σ wF·x / Σ wF, and the weighted mean where no adapter has any F."""
        import numpy as np

        fishers = s["statistics"]
        a = _weighed([part.a for part in parts], [f[0] for f in fishers], weights)
        if parts[0].b is None:
            return a, None, np.zeros(2)
        b = _weighed([part.out for part in parts], [f[1] for f in fishers], weights)
        return a, b, np.zeros(2)

    def room(self, rows: int, columns: int, ranks: int, ask: Request) -> int:
        """See Method."""
        return 8 * 8 * (rows + columns) * max(1, ask.rank)


def _weighed(xs: Sequence[Array], fishers: Sequence[Array], weights: Sequence[float]) -> Array:
    import numpy as np

    total = sum(w * f for w, f in zip(weights, fishers, strict=True))
    summed = sum(w * f * x for w, f, x in zip(weights, fishers, xs, strict=True))
    plain = sum(w * x for w, x in zip(weights, xs, strict=True)) / (sum(weights) or 1.0)
    return np.asarray(np.where(total > 0, summed / np.where(total > 0, total, 1), plain))


class _RegMean:
    """See merging.Method. It keeps the factors: only A changes, by one solve."""

    def merge(
        self, parts: Sequence[Arrays], weights: Sequence[float], s: Settings, ask: Request
    ) -> Found:
        """Σ wᵢ·sᵢ·Bᵢ·(Aᵢ·Gᵢ·M⁻¹) with M = Σ wᵢ·Gᵢ."""
        import numpy as np

        total, rows = np.zeros_like(s["statistics"][0][0]), []
        for part, (gram,), weight in zip(parts, s["statistics"], weights, strict=True):
            shrunk = _shrunk(gram, s["off_diagonal"]) * weight
            rows.append(part.a @ shrunk)
            total += shrunk
        mean = float(np.trace(total)) / len(total)
        total[np.diag_indices(len(total))] += RIDGE * mean if mean > 0 else 1.0
        a = np.linalg.solve(total, np.concatenate(rows).T).T
        b = np.concatenate([part.out * part.scale for part in parts], axis=1)
        return a, b, np.zeros(2)

    def room(self, rows: int, columns: int, ranks: int, ask: Request) -> int:
        """See Method."""
        return 8 * (4 * columns**2 + 4 * (rows + columns) * max(1, ranks))


def _shrunk(gram: Array, by: float) -> Array:
    """A Gram matrix with what is off its diagonal scaled."""
    import numpy as np

    return gram * by + np.diag(np.diagonal(gram) * (1 - by))


def _fisher() -> Method:
    return _Fisher()


def _regmean() -> Method:
    return _RegMean()


def _fisher_reference(xs: Sequence[Any], fishers: Sequence[Any], weights: Sequence[float]) -> Any:
    import numpy as np

    w = np.stack([a * f for a, f in zip(weights, fishers, strict=True)])
    even = np.stack([np.full(np.shape(x), a) for a, x in zip(weights, xs, strict=True)])
    w = np.where(w.sum(axis=0) > 0, w, even)
    return (w * np.stack(xs)).sum(axis=0) / w.sum(axis=0)


def _regmean_reference(
    xs: Sequence[Any], grams: Sequence[Any], weights: Sequence[float], off_diagonal: float
) -> Any:
    import numpy as np

    eye = np.eye(len(grams[0]))
    g = [w * (off_diagonal * x + (1 - off_diagonal) * eye * x)
         for w, x in zip(weights, grams, strict=True)]  # fmt: skip
    return sum(x @ m for x, m in zip(xs, g, strict=True)) @ np.linalg.inv(sum(g))


FISHER = Operator(
    name="fisher",
    signatures=(
        many(
            "fisher",
            Kind(
                _fisher,
                statistics=(("fisher_A", "fisher_B"), ("fisher_l",)),
                factors=True,
                divides=True,
            ),
            WEIGHTS,
        ),
    ),
    summary="The mean of parameters, each weighed by how much its adapter's loss depends on it: "
    "the diagonal of the Fisher information.",
    formula="θ = Σ wᵢ·Fᵢ∘θᵢ / Σ wᵢ·Fᵢ for A and for B, or for g",
    laws=("fisher([x]) = x", "fisher([x, x]) = x", "fisher([x, y]) = fisher([y, x])"),
    source="Matena and Raffel 2022, *Merging Models with Fisher-Weighted Averaging*",
    rank="the adapters', which need one rank and one scale",
    reference=_fisher_reference,
    acts_on="factors",
)

REGMEAN = Operator(
    name="regmean",
    signatures=(
        many(
            "regmean",
            Kind(_regmean, rank=total_rank, lora=True, statistics=(("gram",), ())),
            WEIGHTS,
            Param(
                "off_diagonal",
                ("number",),
                Fraction(9, 10),
                within=Within(Fraction(0), Fraction(1)),
            ),
        ),
    ),
    summary="The adapter whose outputs come nearest to those of each adapter on its own inputs.",
    formula="Δ = (Σ wᵢ·Δᵢ·Gᵢ)·(Σ wᵢ·Gᵢ)⁻¹, Gᵢ the mean of x·xᵀ over the inputs of the module, what "
    "is off its diagonal scaled by off_diagonal",
    laws=("regmean([x]) = x", "regmean([x, x]) = x", "regmean([x, y]) = regmean([y, x])"),
    source="Jin et al. 2023, *Dataless Knowledge Fusion by Merging Weights of Language Models*",
    rank="the sum of the adapters': only A changes",
    reference=_regmean_reference,
    acts_on="delta",
)

OPERATORS = (FISHER, REGMEAN)
