"""Methods that take from the adapters themselves how much of each counts: by the inputs that they
act on in common, or by the outputs. No data is read, and no weight is tuned."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.kernels.lowrank import triangle
from pemlang.kernels.methods import Factorised, MergeSettings, Pairs
from pemlang.lazy import numpy as np
from pemlang.ops.linear import ADAPTERS
from pemlang.ops.lowrank import dense_svd
from pemlang.ops.merge import MergeMethod, Settings, merge_operator, total_rank
from pemlang.ops.record import Parameter, Section, Within, register
from pemlang.ops.spectral import core_svd, whole_svd

if TYPE_CHECKING:
    from pemlang.kernels.algebra import Matrix
    from pemlang.kernels.step import Dense
    from pemlang.tensorfiles.dtypes import Array

FAINT = 1e-6
"""An adapter that does less in a direction than this share of what the merge does there counts as
if it did that much: its own size may be rounding."""

# --- by inputs -----------------------------------------------------------------------------


class Wudi(Factorised):
    """Σ Δᵢ·(Gᵢ + ρ/n)·(Σ Gᵢ + ρ)⁻¹: only A changes, by one solve in the rows that the adapters
    span."""

    def workspace(self, rows: int, columns: int, ranks: int, s: MergeSettings) -> int:
        """See SiteKernel."""
        count = len(s.weights)
        if ranks:
            return 8 * (6 * (rows + columns) * ranks + 8 * ranks * ranks)
        inner = min(columns, count * rows)
        return 8 * (5 * count * rows * columns + 4 * inner * inner)

    def flops(self, numbers: int, columns: int, least: int) -> int:
        """See SiteKernel."""
        return 8 * numbers * (least or max(1, columns))


def _wudi(pairs: Pairs, weights: Sequence[float], s: MergeSettings) -> tuple[Matrix, Matrix]:
    basis = triangle(np.concatenate([a for a, _ in pairs]).T, s.algebra)
    ends = np.cumsum([len(a) for a, _ in pairs])[:-1]
    inner = [part.T for part in np.split(basis.r, ends, axis=1)]
    deltas = [triangle(b, s.algebra).r @ a for a, (_, b) in zip(inner, pairs, strict=True)]
    pulls, total = _normal_equation(inner, deltas, s["ridge"])
    a = basis.across(np.linalg.solve(total, np.concatenate(pulls).T).T)
    return a, np.concatenate([b for _, b in pairs], axis=1)


def _wudi_whole(xs: Sequence[Matrix], weights: Sequence[float], s: MergeSettings) -> Matrix:
    rows, columns = xs[0].shape
    if len(xs) * rows < columns:
        a, b = _wudi([(x, np.eye(rows)) for x in xs], weights, s)
        return b @ a
    pulls, total = _normal_equation(xs, xs, s["ridge"])
    return np.linalg.solve(total, np.sum(pulls, axis=0).T).T


def _normal_equation(
    xs: Sequence[Matrix], deltas: Sequence[Matrix], ridge: float
) -> tuple[list[Matrix], Matrix]:
    """xᵢ·(Gᵢ + ρ/n) of each, (r, k), and Σ Gᵢ + ρ, (k, k), where Gᵢ = ΔᵢᵀΔᵢ/‖Δᵢ‖²."""
    total = ridge * np.eye(xs[0].shape[1])
    pulls = []
    for x, delta in zip(xs, deltas, strict=True):
        unit = delta / (np.linalg.norm(delta) or 1.0)
        gram = unit.T @ unit
        total += gram
        pulls.append(x @ gram + ridge / len(xs) * x)
    return pulls, total


def _wudi_reference(xs: Sequence[Dense], ridge: float, **_: object) -> Dense:
    mean = np.asarray(sum(xs)) / len(xs)
    if mean.ndim != 2:
        return mean
    grams = [x.T @ x / max(np.sum(x * x), 1e-300) for x in xs]
    pull = sum(x @ gram for x, gram in zip(xs, grams, strict=True)) + ridge * mean
    return np.asarray(pull @ np.linalg.inv(sum(grams) + ridge * np.eye(len(grams[0]))))


def _mean(xs: Sequence[Array], weights: Sequence[float], s: MergeSettings) -> Array:
    return np.asarray(sum(xs) / len(xs))


# --- by outputs ----------------------------------------------------------------------------


def _svc(pairs: Pairs, weights: Sequence[float], s: MergeSettings) -> tuple[Matrix, Matrix]:
    (a, b), *others = pairs
    left, right, u, values, vt = core_svd(b, a, s.algebra)
    u, vt = left.times(u), right.across(vt)
    shares, sizes = [], []
    for other_a, other_b in others:
        along = u.T @ other_b
        shares.append(values * np.einsum("kr,kr->k", along, vt @ other_a.T))
        sizes.append(np.square(along @ triangle(other_a.T, s.algebra).r.T).sum(axis=1))
    return a, u @ ((u.T @ b) / _inflation(shares, sizes, values, s["alpha"])[:, None])


def _svc_whole(xs: Sequence[Matrix], weights: Sequence[float], s: MergeSettings) -> Matrix:
    u, vt, values = whole_svd(xs[0], s.algebra)
    shares, sizes = [], []
    for x in xs[1:]:
        along = u.T @ x
        shares.append(values * np.einsum("kn,kn->k", along, vt))
        sizes.append(np.einsum("kn,kn->k", along, along))
    return (u * (values / _inflation(shares, sizes, values, s["alpha"]))) @ vt


def _inflation(
    shares: Sequence[Matrix], sizes: Sequence[Matrix], values: Matrix, alpha: float
) -> Matrix:
    """How much too large each singular value of a merge is, the mean of max(sᵢ, α).

    Args:
        shares: ⟨uᵀΔ, uᵀΔᵢ⟩ of each adapter, by singular value.
        sizes: ‖uᵀΔᵢ‖².
        values: σ.
        alpha: the least that an adapter counts for.
    """
    floor = FAINT**2 * np.square(values)
    counts = [share / np.maximum(size, floor) for share, size in zip(shares, sizes, strict=True)]
    return np.asarray(np.mean(np.maximum(counts, alpha), axis=0))


def _svc_reference(xs: Sequence[Dense], alpha: float, **_: object) -> Dense:
    merged, *others = xs
    if merged.ndim != 2:
        return merged
    total = np.zeros_like(merged)
    for u, value, v in zip(*_columns(merged), strict=True):
        counts = []
        for x in others:
            size = max(np.sum((u @ x) ** 2), FAINT**2 * value**2)
            counts.append(max(np.sum((u @ merged) * (u @ x)) / size, alpha))
        total += value / np.mean(counts) * np.outer(u, v)
    return total


def _columns(x: Dense) -> tuple[Dense, Dense, Dense]:
    u, values, vt = dense_svd(x, min(x.shape))
    return u.T, values, vt


def _unchanged(xs: Sequence[Array], weights: Sequence[float], s: MergeSettings) -> Array:
    return xs[0]


def _rank_of_first(ranks: Sequence[int], full: int, settings: Settings) -> int:
    return ranks[0]


WUDI = merge_operator(
    MergeMethod(
        "wudi",
        Wudi(_wudi_reference, _wudi, whole=_wudi_whole, rest=_mean),
        rank=total_rank,
        needs_matrices=True,
    ),
    Parameter(
        "ridge", ("number",), Fraction(1, 100), within=Within(Fraction(1, 10**9), Fraction(1))
    ),
    summary="On the inputs of each adapter what that adapter does there, as nearly as one can do "
    "it for all: of adapters that act on different inputs the sum, on the same inputs the mean.",
    formula="Δ = Σ Δᵢ·(Gᵢ + ρ/n)·(Σ Gᵢ + ρ)⁻¹, Gᵢ = ΔᵢᵀΔᵢ/‖Δᵢ‖²: the least of "
    "Σ ‖(Δ − Δᵢ)·Δᵢᵀ‖²/‖Δᵢ‖² + ρ·‖Δ − mean(Δᵢ)‖²",
    laws=("wudi([x]) = x", "wudi([x, x]) = x", "wudi([x, y]) = wudi([y, x])"),
    source="Cheng et al. 2025, *Whoever Started the Interference Should End It* (WUDI-Merging, "
    "arXiv 2503.08099), whose code descends from the sum by 300 steps of Adam; here by the normal "
    "equation of `regmean`, with Gᵢ in place of statistics. That the exact solution alone does "
    "worse than the steps: Wei et al. 2026 (arXiv 2606.07289); hence ρ",
    rank="the sum of the adapters': only A changes",
)

SVC = merge_operator(
    MergeMethod(
        "svc",
        Factorised(_svc_reference, _svc, whole=_svc_whole, rest=_unchanged),
        rank=_rank_of_first,
        needs_matrices=True,
    ),
    Parameter("alpha", ("number",), Fraction(1), within=Within(Fraction(0), open=True)),
    takes=(Parameter("x", ("adapter",)), ADAPTERS),
    summary="Singular-value calibration: a merge whose singular values are brought to what its "
    "adapters do in their directions, so that what several share does not count several times.",
    formula="Δx = Σ σ·u·vᵀ, Δ = Σ (σ/γ)·u·vᵀ, γ the mean of max(sᵢ, α), sᵢ = ⟨uᵀΔx, uᵀΔᵢ⟩/‖uᵀΔᵢ‖²",
    laws=(
        "svc(x, [x]) = x",
        "svc(x + x, [x, x]) = x",
        "svc(x + y, [x, y]) = svc(x + y, [y, x])",
        "svc(x / 2, [x, y], alpha=1/2) = svc(x, [x, y])",
    ),
    source="Li et al. 2026, *When Shared Knowledge Hurts: Spectral Over-Accumulation in Model "
    "Merging* (arXiv 2602.05536), whose code has α = 1 for sums and 1/n for means of n",
    rank="that of the merge",
)

register(
    Section(
        "Merges by overlap",
        "How much of each adapter counts comes from where the adapters overlap: no data is read "
        "and no weight is tuned. What is no matrix (vectors, kernels of convolutions, experts in "
        "one tensor) is the mean in `wudi`, and is left as it is by `svc`.",
        (WUDI, SVC),
    )
)
