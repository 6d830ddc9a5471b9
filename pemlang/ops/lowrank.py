"""Methods on the factors of low-rank adapters: in a basis that they share, or on their rank-one
parts; and one by rows. Nothing larger than the factors is formed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.kernels.lowrank import column_signs, triangle
from pemlang.kernels.methods import (
    Combination,
    Factorised,
    Make,
    MergeSettings,
    Pairs,
    Reference,
)
from pemlang.kernels.philox import drawn
from pemlang.lazy import numpy as np
from pemlang.ops.merge import (
    PAIR,
    SCALE,
    SEED,
    SHARE,
    WEIGHTS,
    MergeMethod,
    RankRule,
    Settings,
    merge_operator,
    total_rank,
)
from pemlang.ops.record import Parameter, Section, Within, register
from pemlang.ops.signs import ELECT, TIES_KERNEL, elected
from pemlang.ops.sparse import kept_by_magnitude

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pemlang.kernels.algebra import Algebra, Matrix
    from pemlang.kernels.step import Dense
    from pemlang.tensorfiles.dtypes import Array

TRIMMED = Parameter("density", ("number",), Fraction(1), within=SHARE)
NEGLIGIBLE = 1e-10
"""Singular values below this share of the largest are rounding."""


def _method(
    name: str,
    make: Make,
    reference: Reference,
    rank: RankRule,
    from_pairs: bool = False,
    draws: bool = False,
    votes: bool = False,
) -> MergeMethod:
    kernel = Factorised(reference, make, from_pairs, draws, votes)
    return MergeMethod(name, kernel, rank=rank, needs_factors=True)


def full_total(ranks: Sequence[int], full: int, settings: Settings) -> int:
    """The rank of a sum, at most that of the whole matrix."""
    return min(full, sum(ranks))


def voted(xs: Sequence[Matrix], weights: Sequence[float], s: MergeSettings) -> Array:
    """TIES of some matrices, or vectors, that are in memory."""
    return TIES_KERNEL.of_arrays(xs, weights, replace(s, words={**s.words, "normalize": "count"}))


# --- a shared basis ------------------------------------------------------------------------


def _core_merge(pairs: Pairs, weights: Sequence[float], s: MergeSettings) -> tuple[Matrix, Matrix]:
    left = _basis(np.concatenate([b for _, b in pairs], axis=1), s.algebra)
    right = _basis(np.concatenate([a for a, _ in pairs]).T, s.algebra)
    cores = [(left.T @ b) @ (a @ right) for a, b in pairs]
    core = voted(cores, weights, s)
    if left.shape[1] <= right.shape[1]:
        return core @ right.T, left
    return right.T, left @ core


def _basis(x: Matrix, algebra: Algebra) -> Matrix:
    """The left singular vectors of x, those above rounding."""
    tall = triangle(x, algebra)
    u, values, _ = np.linalg.svd(tall.r, full_matrices=False)
    u = tall.times(u[:, values > NEGLIGIBLE * values.max(initial=0.0)])
    u *= column_signs(u)
    return u


# --- rows ----------------------------------------------------------------------------------


def _extract_subtract(gram: Matrix, weights: Sequence[float], s: MergeSettings) -> Matrix:
    """Row by row v₁ − by·(v₂ − ⟨v₂, c⟩c), c the direction of v₁/‖v₁‖ + v₂/‖v₂‖: numbers of v₁ and
    v₂ that three inner products decide."""
    norms = np.sqrt(np.maximum(np.einsum("oii->oi", gram), 0.0))
    each = np.where(norms > 0, 1 / np.where(norms > 0, norms, 1), 0.0)
    squared = np.einsum("oi,oij,oj->o", each, gram, each)
    inverse = np.where(squared > NEGLIGIBLE, 1 / np.where(squared > NEGLIGIBLE, squared, 1), 0.0)
    common = np.einsum("oj,oj->o", gram[:, 1], each) * inverse
    first = 1 + s["by"] * common * each[:, 0]
    second = s["by"] * (common * each[:, 1] - 1)
    return np.stack([first, second], axis=1)


# --- rank-one parts ------------------------------------------------------------------------


def _lego_rank(ranks: Sequence[int], full: int, settings: Settings) -> int:
    units = settings["units"]
    assert isinstance(units, Fraction)
    return min(int(units), sum(ranks))


def _lego(pairs: Pairs, weights: Sequence[float], s: MergeSettings) -> tuple[Matrix, Matrix]:
    units = np.concatenate([np.concatenate([a, b.T], axis=1) for a, b in pairs])
    labels = clusters(units, s.rank, int(s.seeds[0]))
    norms = np.linalg.norm(units, axis=1)
    centres = []
    for label in range(s.rank):
        members = labels == label
        centre = units[members].mean(axis=0)
        size = np.linalg.norm(centre)
        centres.append(centre * (norms[members].mean() / size if size else 0.0))
    rows, cut = np.stack(centres), pairs[0][0].shape[1]
    return rows[:, :cut], rows[:, cut:].T


def clusters(points: Matrix, count: int, seed: int) -> NDArray[np.intp]:
    """The number of the cluster of each point: k-means from the points that lie furthest apart,
    the first of them drawn, until nothing changes. No cluster is empty."""
    chosen = [int(drawn((seed, 0), 0, 8)[0]) % len(points)]
    while len(chosen) < count:
        apart = _squared_distances(points, points[chosen]).min(axis=1)
        apart[chosen] = -1
        chosen.append(int(np.argmax(apart)))
    labels = np.full(len(points), -1)
    centres = points[chosen]
    for _ in range(100):
        distance = _squared_distances(points, centres)
        new = distance.argmin(axis=1)
        for label in range(count):
            if not (new == label).any():  # equal points: take the one that suits its own least
                spare = np.bincount(new, minlength=count)[new] > 1
                new[int(np.argmax(np.where(spare, distance.min(axis=1), -1.0)))] = label
        if (new == labels).all():
            break
        labels = new
        centres = np.stack([points[labels == label].mean(axis=0) for label in range(count)])
    return labels


def _squared_distances(points: Matrix, centres: Matrix) -> Matrix:
    """‖p − c‖² for each point and centre, from ‖p‖² + ‖c‖² − 2⟨p, c⟩."""
    sizes = (points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    return np.asarray(np.maximum(0.0, sizes - 2 * points @ centres.T))


# --- references on dense tensors -----------------------------------------------------------


def _core_reference(
    xs: Pairs, weights: Sequence[float], density: float, scale: float, elect: str, **_: object
) -> Dense:
    """From pairs (A, s·B)."""
    b, a = np.concatenate([b for _, b in xs], axis=1), np.concatenate([a for a, _ in xs])
    left, right = (dense_svd(x, x.shape[1])[0] for x in (b, a.T))
    left, right = (u * np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])
                   for u in (left, right))  # fmt: skip
    cores = [kept_by_magnitude(left.T @ b @ a @ right, density) for a, b in xs]
    return np.asarray(left @ elected(cores, weights, scale, elect, "count") @ right.T)


def dense_svd(x: Dense, k: int) -> tuple[Dense, Dense, Dense]:
    """The k largest singular values of a float64 matrix, those above rounding, with their
    vectors: U (m, k), σ (k,) and Vᵀ (k, n)."""
    u, values, vt = np.linalg.svd(x, full_matrices=False)
    k = min(k, int((values > NEGLIGIBLE * values[0]).sum()))
    return u[:, :k], values[:k], vt[:k]


def _extract_reference(xs: Sequence[Dense], by: float, **_: object) -> Dense:
    rows, one_row = [], max(xs[0].shape) == xs[0].size
    lines = (x.reshape(1 if one_row else len(x), -1) for x in xs)
    for left, right in zip(*lines, strict=True):
        common = left / np.linalg.norm(left) + right / np.linalg.norm(right)
        common = common / np.linalg.norm(common)
        rows.append(left - by * (right - (right @ common) * common))
    return np.stack(rows).reshape(xs[0].shape)


def _lego_reference(xs: Pairs, units: float, draw: int, **_: object) -> Dense:
    """From pairs (A, s·B) in the order that the method takes them, and the first number drawn."""
    points = [np.concatenate([a[i], b[:, i]]) for a, b in xs for i in range(len(a))]
    centres = [points[draw % len(points)]]
    while len(centres) < min(int(units), len(points)):
        far = [min(float(np.sum((p - c) ** 2)) for c in centres) for p in points]
        centres.append(points[int(np.argmax(far))])
    for _round in range(100):
        groups: list[list[Dense]] = [[] for _ in centres]
        for p in points:
            groups[int(np.argmin([np.sum((p - c) ** 2) for c in centres]))].append(p)
        centres = [np.mean(group, axis=0) for group in groups]
    cut = xs[0][0].shape[1]
    total = np.zeros((len(points[0]) - cut, cut))
    for centre, group in zip(centres, groups, strict=True):
        unit = centre * np.mean([np.linalg.norm(p) for p in group]) / np.linalg.norm(centre)
        total = total + np.outer(unit[cut:], unit[:cut])
    return total


CORE_MERGE = merge_operator(
    _method("core_merge", _core_merge, _core_reference, full_total, from_pairs=True),
    *(WEIGHTS, TRIMMED, ELECT, SCALE),
    summary="Merges adapters by TIES in the small core that bases shared by their factors leave.",
    formula="U of [B₁ … Bₙ], V of [A₁; …; Aₙ]ᵀ, Δ = U·ties(UᵀΔ₁V, …, UᵀΔₙV)·Vᵀ",
    laws=("core_merge([x]) = x", "core_merge([x, x]) = x"),
    source="Panariello et al. 2025, *Accurate and Efficient Low-Rank Model Merging in Core Space* "
    "(arXiv 2509.17786)",
    rank="the sum of the adapters', at most min(out, in)",
    acts_on="factors",
)

EXTRACT_SUBTRACT = merge_operator(
    MergeMethod(
        "extract_subtract",
        Combination(_extract_reference, _extract_subtract, rowwise=True),
        rank=total_rank,
        needs_matrices=True,
    ),
    Parameter("by", ("number",), Fraction(1)),
    takes=PAIR,
    aliases=("ext_sub",),
    summary="Takes from the first adapter what the second has of its own, and leaves what the two "
    "have in common: unlearning that spares general skill.",
    formula="row by row Δ = v₁ − by·(v₂ − ⟨v₂, c⟩·c), c the direction of v₁/‖v₁‖ + v₂/‖v₂‖",
    laws=(
        "extract_subtract(x, y, by=0) = x",
        "extract_subtract(x, x, by=n) = x",
    ),
    source="Hu et al. 2024, *Separate the Wheat from the Chaff* (Ext-Sub, arXiv 2308.08090)",
    rank="the sum of the two, and no dense matrix: c lies in the span of the rows",
)

LORA_LEGO = merge_operator(
    _method("lora_lego", _lego, _lego_reference, _lego_rank, from_pairs=True, draws=True),
    *(Parameter("units", ("number",), within=Within(Fraction(1), whole=True)), SEED),
    summary="Takes adapters apart into their rank-one parts, clusters those, and puts an adapter "
    "together from the centres.",
    formula="units (aᵢ, s·bᵢ), k-means into `units` clusters; each centre at the mean norm of its "
    "members",
    laws=("lora_lego([x], units=2) = x of rank 2",),
    source="Zhao et al. 2024, *Merging LoRAs like Playing LEGO* (arXiv 2409.16167); without its "
    "reweighting of the output",
    rank="units, at most the sum of the adapters'",
    acts_on="factors",
)

register(
    Section(
        "Low-rank merges",
        "For LoRA: in a basis that the factors share, or on rank-one parts; `extract_subtract` "
        "goes by rows, and takes task vectors too. Nothing larger than the factors is formed.",
        (CORE_MERGE, EXTRACT_SUBTRACT, LORA_LEGO),
    )
)
