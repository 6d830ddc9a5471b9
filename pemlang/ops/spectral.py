"""Spectral methods: on the singular vectors of adapters, one matrix at a time. Of LoRAs nothing
larger than the factors is formed; the matrices of task vectors are decomposed whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.kernels.lowrank import Triangle, column_signs, triangle
from pemlang.kernels.methods import Factorised, Make, MergeSettings, OfTensors, Pairs, Reference
from pemlang.lazy import numpy as np
from pemlang.ops.lowrank import NEGLIGIBLE, TRIMMED, dense_svd, full_total, voted
from pemlang.ops.merge import (
    SCALE,
    SHARE,
    WEIGHTS,
    MergeMethod,
    RankRule,
    Settings,
    merge_operator,
)
from pemlang.ops.record import Parameter, Section, register
from pemlang.ops.signs import ELECT, elected
from pemlang.ops.sparse import kept_by_magnitude, summed

if TYPE_CHECKING:
    from pemlang.kernels.algebra import Algebra, Matrix
    from pemlang.kernels.step import Dense
    from pemlang.tensorfiles.dtypes import Array

LONG = 2
"""How many times as long as wide a matrix is that is not decomposed as it is."""

Decomposed = tuple["Matrix", "Matrix", "Matrix"]
"""U (m, k), Vᵀ (k, n) and σ (k,)."""


def _method(
    name: str,
    make: Make,
    whole: OfTensors,
    reference: Reference,
    rank: RankRule,
    rest: OfTensors | None = None,
    votes: bool = False,
) -> MergeMethod:
    kernel = Factorised(
        reference, make, votes=votes, whole=whole, rest=_mean if rest is None else rest
    )
    return MergeMethod(name, kernel, rank=rank, needs_matrices=True)


def _mean(xs: Sequence[Array], weights: Sequence[float], s: MergeSettings) -> Array:
    """Of tensors that are no matrices, as the papers' own code has it."""
    total = sum(weight * x for weight, x in zip(weights, xs, strict=True))
    return np.asarray(s["scale"] / len(xs) * total)


def _svd(b: Matrix, a: Matrix, algebra: Algebra) -> tuple[Matrix, Matrix, Matrix]:
    """U, Vᵀ and σ of b·a, those above rounding, from the factors; the largest entry of each column
    of U is positive."""
    left, right, u, values, vt = core_svd(b, a, algebra)
    u, vt = left.times(u), right.across(vt)
    signs = column_signs(u)
    u *= signs
    vt *= signs[:, None]
    return u, vt, values


def core_svd(
    b: Matrix, a: Matrix, algebra: Algebra
) -> tuple[Triangle, Triangle, Matrix, Matrix, Matrix]:
    """Bases of the columns of b and of the rows of a; and U, σ and Vᵀ of b·a in them, those above
    rounding."""
    left, right = triangle(b, algebra), triangle(a.T, algebra)
    u, values, vt = np.linalg.svd(left.r @ right.r.T, full_matrices=False)
    kept = values > NEGLIGIBLE * values.max(initial=0.0)
    return left, right, u[:, kept], values[kept], vt[kept]


def whole_svd(x: Matrix, algebra: Algebra) -> Decomposed:
    """U, Vᵀ and σ of a matrix, those above rounding; of a long one through its triangle, which is
    quicker and takes less memory."""
    rows, columns = x.shape
    if rows < columns:
        v, ut, values = whole_svd(x.T, algebra)
        return ut.T, v.T, values
    tall = triangle(x, algebra) if rows >= LONG * columns else None
    u, values, vt = np.linalg.svd(x if tall is None else tall.r, full_matrices=False)
    kept = int((values > NEGLIGIBLE * values.max(initial=0.0)).sum())
    u = u[:, :kept]
    return u if tall is None else tall.times(u), vt[:kept], values[:kept]


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
    a = voted(vs, weights, s)
    a *= np.sqrt(values[kept])[:, None]
    return a, b


def _knots_whole(xs: Sequence[Matrix], weights: Sequence[float], s: MergeSettings) -> Matrix:
    u, wt, values = whole_svd(np.concatenate(xs, axis=1), s.algebra)
    signs = column_signs(u)
    vs = np.split(signs[:, None] * wt, len(xs), axis=1)
    return np.asarray((u * (signs * values)) @ voted(vs, weights, s))


# --- singular vectors ----------------------------------------------------------------------


def _task_rank(count: int, full: int) -> int:
    return max(1, full // count)


def _tsv_rank(ranks: Sequence[int], full: int, settings: Settings) -> int:
    return sum(min(rank, _task_rank(len(ranks), full)) for rank in ranks)


def _tsv(pairs: Pairs, weights: Sequence[float], s: MergeSettings) -> tuple[Matrix, Matrix]:
    k = _task_rank(len(pairs), min(pairs[0][1].shape[0], pairs[0][0].shape[1]))
    return _put_together([_leading(_svd(b, a, s.algebra), k) for a, b in pairs], weights, s)


def _tsv_whole(xs: Sequence[Matrix], weights: Sequence[float], s: MergeSettings) -> Matrix:
    k = _task_rank(len(xs), min(xs[0].shape))
    a, b = _put_together([_leading(whole_svd(x, s.algebra), k) for x in xs], weights, s)
    return b @ a


def _leading(decomposed: Decomposed, k: int) -> Decomposed:
    """The k largest singular values with their vectors, and no memory of the others."""
    u, vt, values = decomposed
    return u[:, :k].copy(), vt[:k].copy(), values[:k]


def _put_together(
    parts: Sequence[Decomposed], weights: Sequence[float], s: MergeSettings
) -> tuple[Matrix, Matrix]:
    us = np.concatenate([u for u, _, _ in parts], axis=1)
    vts = np.concatenate([vt for _, vt, _ in parts])
    values = np.concatenate([w * x for w, (_, _, x) in zip(weights, parts, strict=True)])
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
    left, right, u, values, vt = core_svd(*_sum(pairs, weights), s.algebra)
    root = math.sqrt(values.mean()) if len(values) else 0.0
    a, b = right.across(root * vt), left.times(root * u)
    signs = column_signs(b)
    a *= signs[:, None]
    b *= signs * s["scale"]
    return a, b


def _iso_c_whole(xs: Sequence[Matrix], weights: Sequence[float], s: MergeSettings) -> Matrix:
    u, vt, values = whole_svd(_total(xs, weights), s.algebra)
    return s["scale"] * (values.mean() if len(values) else 0.0) * (u @ vt)


def _total(xs: Sequence[Matrix], weights: Sequence[float]) -> Matrix:
    total = np.zeros(xs[0].shape)
    for x, weight in zip(xs, weights, strict=True):
        total += weight * x
    return total


def _iso_cts(pairs: Pairs, weights: Sequence[float], s: MergeSettings) -> tuple[Matrix, Matrix]:
    def outside(index: int, basis: Matrix) -> Decomposed:
        a, b = pairs[index]
        return _svd(weights[index] * (b - basis @ (basis.T @ b)), a, s.algebra)

    return _even(_svd(*_sum(pairs, weights), s.algebra), outside, len(pairs), s)


def _iso_cts_whole(xs: Sequence[Matrix], weights: Sequence[float], s: MergeSettings) -> Matrix:
    def outside(index: int, basis: Matrix) -> Decomposed:
        x = xs[index]
        return whole_svd(weights[index] * (x - basis @ (basis.T @ x)), s.algebra)

    a, b = _even(whole_svd(_total(xs, weights), s.algebra), outside, len(xs), s)
    return b @ a


def _even(
    summed: Decomposed,
    outside: Callable[[int, Matrix], Decomposed],
    count: int,
    s: MergeSettings,
) -> tuple[Matrix, Matrix]:
    """A and B of `iso_cts`.

    Args:
        summed: of Σ wᵢ·Δᵢ.
        outside: what of an adapter, by its place, lies outside some columns.
        count: how many adapters there are.
        s: the settings.
    """
    whole = len(summed[2])
    each = round((whole - int(whole * s["common"])) / count)
    parts = [_leading(summed, max(0, whole - each * count))]
    del summed
    basis = parts[0][0]
    parts += [_leading(outside(index, basis), each) for index in range(count)]
    us, vts, sizes = zip(*parts, strict=True)
    spectrum = np.concatenate(sizes)
    mean = np.full(len(spectrum), spectrum.mean() if len(spectrum) else 0.0)
    a, b = _balanced(
        _polar(np.concatenate(us, axis=1), s.algebra),
        mean,
        _polar(np.concatenate(vts).T, s.algebra).T,
    )
    return a, b * s["scale"]


# --- references on dense tensors -----------------------------------------------------------


def _knots_reference(
    xs: Sequence[Dense],
    weights: Sequence[float],
    density: float,
    scale: float,
    elect: str,
    **_: object,
) -> Dense:
    if xs[0].ndim != 2:
        trimmed = [kept_by_magnitude(x, density) for x in xs]
        return elected(trimmed, weights, scale, elect, "count")
    u, values, vt = dense_svd(np.concatenate(xs, axis=1), xs[0].shape[0])
    signs = np.sign(u[np.abs(u).argmax(axis=0), np.arange(len(values))])
    parts = np.split(signs[:, None] * vt, len(xs), axis=1)
    trimmed = [kept_by_magnitude(part, density) for part in parts]
    return np.asarray((u * signs * values) @ elected(trimmed, weights, scale, elect, "count"))


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
    if xs[0].ndim != 2:
        return summed(xs, weights, scale) / len(xs)
    parts = [dense_svd(x, max(1, min(x.shape) // len(xs))) for x in xs]
    u = np.concatenate([u for u, _, _ in parts], axis=1)
    v = np.concatenate([vt.T for _, _, vt in parts], axis=1)
    values = np.concatenate([w * x for w, (_, x, _) in zip(weights, parts, strict=True)])
    return np.asarray(scale * (_orthogonal(u) * values) @ _orthogonal(v).T)


def _iso_c_reference(
    xs: Sequence[Dense], weights: Sequence[float], scale: float, **_: object
) -> Dense:
    if xs[0].ndim != 2:
        return summed(xs, weights, scale) / len(xs)
    total = np.asarray(sum(w * x for w, x in zip(weights, xs, strict=True)))
    u, values, vt = dense_svd(total, min(total.shape))
    return np.asarray(scale * values.mean() * u @ vt)


def _iso_cts_reference(
    xs: Sequence[Dense], weights: Sequence[float], common: float, scale: float, **_: object
) -> Dense:
    if xs[0].ndim != 2:
        return summed(xs, weights, scale) / len(xs)
    total = np.asarray(sum(w * x for w, x in zip(weights, xs, strict=True)))
    u, values, vt = dense_svd(total, min(total.shape))
    each = round((len(values) - int(len(values) * common)) / len(xs))
    k = max(0, len(values) - each * len(xs))
    space = u[:, :k]
    parts = [(space, values[:k], vt[:k])]
    for w, x in zip(weights, xs, strict=True):
        parts.append(dense_svd(w * (x - space @ space.T @ x), each))
    us = np.concatenate([u for u, _, _ in parts], axis=1)
    vs = np.concatenate([vt.T for _, _, vt in parts], axis=1)
    mean = np.concatenate([sizes for _, sizes, _ in parts]).mean()
    return np.asarray(scale * mean * _orthogonal(us) @ _orthogonal(vs).T)


KNOTS = merge_operator(
    _method("knots", _knots, _knots_whole, _knots_reference, full_total, voted, votes=True),
    *(WEIGHTS, TRIMMED, ELECT, SCALE),
    summary="Aligns adapters in a joint basis of singular vectors, and merges them there by TIES.",
    formula="[Δ₁ … Δₙ] = U·Σ·[V₁ … Vₙ]ᵀ, Δ = U·Σ·ties(V₁, …, Vₙ)ᵀ",
    laws=("knots([x]) = x", "knots([x, x]) = x"),
    source="Stoica et al. 2025, *Model Merging with SVD to Tie the KnOTS* (arXiv 2410.19735)",
    rank="the sum of the adapters', at most min(out, in)",
)

TSV = merge_operator(
    _method("tsv", _tsv, _tsv_whole, _tsv_reference, _tsv_rank),
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
    _method("iso_c", _iso_c, _iso_c_whole, _iso_c_reference, full_total),
    *(WEIGHTS, SCALE),
    summary="The sum of adapters with all its singular values made equal to their mean.",
    formula="Σ wᵢ·Δᵢ = U·diag(σ)·Vᵀ, Δ = λ·mean(σ)·U·Vᵀ, over the singular values that are not 0",
    laws=("iso_c([x, y]) = iso_c([y, x])", "iso_c([x, x]) = 2·iso_c([x]) on matrices"),
    source="Marczak et al. 2025, *No Task Left Behind: Isotropic Model Merging* (arXiv 2502.04959)",
    rank="the sum of the adapters', at most min(out, in)",
)

ISO_CTS = merge_operator(
    _method("iso_cts", _iso_cts, _iso_cts_whole, _iso_cts_reference, full_total),
    *(WEIGHTS, Parameter("common", ("number",), Fraction(8, 10), within=SHARE), SCALE),
    summary="`iso_c`, in which directions that each adapter has for itself take the place of the "
    "weakest common ones.",
    formula="the leading share `common` of U, V of the sum, and of each (1 − U·Uᵀ)·wᵢ·Δᵢ the "
    "leading vectors; made orthonormal, at the mean of their singular values",
    laws=("iso_cts([x, y], common=1) = iso_c([x, y])",),
    source="Marczak et al. 2025 (arXiv 2502.04959)",
    rank="the sum of the adapters', at most min(out, in)",
)

register(
    Section(
        "Spectral merges",
        "On singular vectors, one matrix at a time. Of LoRAs nothing larger than the factors is "
        "formed. Of task vectors each matrix is decomposed whole, in float64, and comes out whole; "
        "what is no matrix (vectors, kernels of convolutions, experts in one tensor) is merged by "
        "`ties` in `knots`, and is λ·Σ wᵢ·Δᵢ/n in the others, as in the papers' own code.",
        (KNOTS, TSV, ISO_C, ISO_CTS),
    )
)
