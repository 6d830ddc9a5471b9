"""Methods for low-rank adapters: in a basis that the adapters share, on their singular vectors, or
on their rank-one parts. Nothing larger than the factors is formed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pemlang.ops.merge import (
    SCALE,
    SEED,
    SHARE,
    WEIGHTS,
    Kind,
    many,
    pair,
    total_rank,
)
from pemlang.ops.record import Operator, Param, Within
from pemlang.ops.signs import ELECT, agreed, elected
from pemlang.ops.sparse import MAGNITUDE, kept_by_magnitude

if TYPE_CHECKING:
    from pemlang.kernels.lowrank import Matrix
    from pemlang.kernels.methods import Method, Settings

Pairs = Sequence[tuple["Matrix", "Matrix"]]
"""A and s·B of each adapter at a site."""

WHOLE = Param("density", ("number",), Fraction(1), within=SHARE)
NEGLIGIBLE = 1e-10
"""Singular values below this share of the largest are rounding."""

Make = Callable[[Pairs, Sequence[float], "Settings", int], "tuple[Matrix, Matrix]"]


def _by(make: Make) -> Callable[[], Method]:
    def made() -> Method:
        from pemlang.kernels.methods import Factorised

        return Factorised(make)

    return made


def _full_total(found: Sequence[int], full: int, settings: Mapping[str, Any]) -> int:
    return min(full, sum(found))


def _qr(x: Matrix) -> tuple[Matrix, Matrix]:
    import numpy as np

    q, r = np.linalg.qr(x)
    return q, r


def _svd(b: Matrix, a: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """U, Vᵀ and σ of b·a, those above rounding, from the factors; the largest entry of each column
    of U is positive."""
    import numpy as np

    (left, r), (right, t) = _qr(b), _qr(a.T)
    u, values, vt = np.linalg.svd(r @ t.T, full_matrices=False)
    kept = values > NEGLIGIBLE * values.max(initial=0.0)
    u, vt = _signed(left @ u[:, kept], vt[kept] @ right.T)
    return u, vt, values[kept]


def _signed(u: Matrix, vt: Matrix) -> tuple[Matrix, Matrix]:
    import numpy as np

    if u.shape[1] == 0:
        return u, vt
    signs = np.where(u.max(axis=0) >= -u.min(axis=0), 1.0, -1.0)
    return u * signs, vt * signs[:, None]


def _balanced(u: Matrix, values: Matrix, vt: Matrix) -> tuple[Matrix, Matrix]:
    """A and B of U·diag(σ)·Vᵀ, which share the size of σ."""
    import numpy as np

    root = np.sqrt(values)
    return root[:, None] * vt, u * root


def _polar(x: Matrix) -> Matrix:
    """The nearest matrix to x with orthonormal columns, over the directions that x has."""
    import numpy as np

    u, sizes, vt = np.linalg.svd(x, full_matrices=False)
    kept = sizes > 1e-8 * max(1e-300, sizes.max(initial=0.0))
    return np.asarray(u[:, kept] @ vt[kept])


def _voted(xs: Sequence[Matrix], weights: Sequence[float], s: Settings) -> Any:
    """TIES of some small matrices."""
    from pemlang.kernels.fields import matrices_field

    field = matrices_field(xs, s["seeds"])
    trimmed = MAGNITUDE.rows(field, slice(0, field.rows), MAGNITUDE.known(field, s), s)
    return agreed(trimmed, weights, {**s, "normalize": "count"})


# --- a shared basis ------------------------------------------------------------------------


def _knots(pairs: Pairs, weights: Sequence[float], s: Settings, rank: int) -> Any:
    import numpy as np

    left, r = _qr(np.concatenate([b for _, b in pairs], axis=1))
    rights = [_qr(a.T) for a, _ in pairs]
    cuts = np.cumsum([len(a) for a, _ in pairs])[:-1]
    blocks = np.split(r, cuts, axis=1)
    core = np.concatenate([x @ t.T for x, (_, t) in zip(blocks, rights, strict=True)], axis=1)
    u, values, wt = np.linalg.svd(core, full_matrices=False)
    kept = values > NEGLIGIBLE * values.max(initial=0.0)
    u, wt = _signed(left @ u[:, kept], wt[kept])
    sizes = np.cumsum([q.shape[1] for q, _ in rights])[:-1]
    vs = [w @ q.T for w, (q, _) in zip(np.split(wt, sizes, axis=1), rights, strict=True)]
    return _balanced(u, values[kept], _voted(vs, weights, s))


def _core_merge(pairs: Pairs, weights: Sequence[float], s: Settings, rank: int) -> Any:
    import numpy as np

    left = _basis(np.concatenate([b for _, b in pairs], axis=1))
    right = _basis(np.concatenate([a for a, _ in pairs]).T)
    cores = [(left.T @ b) @ (a @ right) for a, b in pairs]
    core = _voted(cores, weights, s)
    if left.shape[1] <= right.shape[1]:
        return core @ right.T, left
    return right.T, left @ core


def _basis(x: Matrix) -> Matrix:
    """The left singular vectors of x, those above rounding."""
    import numpy as np

    u, values, _ = np.linalg.svd(x, full_matrices=False)
    u = u[:, values > NEGLIGIBLE * values.max(initial=0.0)]
    return _signed(u, u.T)[0]


# --- singular vectors ----------------------------------------------------------------------


def _task_rank(count: int, full: int) -> int:
    return max(1, full // count)


def _tsv_rank(found: Sequence[int], full: int, settings: Mapping[str, Any]) -> int:
    return sum(min(rank, _task_rank(len(found), full)) for rank in found)


def _tsv(pairs: Pairs, weights: Sequence[float], s: Settings, rank: int) -> Any:
    import numpy as np

    k = _task_rank(len(pairs), min(pairs[0][1].shape[0], pairs[0][0].shape[1]))
    found = [_svd(b, a) for a, b in pairs]
    us = np.concatenate([u[:, :k] for u, _, _ in found], axis=1)
    vts = np.concatenate([vt[:k] for _, vt, _ in found])
    values = np.concatenate([w * x[:k] for w, (_, _, x) in zip(weights, found, strict=True)])
    signs = np.where(values < 0, -1.0, 1.0)
    a, b = _balanced(_polar(us) * signs, np.abs(values), _polar(vts.T).T)
    return a, b * s["scale"]


def _sum(pairs: Pairs, weights: Sequence[float]) -> tuple[Matrix, Matrix]:
    import numpy as np

    b = np.concatenate([w * b for w, (_, b) in zip(weights, pairs, strict=True)], axis=1)
    return b, np.concatenate([a for a, _ in pairs])


def _iso_c(pairs: Pairs, weights: Sequence[float], s: Settings, rank: int) -> Any:
    import numpy as np

    u, vt, values = _svd(*_sum(pairs, weights))
    a, b = _balanced(u, np.full(len(values), values.mean() if len(values) else 0.0), vt)
    return a, b * s["scale"]


def _iso_cts(pairs: Pairs, weights: Sequence[float], s: Settings, rank: int) -> Any:
    import numpy as np

    u, vt, values = _svd(*_sum(pairs, weights))
    each = round((len(values) - int(len(values) * s["common"])) / len(pairs))
    k = max(0, len(values) - each * len(pairs))
    us, vts, sizes = [u[:, :k]], [vt[:k]], [values[:k]]
    for weight, (a, b) in zip(weights, pairs, strict=True):
        rest = weight * (b - us[0] @ (us[0].T @ b))
        own_u, own_vt, own = _svd(rest, a)
        us, vts, sizes = [*us, own_u[:, :each]], [*vts, own_vt[:each]], [*sizes, own[:each]]
    spectrum = np.concatenate(sizes)
    mean = np.full(len(spectrum), spectrum.mean() if len(spectrum) else 0.0)
    a, b = _balanced(_polar(np.concatenate(us, axis=1)), mean, _polar(np.concatenate(vts).T).T)
    return a, b * s["scale"]


# --- rows ----------------------------------------------------------------------------------


def _extract_subtract(gram: Matrix, weights: Sequence[float], s: Settings) -> Any:
    """Row by row v₁ − by·(v₂ − ⟨v₂, c⟩c), c the direction of v₁/‖v₁‖ + v₂/‖v₂‖: numbers of v₁ and
    v₂ that three inner products decide."""
    import numpy as np

    norms = np.sqrt(np.maximum(np.einsum("oii->oi", gram), 0.0))
    each = np.where(norms > 0, 1 / np.where(norms > 0, norms, 1), 0.0)
    squared = np.einsum("oi,oij,oj->o", each, gram, each)
    found = np.where(squared > NEGLIGIBLE, 1 / np.where(squared > NEGLIGIBLE, squared, 1), 0.0)
    common = np.einsum("oj,oj->o", gram[:, 1], each) * found
    one = 1 + s["by"] * common * each[:, 0]
    other = s["by"] * (common * each[:, 1] - 1)
    return np.stack([one, other], axis=1)


def _rows() -> Method:
    from pemlang.kernels.methods import Combination

    return Combination(_extract_subtract, rowwise=True)


# --- rank-one parts ------------------------------------------------------------------------


def _lego_rank(found: Sequence[int], full: int, settings: Mapping[str, Any]) -> int:
    return min(int(settings["units"]), sum(found))


def _lego(pairs: Pairs, weights: Sequence[float], s: Settings, rank: int) -> Any:
    import numpy as np

    units = np.concatenate([np.concatenate([a, b.T], axis=1) for a, b in pairs])
    labels = clusters(units, rank, int(s["seeds"][0]))
    norms = np.linalg.norm(units, axis=1)
    found = []
    for label in range(rank):
        members = labels == label
        centre = units[members].mean(axis=0)
        size = np.linalg.norm(centre)
        found.append(centre * (norms[members].mean() / size if size else 0.0))
    rows, cut = np.stack(found), pairs[0][0].shape[1]
    return rows[:, :cut], rows[:, cut:].T


def clusters(points: Matrix, count: int, seed: int) -> Any:
    """The number of the cluster of each point: k-means from the points that lie furthest apart,
    the first of them drawn, until nothing changes. No cluster is empty."""
    import numpy as np

    from pemlang.kernels.fields import drawn

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
    import numpy as np

    sizes = (points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    return np.asarray(np.maximum(0.0, sizes - 2 * points @ centres.T))


# --- references on dense tensors -----------------------------------------------------------


def _knots_reference(
    xs: Sequence[Any], weights: Sequence[float], density: float, scale: float, elect: str, **_: Any
) -> Any:
    import numpy as np

    u, values, vt = _dense_svd(np.concatenate(xs, axis=1), xs[0].shape[0])
    signs = np.sign(u[np.abs(u).argmax(axis=0), np.arange(len(values))])
    parts = np.split(signs[:, None] * vt, len(xs), axis=1)
    trimmed = [kept_by_magnitude(part, density) for part in parts]
    return (u * signs * values) @ elected(trimmed, weights, scale, elect, "count")


def _core_reference(
    xs: Sequence[Any], weights: Sequence[float], density: float, scale: float, elect: str, **_: Any
) -> Any:
    """From pairs (A, s·B)."""
    import numpy as np

    b, a = np.concatenate([b for _, b in xs], axis=1), np.concatenate([a for a, _ in xs])
    left, right = (_dense_svd(x, x.shape[1])[0] for x in (b, a.T))
    left, right = (u * np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])
                   for u in (left, right))  # fmt: skip
    cores = [kept_by_magnitude(left.T @ b @ a @ right, density) for a, b in xs]
    return left @ elected(cores, weights, scale, elect, "count") @ right.T


def _dense_svd(x: Any, k: int) -> tuple[Any, Any, Any]:
    import numpy as np

    u, values, vt = np.linalg.svd(x, full_matrices=False)
    k = min(k, int((values > NEGLIGIBLE * values[0]).sum()))
    return u[:, :k], values[:k], vt[:k]


def _orthogonal(x: Any) -> Any:
    """x·(xᵀx)^(−1/2), with the pseudo-inverse."""
    import numpy as np

    sizes, v = np.linalg.eigh(x.T @ x)
    return x @ (v * np.where(sizes > 1e-14 * sizes.max(), abs(sizes) ** -0.5, 0)) @ v.T


def _tsv_reference(xs: Sequence[Any], weights: Sequence[float], scale: float, **_: Any) -> Any:
    import numpy as np

    found = [_dense_svd(x, max(1, min(x.shape) // len(xs))) for x in xs]
    u, v = (np.concatenate(p, axis=1) for p in zip(*((u, vt.T) for u, _, vt in found), strict=True))
    values = np.concatenate([w * x for w, (_, x, _) in zip(weights, found, strict=True)])
    return scale * (_orthogonal(u) * values) @ _orthogonal(v).T


def _iso_c_reference(xs: Sequence[Any], weights: Sequence[float], scale: float, **_: Any) -> Any:
    total = sum(w * x for w, x in zip(weights, xs, strict=True))
    u, values, vt = _dense_svd(total, min(total.shape))
    return scale * values.mean() * u @ vt


def _iso_cts_reference(
    xs: Sequence[Any], weights: Sequence[float], common: float, scale: float, **_: Any
) -> Any:
    import numpy as np

    total = sum(w * x for w, x in zip(weights, xs, strict=True))
    u, values, vt = _dense_svd(total, min(total.shape))
    each = round((len(values) - int(len(values) * common)) / len(xs))
    k = max(0, len(values) - each * len(xs))
    space = u[:, :k]
    found = [(space, values[:k], vt[:k])]
    for w, x in zip(weights, xs, strict=True):
        found.append(_dense_svd(w * (x - space @ space.T @ x), each))
    us, vs = (np.concatenate(p, axis=1) for p in zip(*((a, c.T) for a, _, c in found), strict=True))
    mean = np.concatenate([b for _, b, _ in found]).mean()
    return scale * mean * _orthogonal(us) @ _orthogonal(vs).T


def _extract_reference(x: Any, y: Any, by: float, **_: Any) -> Any:
    import numpy as np

    found = []
    for one, two in zip(x, y, strict=True):
        common = one / np.linalg.norm(one) + two / np.linalg.norm(two)
        common = common / np.linalg.norm(common)
        found.append(one - by * (two - (two @ common) * common))
    return np.stack(found)


def _of(name: str, make: Make, rank: Any, *params: Param) -> Any:
    return many(name, Kind(_by(make), rank=rank, lora=True), *params)


def _lego_reference(xs: Sequence[Any], units: float, draw: int, **_: Any) -> Any:
    """From pairs (A, s·B) in the order that the method takes them, and the first number drawn."""
    import numpy as np

    points = [np.concatenate([a[i], b[:, i]]) for a, b in xs for i in range(len(a))]
    centres = [points[draw % len(points)]]
    while len(centres) < min(int(units), len(points)):
        far = [min(float(np.sum((p - c) ** 2)) for c in centres) for p in points]
        centres.append(points[int(np.argmax(far))])
    for _i in range(100):
        groups: list[list[Any]] = [[] for _ in centres]
        for p in points:
            groups[int(np.argmin([np.sum((p - c) ** 2) for c in centres]))].append(p)
        centres = [np.mean(group, axis=0) for group in groups]
    cut = xs[0][0].shape[1]
    total = np.zeros((len(points[0]) - cut, cut))
    for centre, group in zip(centres, groups, strict=True):
        unit = centre * np.mean([np.linalg.norm(p) for p in group]) / np.linalg.norm(centre)
        total = total + np.outer(unit[cut:], unit[:cut])
    return total


KNOTS = Operator(
    name="knots",
    signatures=(_of("knots", _knots, _full_total, WEIGHTS, WHOLE, ELECT, SCALE),),
    summary="Aligns adapters in a joint basis of singular vectors, and merges them there by TIES.",
    formula="[Δ₁ … Δₙ] = U·Σ·[V₁ … Vₙ]ᵀ, Δ = U·Σ·ties(V₁, …, Vₙ)ᵀ",
    laws=("knots([x]) = x", "knots([x, x]) = x"),
    source="Stoica et al. 2025, *Model Merging with SVD to Tie the KnOTS* (arXiv 2410.19735)",
    rank="the sum of the adapters', at most min(out, in)",
    reference=_knots_reference,
    acts_on="delta",
)

CORE_MERGE = Operator(
    name="core_merge",
    signatures=(_of("core_merge", _core_merge, _full_total, WEIGHTS, WHOLE, ELECT, SCALE),),
    summary="Merges adapters by TIES in the small core that bases shared by their factors leave.",
    formula="U of [B₁ … Bₙ], V of [A₁; …; Aₙ]ᵀ, Δ = U·ties(UᵀΔ₁V, …, UᵀΔₙV)·Vᵀ",
    laws=("core_merge([x]) = x", "core_merge([x, x]) = x"),
    source="Panariello et al. 2025, *Accurate and Efficient Low-Rank Model Merging in Core Space* "
    "(arXiv 2509.17786)",
    rank="the sum of the adapters', at most min(out, in)",
    reference=_core_reference,
    acts_on="factors",
)

TSV = Operator(
    name="tsv",
    aliases=("tsv_m",),
    signatures=(_of("tsv", _tsv, _tsv_rank, WEIGHTS, SCALE),),
    summary="Keeps the leading singular vectors of each adapter, makes those of different ones "
    "orthogonal to each other, and puts them together.",
    formula="Δ = λ·Û·diag(wᵢσᵢ)·V̂ᵀ, Û and V̂ the nearest to [U₁ … Uₙ] and [V₁ … Vₙ] with "
    "orthonormal columns, of each adapter at most min(out, in)/n",
    laws=("tsv([x]) = x", "tsv([x, y]) = tsv([y, x])"),
    source="Gargiulo et al. 2025, *Task Singular Vectors* (arXiv 2412.00081), TSV-Merge",
    rank="the sum of the adapters', of each at most min(out, in)/n",
    reference=_tsv_reference,
    acts_on="delta",
)

ISO_C = Operator(
    name="iso_c",
    signatures=(_of("iso_c", _iso_c, _full_total, WEIGHTS, SCALE),),
    summary="The sum of adapters with all its singular values made equal to their mean.",
    formula="Σ wᵢ·Δᵢ = U·diag(σ)·Vᵀ, Δ = λ·mean(σ)·U·Vᵀ, over the singular values that are not 0",
    laws=("iso_c([x, y]) = iso_c([y, x])", "iso_c([x, x]) = 2·iso_c([x])"),
    source="Marczak et al. 2025, *No Task Left Behind: Isotropic Model Merging* (arXiv 2502.04959)",
    rank="the sum of the adapters', at most min(out, in)",
    reference=_iso_c_reference,
    acts_on="delta",
)

ISO_CTS = Operator(
    name="iso_cts",
    signatures=(
        _of(
            "iso_cts",
            _iso_cts,
            _full_total,
            WEIGHTS,
            Param("common", ("number",), Fraction(8, 10), within=SHARE),
            SCALE,
        ),
    ),
    summary="`iso_c`, in which directions that each adapter has for itself take the place of the "
    "weakest common ones.",
    formula="the leading share `common` of U, V of the sum, and of each (1 − U·Uᵀ)·wᵢ·Δᵢ the "
    "leading vectors; made orthonormal, at the mean of their singular values",
    laws=("iso_cts([x, y], common=1) = iso_c([x, y])",),
    source="Marczak et al. 2025 (arXiv 2502.04959)",
    rank="the sum of the adapters', at most min(out, in)",
    reference=_iso_cts_reference,
    acts_on="delta",
)

EXTRACT_SUBTRACT = Operator(
    name="extract_subtract",
    aliases=("ext_sub",),
    signatures=(
        pair(
            "extract_subtract",
            Kind(_rows, rank=total_rank, lora=True),
            Param("by", ("number",), Fraction(1)),
        ),
    ),
    summary="Takes from the first adapter what the second has of its own, and leaves what the two "
    "have in common: unlearning that spares general skill.",
    formula="row by row Δ = v₁ − by·(v₂ − ⟨v₂, c⟩·c), c the direction of v₁/‖v₁‖ + v₂/‖v₂‖",
    laws=(
        "extract_subtract(x, y, by=0) = x",
        "extract_subtract(x, x, by=n) = x",
    ),
    source="Hu et al. 2024, *Separate the Wheat from the Chaff* (Ext-Sub, arXiv 2308.08090)",
    rank="the sum of the two, and no dense matrix: c lies in the span of the rows",
    reference=_extract_reference,
    acts_on="delta",
)

LORA_LEGO = Operator(
    name="lora_lego",
    signatures=(
        _of(
            "lora_lego",
            _lego,
            _lego_rank,
            Param("units", ("number",), within=Within(Fraction(1), whole=True)),
            SEED,
        ),
    ),
    summary="Takes adapters apart into their rank-one parts, clusters those, and puts an adapter "
    "together from the centres.",
    formula="units (aᵢ, s·bᵢ), k-means into `units` clusters; each centre at the mean norm of its "
    "members",
    laws=("lora_lego([x], units=2) = x of rank 2",),
    source="Zhao et al. 2024, *Merging LoRAs like Playing LEGO* (arXiv 2409.16167); without its "
    "reweighting of the output",
    rank="units, at most the sum of the adapters'",
    reference=_lego_reference,
    acts_on="factors",
)

OPERATORS = (KNOTS, CORE_MERGE, TSV, ISO_C, ISO_CTS, EXTRACT_SUBTRACT, LORA_LEGO)
