"""Methods for low-rank adapters: in a basis that the adapters share, on their singular vectors, or
on their rank-one parts. Nothing larger than the factors is formed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.kernels.lowrank import Triangle, column_signs, triangle
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

WHOLE = Parameter("density", ("number",), Fraction(1), within=SHARE)
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


def _full_total(ranks: Sequence[int], full: int, settings: Settings) -> int:
    return min(full, sum(ranks))


def _svd(b: Matrix, a: Matrix, algebra: Algebra) -> tuple[Matrix, Matrix, Matrix]:
    """U, Vᵀ and σ of b·a, those above rounding, from the factors; the largest entry of each column
    of U is positive."""
    left, right, u, values, vt = _core_svd(b, a, algebra)
    u, vt = left.times(u), right.across(vt)
    signs = column_signs(u)
    u *= signs
    vt *= signs[:, None]
    return u, vt, values


def _core_svd(
    b: Matrix, a: Matrix, algebra: Algebra
) -> tuple[Triangle, Triangle, Matrix, Matrix, Matrix]:
    """Bases of the columns of b and of the rows of a; and U, σ and Vᵀ of b·a in them, those above
    rounding."""
    left, right = triangle(b, algebra), triangle(a.T, algebra)
    u, values, vt = np.linalg.svd(left.r @ right.r.T, full_matrices=False)
    kept = values > NEGLIGIBLE * values.max(initial=0.0)
    return left, right, u[:, kept], values[kept], vt[kept]


def _balanced(u: Matrix, values: Matrix, vt: Matrix) -> tuple[Matrix, Matrix]:
    """A and B of U·diag(σ)·Vᵀ, which share the size of σ."""
    root = np.sqrt(values)
    return root[:, None] * vt, u * root


def _polar(x: Matrix, algebra: Algebra) -> Matrix:
    """The nearest matrix to x with orthonormal columns, over the directions that x has."""
    tall = triangle(x, algebra)
    u, sizes, vt = np.linalg.svd(tall.r, full_matrices=False)
    kept = sizes > 1e-8 * max(1e-300, sizes.max(initial=0.0))
    return tall.times(u[:, kept] @ vt[kept])


def _voted(xs: Sequence[Matrix], weights: Sequence[float], s: MergeSettings) -> Array:
    """TIES of some small matrices."""
    return TIES_KERNEL.of_arrays(xs, weights, replace(s, words={**s.words, "normalize": "count"}))


# --- a shared basis ------------------------------------------------------------------------


def _knots(pairs: Pairs, weights: Sequence[float], s: MergeSettings) -> tuple[Matrix, Matrix]:
    left = triangle(np.concatenate([b for _, b in pairs], axis=1), s.algebra)
    rights = [triangle(a.T, s.algebra) for a, _ in pairs]
    cuts = np.cumsum([len(a) for a, _ in pairs])[:-1]
    blocks = np.split(left.r, cuts, axis=1)
    core = np.concatenate([x @ y.r.T for x, y in zip(blocks, rights, strict=True)], axis=1)
    u, values, wt = np.linalg.svd(core, full_matrices=False)
    kept = values > NEGLIGIBLE * values.max(initial=0.0)
    b = left.times(u[:, kept] * np.sqrt(values[kept]))
    signs = column_signs(b)
    b *= signs
    wt = signs[:, None] * wt[kept]
    sizes = np.cumsum([right.columns for right in rights])[:-1]
    vs = [y.across(w) for w, y in zip(np.split(wt, sizes, axis=1), rights, strict=True)]
    a = _voted(vs, weights, s)
    a *= np.sqrt(values[kept])[:, None]
    return a, b


def _core_merge(pairs: Pairs, weights: Sequence[float], s: MergeSettings) -> tuple[Matrix, Matrix]:
    left = _basis(np.concatenate([b for _, b in pairs], axis=1), s.algebra)
    right = _basis(np.concatenate([a for a, _ in pairs]).T, s.algebra)
    cores = [(left.T @ b) @ (a @ right) for a, b in pairs]
    core = _voted(cores, weights, s)
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


# --- singular vectors ----------------------------------------------------------------------


def _task_rank(count: int, full: int) -> int:
    return max(1, full // count)


def _tsv_rank(ranks: Sequence[int], full: int, settings: Settings) -> int:
    return sum(min(rank, _task_rank(len(ranks), full)) for rank in ranks)


def _tsv(pairs: Pairs, weights: Sequence[float], s: MergeSettings) -> tuple[Matrix, Matrix]:
    k = _task_rank(len(pairs), min(pairs[0][1].shape[0], pairs[0][0].shape[1]))
    parts = [_svd(b, a, s.algebra) for a, b in pairs]
    us = np.concatenate([u[:, :k] for u, _, _ in parts], axis=1)
    vts = np.concatenate([vt[:k] for _, vt, _ in parts])
    values = np.concatenate([w * x[:k] for w, (_, _, x) in zip(weights, parts, strict=True)])
    signs = np.where(values < 0, -1.0, 1.0)
    root = np.sqrt(np.abs(values))
    b, a = _polar(us, s.algebra), _polar(vts.T, s.algebra).T
    b *= signs * root * s["scale"]
    a *= root[:, None]
    return a, b


def _sum(pairs: Pairs, weights: Sequence[float]) -> tuple[Matrix, Matrix]:
    b = np.concatenate([b for _, b in pairs], axis=1)
    b *= np.repeat(weights, [len(a) for a, _ in pairs])
    return b, np.concatenate([a for a, _ in pairs])


def _iso_c(pairs: Pairs, weights: Sequence[float], s: MergeSettings) -> tuple[Matrix, Matrix]:
    left, right, u, values, vt = _core_svd(*_sum(pairs, weights), s.algebra)
    root = math.sqrt(values.mean()) if len(values) else 0.0
    a, b = right.across(root * vt), left.times(root * u)
    signs = column_signs(b)
    a *= signs[:, None]
    b *= signs * s["scale"]
    return a, b


def _iso_cts(pairs: Pairs, weights: Sequence[float], s: MergeSettings) -> tuple[Matrix, Matrix]:
    u, vt, values = _svd(*_sum(pairs, weights), s.algebra)
    each = round((len(values) - int(len(values) * s["common"])) / len(pairs))
    k = max(0, len(values) - each * len(pairs))
    us, vts, sizes = [u[:, :k]], [vt[:k]], [values[:k]]
    for weight, (a, b) in zip(weights, pairs, strict=True):
        rest = weight * (b - us[0] @ (us[0].T @ b))
        own_u, own_vt, own = _svd(rest, a, s.algebra)
        us, vts, sizes = [*us, own_u[:, :each]], [*vts, own_vt[:each]], [*sizes, own[:each]]
    spectrum = np.concatenate(sizes)
    mean = np.full(len(spectrum), spectrum.mean() if len(spectrum) else 0.0)
    a, b = _balanced(
        _polar(np.concatenate(us, axis=1), s.algebra),
        mean,
        _polar(np.concatenate(vts).T, s.algebra).T,
    )
    return a, b * s["scale"]


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


def _knots_reference(
    xs: Sequence[Dense],
    weights: Sequence[float],
    density: float,
    scale: float,
    elect: str,
    **_: object,
) -> Dense:
    u, values, vt = _dense_svd(np.concatenate(xs, axis=1), xs[0].shape[0])
    signs = np.sign(u[np.abs(u).argmax(axis=0), np.arange(len(values))])
    parts = np.split(signs[:, None] * vt, len(xs), axis=1)
    trimmed = [kept_by_magnitude(part, density) for part in parts]
    return np.asarray((u * signs * values) @ elected(trimmed, weights, scale, elect, "count"))


def _core_reference(
    xs: Pairs, weights: Sequence[float], density: float, scale: float, elect: str, **_: object
) -> Dense:
    """From pairs (A, s·B)."""
    b, a = np.concatenate([b for _, b in xs], axis=1), np.concatenate([a for a, _ in xs])
    left, right = (_dense_svd(x, x.shape[1])[0] for x in (b, a.T))
    left, right = (u * np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])
                   for u in (left, right))  # fmt: skip
    cores = [kept_by_magnitude(left.T @ b @ a @ right, density) for a, b in xs]
    return np.asarray(left @ elected(cores, weights, scale, elect, "count") @ right.T)


def _dense_svd(x: Dense, k: int) -> tuple[Dense, Dense, Dense]:
    u, values, vt = np.linalg.svd(x, full_matrices=False)
    k = min(k, int((values > NEGLIGIBLE * values[0]).sum()))
    return u[:, :k], values[:k], vt[:k]


def _orthogonal(x: Dense) -> Dense:
    """x·(xᵀx)^(−1/2), with the pseudo-inverse, from the eigenvectors of [0 x; xᵀ 0]: those of xᵀx
    would lose half of the digits."""
    rows, columns = x.shape
    whole = np.block([[np.zeros((rows, rows)), x], [x.T, np.zeros((columns, columns))]])
    sizes, v = np.linalg.eigh(whole)
    v = v[:, sizes > 1e-8 * sizes.max()]
    return np.asarray(2 * v[:rows] @ v[rows:].T)


def _tsv_reference(
    xs: Sequence[Dense], weights: Sequence[float], scale: float, **_: object
) -> Dense:
    parts = [_dense_svd(x, max(1, min(x.shape) // len(xs))) for x in xs]
    u = np.concatenate([u for u, _, _ in parts], axis=1)
    v = np.concatenate([vt.T for _, _, vt in parts], axis=1)
    values = np.concatenate([w * x for w, (_, x, _) in zip(weights, parts, strict=True)])
    return np.asarray(scale * (_orthogonal(u) * values) @ _orthogonal(v).T)


def _iso_c_reference(
    xs: Sequence[Dense], weights: Sequence[float], scale: float, **_: object
) -> Dense:
    total = np.asarray(sum(w * x for w, x in zip(weights, xs, strict=True)))
    u, values, vt = _dense_svd(total, min(total.shape))
    return np.asarray(scale * values.mean() * u @ vt)


def _iso_cts_reference(
    xs: Sequence[Dense], weights: Sequence[float], common: float, scale: float, **_: object
) -> Dense:
    total = np.asarray(sum(w * x for w, x in zip(weights, xs, strict=True)))
    u, values, vt = _dense_svd(total, min(total.shape))
    each = round((len(values) - int(len(values) * common)) / len(xs))
    k = max(0, len(values) - each * len(xs))
    space = u[:, :k]
    parts = [(space, values[:k], vt[:k])]
    for w, x in zip(weights, xs, strict=True):
        parts.append(_dense_svd(w * (x - space @ space.T @ x), each))
    us = np.concatenate([u for u, _, _ in parts], axis=1)
    vs = np.concatenate([vt.T for _, _, vt in parts], axis=1)
    mean = np.concatenate([sizes for _, sizes, _ in parts]).mean()
    return np.asarray(scale * mean * _orthogonal(us) @ _orthogonal(vs).T)


def _extract_reference(xs: Sequence[Dense], by: float, **_: object) -> Dense:
    rows = []
    for left, right in zip(*xs, strict=True):
        common = left / np.linalg.norm(left) + right / np.linalg.norm(right)
        common = common / np.linalg.norm(common)
        rows.append(left - by * (right - (right @ common) * common))
    return np.stack(rows)


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


KNOTS = merge_operator(
    _method("knots", _knots, _knots_reference, _full_total, votes=True),
    *(WEIGHTS, WHOLE, ELECT, SCALE),
    summary="Aligns adapters in a joint basis of singular vectors, and merges them there by TIES.",
    formula="[Δ₁ … Δₙ] = U·Σ·[V₁ … Vₙ]ᵀ, Δ = U·Σ·ties(V₁, …, Vₙ)ᵀ",
    laws=("knots([x]) = x", "knots([x, x]) = x"),
    source="Stoica et al. 2025, *Model Merging with SVD to Tie the KnOTS* (arXiv 2410.19735)",
    rank="the sum of the adapters', at most min(out, in)",
)

CORE_MERGE = merge_operator(
    _method("core_merge", _core_merge, _core_reference, _full_total, from_pairs=True),
    *(WEIGHTS, WHOLE, ELECT, SCALE),
    summary="Merges adapters by TIES in the small core that bases shared by their factors leave.",
    formula="U of [B₁ … Bₙ], V of [A₁; …; Aₙ]ᵀ, Δ = U·ties(UᵀΔ₁V, …, UᵀΔₙV)·Vᵀ",
    laws=("core_merge([x]) = x", "core_merge([x, x]) = x"),
    source="Panariello et al. 2025, *Accurate and Efficient Low-Rank Model Merging in Core Space* "
    "(arXiv 2509.17786)",
    rank="the sum of the adapters', at most min(out, in)",
    acts_on="factors",
)

TSV = merge_operator(
    _method("tsv", _tsv, _tsv_reference, _tsv_rank),
    *(WEIGHTS, SCALE),
    aliases=("tsv_m",),
    summary="Keeps the leading singular vectors of each adapter, makes those of different ones "
    "orthogonal to each other, and puts them together.",
    formula="Δ = λ·Û·diag(wᵢσᵢ)·V̂ᵀ, Û and V̂ the nearest to [U₁ … Uₙ] and [V₁ … Vₙ] with "
    "orthonormal columns, of each adapter at most min(out, in)/n",
    laws=("tsv([x]) = x", "tsv([x, y]) = tsv([y, x])"),
    source="Gargiulo et al. 2025, *Task Singular Vectors* (arXiv 2412.00081), TSV-Merge",
    rank="the sum of the adapters', of each at most min(out, in)/n",
)

ISO_C = merge_operator(
    _method("iso_c", _iso_c, _iso_c_reference, _full_total),
    *(WEIGHTS, SCALE),
    summary="The sum of adapters with all its singular values made equal to their mean.",
    formula="Σ wᵢ·Δᵢ = U·diag(σ)·Vᵀ, Δ = λ·mean(σ)·U·Vᵀ, over the singular values that are not 0",
    laws=("iso_c([x, y]) = iso_c([y, x])", "iso_c([x, x]) = 2·iso_c([x])"),
    source="Marczak et al. 2025, *No Task Left Behind: Isotropic Model Merging* (arXiv 2502.04959)",
    rank="the sum of the adapters', at most min(out, in)",
)

ISO_CTS = merge_operator(
    _method("iso_cts", _iso_cts, _iso_cts_reference, _full_total),
    *(WEIGHTS, Parameter("common", ("number",), Fraction(8, 10), within=SHARE), SCALE),
    summary="`iso_c`, in which directions that each adapter has for itself take the place of the "
    "weakest common ones.",
    formula="the leading share `common` of U, V of the sum, and of each (1 − U·Uᵀ)·wᵢ·Δᵢ the "
    "leading vectors; made orthonormal, at the mean of their singular values",
    laws=("iso_cts([x, y], common=1) = iso_c([x, y])",),
    source="Marczak et al. 2025 (arXiv 2502.04959)",
    rank="the sum of the adapters', at most min(out, in)",
)

EXTRACT_SUBTRACT = merge_operator(
    MergeMethod(
        "extract_subtract",
        Combination(_extract_reference, _extract_subtract, rowwise=True),
        rank=total_rank,
        needs_factors=True,
    ),
    Parameter("by", ("number",), Fraction(1)),
    pair=True,
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
        "For LoRA: in a basis that the adapters share, on their singular vectors, or on their "
        "rank-one parts. Nothing larger than the factors is formed.",
        (KNOTS, CORE_MERGE, TSV, ISO_C, ISO_CTS, EXTRACT_SUBTRACT, LORA_LEGO),
    )
)
