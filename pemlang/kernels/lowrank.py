"""Low-rank linear algebra on factors in float64; no dense Δ is ever formed.

Δ = s·B·A with B = Q_B·R_B and Aᵀ = Q_A·R_A has the singular values of the small core
C = s·R_B·R_Aᵀ, and its singular vectors through Q_B and Q_A.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pemlang.kernels.factors import Factors, finite

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Truncation:
    """What it cost to cut a site to a rank.

    lost and norm are Frobenius norms of what was cut off and of the whole Δ; by is how far the
    rank came down.
    """

    lost: float
    norm: float
    by: int


def matrices(part: Factors) -> tuple[Matrix, Matrix]:
    """B (out, r) carrying the scale, and A (r, in), flattened and in float64."""
    rank = part.a.shape[0]
    a = part.a.reshape(rank, -1).astype(np.float64)
    b = part.out.reshape(part.out.shape[0], rank).astype(np.float64)
    return b * part.scale, a


def core(part: Factors) -> Matrix:
    """The core s·R_B·R_Aᵀ: at most r×r, with the singular values and the norm of Δ."""
    b, a = matrices(part)
    r_b: Matrix = np.linalg.qr(b, mode="r")  # type: ignore[assignment]
    r_a: Matrix = np.linalg.qr(a.T, mode="r")  # type: ignore[assignment]
    return r_b @ r_a.T


def singular_values(part: Factors) -> Matrix:
    """The min(r, out, in) largest singular values of Δ, falling."""
    return np.asarray(np.linalg.svd(core(part), compute_uv=False), dtype=np.float64)


def numerical_rank(part: Factors) -> int:
    """How many singular values of Δ stand above rounding, σᵢ > σ₁·max(out, in)·ε, with ε that of
    the dtype the factors came in."""
    values = singular_values(part)
    size = max(part.out.shape[0], part.a[0].size)
    floor = values.max(initial=0.0) * size * float(np.finfo(part.a.dtype).eps)
    return int((values > floor).sum())


def norm(part: Factors) -> float:
    """‖Δ‖ (Frobenius); for (IA)³ ‖g‖."""
    if part.b is None:
        return float(np.linalg.norm(part.a.astype(np.float64)))
    return float(np.linalg.norm(core(part)))


def inner(one: Factors, other: Factors) -> float:
    """⟨Δ₁, Δ₂⟩, from the cores of both over common bases; for (IA)³ ⟨g₁, g₂⟩.

    Σ (B₁ᵀB₂) ∘ (A₁A₂ᵀ) is cheaper, and squares what is lost where the terms of a Δ cancel.
    """
    if one.b is None or other.b is None:
        return float(np.sum(one.a.astype(np.float64) * other.a))
    (b1, a1), (b2, a2) = matrices(one), matrices(other)
    r_b: Matrix = np.linalg.qr(np.hstack([b1, b2]), mode="r")  # type: ignore[assignment]
    r_a: Matrix = np.linalg.qr(np.hstack([a1.T, a2.T]), mode="r")  # type: ignore[assignment]
    cut = b1.shape[1]
    return float(np.sum((r_b[:, :cut] @ r_a[:, :cut].T) * (r_b[:, cut:] @ r_a[:, cut:].T)))


def overlap(one: Factors, other: Factors) -> float:
    """How alike two A row spaces are: ‖Q₁ᵀQ₂‖²/min(r₁, r₂), 1 for one inside the other."""
    bases = []
    for part in (one, other):
        _, a = matrices(part)
        q, r = np.linalg.qr(a.T)
        u, sizes, _ = np.linalg.svd(r)  # rows that depend on others add no direction
        bases.append(q @ u[:, sizes > 1e-10 * max(1e-300, float(sizes.max(initial=0.0)))])
    least = min(q.shape[1] for q in bases)
    if least == 0:
        return 0.0
    return float(np.sum((bases[0].T @ bases[1]) ** 2) / least)


def rank_for_energy(values: Matrix, energy: float) -> int:
    """The fewest singular values that keep a share of Σσ²; at least 1."""
    squares = values**2
    total = float(squares.sum())
    if total == 0:
        return 1
    kept = np.cumsum(squares) >= energy * total * (1 - 1e-12)
    return int(np.argmax(kept)) + 1 if kept.any() else len(values)


@finite()
def truncate(part: Factors, rank: int | None, energy: float | None) -> tuple[Factors, Truncation]:
    """The best approximation of Δ of a rank, or of the least rank that keeps an energy.

    Optimal in the Frobenius norm (Eckart and Young 1936). The factors share the singular values
    evenly, B' = U√Σ/s and A' = √ΣVᵀ; the sign of each pair makes the largest entry of the
    column of U positive, so that the result does not depend on the solver.
    """
    b, a = matrices(part)
    q_b, r_b = np.linalg.qr(b)
    q_a, r_a = np.linalg.qr(a.T)
    u, values, vt = np.linalg.svd(r_b @ r_a.T)
    if rank is None:
        assert energy is not None
        rank = rank_for_energy(values, energy)
    rank = min(rank, len(values))
    left, right = q_b @ u[:, :rank], vt[:rank] @ q_a.T
    signs = np.sign(left[np.argmax(np.abs(left), axis=0), np.arange(rank)])
    signs[signs == 0] = 1
    root = np.sqrt(values[:rank])
    new_b = left * (signs * root / part.scale if part.scale else 0.0 * root)
    new_a = right * (signs * root)[:, None]
    factors = Factors(
        new_a.reshape(rank, *part.a.shape[1:]),
        new_b.reshape(part.out.shape[0], rank, *part.out.shape[2:]),
        part.scale,
    )
    lost, whole = (float(np.linalg.norm(part)) for part in (values[rank:], values))
    return factors, Truncation(lost, whole, a.shape[0] - rank)
