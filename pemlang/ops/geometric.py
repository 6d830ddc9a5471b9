"""Geometric methods: linear combinations whose numbers come, at each site, from the angles between
the adapters. They need inner products alone, so the factors stay and no Δ is formed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

from pemlang.failures import Undefined
from pemlang.kernels.methods import (
    WHOLE_TENSOR,
    Coefficients,
    Combination,
    MergeSettings,
    Reference,
)
from pemlang.lazy import numpy as np
from pemlang.ops.merge import PAIR, WEIGHTS, MergeMethod, merge_operator, total_rank
from pemlang.ops.record import Parameter, Section, Within, register

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pemlang.kernels.algebra import Matrix
    from pemlang.kernels.step import Dense

STAYS = "the sum of the adapters'"
NEARLY_PARALLEL = 0.9995
"""The cosine from which on `slerp` goes straight, as in mergekit."""
ON_ONE_LINE = 1e-6
"""The sine up to which `nuslerp` goes straight: what an angle as small, or as near to half a turn,
says is rounding."""
OPPOSED = 1e-6
"""1 + (n − 1)·c below which adapters cancel each other out for `model_stock`, as in mergekit."""

ALONG = Parameter("along", ("word",), WHOLE_TENSOR, words=(WHOLE_TENSOR, "rows", "columns"))
ALONG_ROWS = Parameter("along", ("word",), WHOLE_TENSOR, words=(WHOLE_TENSOR, "rows"))


def _method(
    name: str, coefficients: Coefficients, reference: Reference, divides: bool = False
) -> MergeMethod:
    kernel = Combination(reference, coefficients)
    return MergeMethod(name, kernel, rank=total_rank, divides=divides)


def _shares(weights: Sequence[float] | Matrix) -> Matrix:
    """Weights over their sum; raises PEM0330 where it is zero: measured ones can sum to zero, and
    those of adapters that are not zero."""
    total = sum(weights)
    if total == 0:
        raise Undefined(
            "PEM0330",
            "the weights of the adapters that are not zero sum to zero",
            "give weights whose sum is not zero",
        )
    return np.asarray(np.array(weights) / total)


def _norms(gram: Matrix) -> Matrix:
    return np.sqrt(np.maximum(np.diagonal(gram, axis1=-2, axis2=-1), 0.0))


def _cosines(gram: Matrix) -> tuple[Matrix, Matrix]:
    """The cosines of all pairs, 0 with a zero adapter, and 1/‖Δᵢ‖, 0 for one. No size is taken for
    zero but zero: what an adapter does at a site may be small."""
    norms = _norms(gram)
    each = np.where(norms > 0, 1 / np.where(norms > 0, norms, 1), 0.0)
    return np.clip(gram * each[..., None, :] * each[..., None], -1, 1), each


def _slerp(gram: Matrix, weights: Sequence[float], s: MergeSettings) -> Matrix:
    cosine = _cosines(gram)[0][0, 1]
    return _arc(cosine, s["t"], np.abs(cosine) > NEARLY_PARALLEL)


def _arc(cosine: Matrix, t: float, straight: NDArray[np.bool_]) -> Matrix:
    """The numbers of two vectors at t on the arc between them, (…, 2), or on the straight line."""
    angle = np.arccos(np.where(straight, 0.0, cosine))
    first, second = (np.sin(share * angle) / np.sin(angle) for share in (1 - t, t))
    return np.stack([np.where(straight, 1 - t, first), np.where(straight, t, second)], axis=-1)


def _nuslerp(gram: Matrix, weights: Sequence[float], s: MergeSettings) -> Matrix:
    total = sum(weights)
    t = 0.5 if abs(total) < 1e-6 else weights[1] / total
    cosine = _cosines(gram)[0][..., 0, 1]
    return _arc(cosine, t, np.sqrt(1 - cosine**2) < ON_ONE_LINE)


def _multislerp(gram: Matrix, weights: Sequence[float], s: MergeSettings) -> Matrix:
    """Everything lies in the span of the adapters: vectors are their coordinates u over the units,
    and ⟨u, v⟩ is uᵀ·G·v with G the matrix of cosines."""
    if len(weights) == 1:
        return np.ones(1)
    norms, w = _norms(gram), _shares(weights)
    cosines, each = _cosines(gram)
    size = math.sqrt(max(0.0, float(w @ cosines @ w)))
    if size < 1e-8:  # they balance each other out: no direction is the mean
        return w
    mean = w / size
    tangent = w - float(w @ (cosines @ mean)) * mean
    length = max(1e-12, math.sqrt(max(0.0, float(tangent @ cosines @ tangent))))
    end = mean * math.cos(length) + tangent * math.sin(length) / length
    return np.asarray(end * float(norms @ w) * each)


def _karcher(gram: Matrix, weights: Sequence[float], s: MergeSettings) -> Matrix:
    """As for `multislerp`, in coordinates over the units."""
    norms, tolerance = _norms(gram), s["tolerance"]
    shares = _shares(weights)
    valid = norms > 0
    if len(weights) == 1 or not valid.any():
        return shares
    cosines, each = _cosines(gram)
    w = np.zeros(len(weights))
    w[valid] = _shares(shares[valid])

    def size(u: Matrix) -> float:
        return math.sqrt(max(0.0, float(u @ cosines @ u)))

    u = w / size(w) if size(w) >= tolerance else np.eye(len(w))[int(np.argmax(valid))]
    for _ in range(int(s["rounds"])):
        dots = np.clip(cosines @ u, -1, 1)
        angles = np.where(valid, np.arccos(dots), 0.0)
        far = angles >= tolerance
        pulls = np.where(far, w * angles / np.where(far, np.sin(angles), 1), 0.0)
        tangent = pulls - float(pulls @ dots) * u
        length = size(tangent)
        if length < tolerance:
            break
        u = math.cos(length) * u + math.sin(length) * tangent / length
        u = u / size(u)
    return np.asarray(float(shares @ norms) * u * each)


def _model_stock(gram: Matrix, weights: Sequence[float], s: MergeSettings) -> Matrix:
    count, cosines = len(weights), _cosines(gram)[0]
    first, second = np.triu_indices(count, 1)
    pairs = cosines[..., first, second]
    cosine = np.mean(pairs, axis=-1) if count > 1 else np.ones(gram.shape[:-2])
    divisor = 1 + (count - 1) * cosine
    opposed = divisor < OPPOSED
    if gram.ndim == 2 and opposed:
        raise Undefined(
            "PEM0504",
            "`model_stock` is not defined for adapters that point against each other",
            "their sum is all but zero: check their signs",
        )
    share = np.where(opposed, 0.0, cosine / np.where(opposed, 1.0, divisor))
    return np.repeat(share[..., None], count, axis=-1)


# --- references on dense tensors -----------------------------------------------------------


def _angle(x: Dense, y: Dense) -> float:
    cosine = float(np.sum(x * y) / (np.linalg.norm(x) * np.linalg.norm(y)))
    return math.acos(max(-1.0, min(1.0, cosine)))


def _by_line(whole: Callable[[Sequence[Dense]], Dense], xs: Sequence[Dense], along: str) -> Dense:
    """What is meant for whole tensors, on them or on each of their rows or columns."""
    if along == WHOLE_TENSOR or max(xs[0].shape) == xs[0].size:
        return whole(xs)
    rows = [x.reshape(len(x), -1) for x in xs]
    lines = rows if along == "rows" else [x.T for x in rows]
    merged = np.stack([whole(line) for line in zip(*lines, strict=True)])
    return (merged if along == "rows" else merged.T).reshape(xs[0].shape)


def _slerp_reference(xs: Sequence[Dense], t: float, **_: object) -> Dense:
    x, y = xs
    angle = _angle(x, y)
    if abs(math.cos(angle)) > NEARLY_PARALLEL:
        return (1 - t) * x + t * y
    return np.asarray((math.sin((1 - t) * angle) * x + math.sin(t * angle) * y) / math.sin(angle))


def _nuslerp_reference(
    xs: Sequence[Dense], weights: Sequence[float], along: str = WHOLE_TENSOR, **_: object
) -> Dense:
    return _by_line(partial(_nuslerp_of_two, weights=weights), xs, along)


def _nuslerp_of_two(xs: Sequence[Dense], weights: Sequence[float]) -> Dense:
    x, y = xs
    t, angle = weights[1] / sum(weights), _angle(x, y)
    if math.sin(angle) < 1e-6:
        return (1 - t) * x + t * y
    return np.asarray((math.sin((1 - t) * angle) * x + math.sin(t * angle) * y) / math.sin(angle))


def _weighted(xs: Sequence[Dense], weights: Sequence[float]) -> Dense:
    return np.asarray(sum(w * x for w, x in zip(weights, xs, strict=True)))


def _multislerp_reference(xs: Sequence[Dense], weights: Sequence[float], **_: object) -> Dense:
    w = [weight / sum(weights) for weight in weights]
    units = [x / np.linalg.norm(x) for x in xs]
    mean = _weighted(units, w)
    if len(xs) == 1 or np.linalg.norm(mean) < 1e-8:
        return _weighted(xs, w)
    mean = mean / np.linalg.norm(mean)
    tangent = _weighted([u - np.sum(u * mean) * mean for u in units], w)
    length = float(np.linalg.norm(tangent)) + 1e-30
    norm = sum(a * float(np.linalg.norm(x)) for a, x in zip(w, xs, strict=True))
    return norm * (mean * math.cos(length) + tangent * math.sin(length) / length)


def _karcher_reference(
    xs: Sequence[Dense],
    weights: Sequence[float],
    rounds: float = 10,
    tolerance: float = 1e-5,
    **_: object,
) -> Dense:
    w = [weight / sum(weights) for weight in weights]
    units = [x / np.linalg.norm(x) for x in xs]
    u = _weighted(units, w)
    u = u / np.linalg.norm(u) if np.linalg.norm(u) >= tolerance else units[0]
    for _round in range(int(rounds)):
        tangent = 0 * u
        for a, unit in zip(w, units, strict=True):
            dot = max(-1.0, min(1.0, float(np.sum(u * unit))))
            if math.acos(dot) >= tolerance:
                tangent = tangent + a * math.acos(dot) / math.sin(math.acos(dot)) * (unit - dot * u)
        length = float(np.linalg.norm(tangent))
        if length < tolerance:
            break
        u = math.cos(length) * u + math.sin(length) * tangent / length
        u = u / np.linalg.norm(u)
    return sum(a * float(np.linalg.norm(x)) for a, x in zip(w, xs, strict=True)) * u


def _model_stock_reference(xs: Sequence[Dense], along: str = WHOLE_TENSOR, **_: object) -> Dense:
    return _by_line(_stock, xs, along)


def _stock(xs: Sequence[Dense]) -> Dense:
    n = len(xs)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    cosine = sum(math.cos(_angle(xs[i], xs[j])) for i, j in pairs) / len(pairs) if pairs else 1.0
    return np.asarray(n * cosine / (1 + (n - 1) * cosine) * sum(xs) / n)


SLERP = merge_operator(
    _method("slerp", _slerp, _slerp_reference),
    Parameter("t", ("number", "schedule")),
    takes=PAIR,
    points=True,
    summary="From one adapter to another along the arc between them: the first at 0, the second "
    "at 1. Straight where they are nearly parallel.",
    formula="Δ = (sin((1 − t)θ)·Δx + sin(tθ)·Δy) / sin θ, θ the angle between Δx and Δy",
    laws=("slerp(x, y, t=0) = x", "slerp(x, y, t=1) = y", "slerp(x, x, t=n) = x"),
    source="Shoemake 1985; mergekit `slerp`, there on whole weights",
    rank=STAYS,
)

NUSLERP = merge_operator(
    _method("nuslerp", _nuslerp, _nuslerp_reference),
    Parameter("weights", ("[number]", "[schedule]")),
    ALONG,
    takes=PAIR,
    points=True,
    summary="slerp by two weights, straight only where the adapters are parallel; with along=rows "
    "or along=columns each row or column along an arc of its own.",
    formula="slerp at t = w₂ / (w₁ + w₂)",
    laws=(
        "nuslerp(x, y, weights=[1, 0]) = x",
        "nuslerp(x, y, weights=[0, 1]) = y",
        "nuslerp(x, x, weights=[m, n], along=rows) = x",
    ),
    source="mergekit `nuslerp`: nuslerp_flatten=false is along=rows, and nuslerp_row_wise=true, "
    "which takes what stands at one place of the last axis, along=columns",
    rank=STAYS,
)

MULTISLERP = merge_operator(
    _method("multislerp", _multislerp, _multislerp_reference, divides=True),
    WEIGHTS,
    points=True,
    summary="The weighted mean of adapters on a sphere, by one step in the space that touches it "
    "at their plain mean; the norm is the mean of theirs.",
    formula="m = Σ wᵢuᵢ / ‖·‖, τ = Σ wᵢ(uᵢ − ⟨uᵢ, m⟩m), "
    "Δ = Σ wᵢ‖Δᵢ‖ · (cos‖τ‖·m + sin‖τ‖·τ/‖τ‖), uᵢ = Δᵢ/‖Δᵢ‖",
    laws=("multislerp([x]) = x", "multislerp([x, y]) = multislerp([y, x])"),
    source="mergekit `multislerp`",
    rank=STAYS,
)

KARCHER = merge_operator(
    _method("karcher", _karcher, _karcher_reference, divides=True),
    WEIGHTS,
    Parameter(
        "rounds",
        ("number",),
        Fraction(10),
        within=Within(Fraction(1), Fraction(1000), whole=True),
    ),
    Parameter(
        "tolerance",
        ("number",),
        Fraction(1, 100_000),
        within=Within(Fraction(0), Fraction(1), open=True),
    ),
    aliases=("karcher_mean",),
    points=True,
    summary="The point on a sphere whose squared angles to the adapters have the least weighted "
    "sum; the norm is the mean of theirs.",
    formula="u ← exp_u(Σ wᵢ·log_u(uᵢ)) from the plain mean on, Δ = Σ wᵢ‖Δᵢ‖ · u",
    laws=("karcher([x]) = x", "karcher([x, x]) = x", "karcher([x, y]) = karcher([y, x])"),
    source="Karcher 1977; mergekit `karcher`, whose max_iter and tol are rounds and tolerance",
    rank=STAYS,
)

MODEL_STOCK = merge_operator(
    _method("model_stock", _model_stock, _model_stock_reference),
    ALONG_ROWS,
    summary="The mean of adapters, the shorter the less they agree; with along=rows each row by "
    "itself, and a row in which they cancel each other out is 0.",
    formula="Δ = t·Σ Δᵢ/n, t = n·c / (1 + (n − 1)·c), c the mean cosine between two of them",
    laws=(
        "model_stock([x]) = x",
        "model_stock([x, x]) = x",
        "model_stock([x, x], along=rows) = x",
    ),
    source="Jang et al. 2024, *Model Stock*; mergekit `model_stock`, whose filter_wise=true is "
    "along=rows; it takes products of norms below 1e-6 for 1e-6, and so rows that a fine-tune "
    "changed little for less alike than they are",
    rank=STAYS,
)

register(
    Section(
        "Geometric merges",
        "Weighted sums whose weights come from the angles between adapters, site by site. They "
        "need inner products of the factors alone, and stay as low-rank as a sum. A row is what "
        "makes one output of Δ = s·B·A, and of a tensor of a model what stands at one place of its "
        "first axis; a vector is one row, and one column.",
        (SLERP, NUSLERP, MULTISLERP, KARCHER, MODEL_STOCK),
    )
)
