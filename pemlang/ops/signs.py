"""Sign-aware methods: entry by entry the adapters agree on a sign, and those of the other sign are
left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pemlang.dataclass import dataclass
from pemlang.kernels.fields import kth_largest
from pemlang.kernels.methods import Elementwise, MergeSettings, Reference
from pemlang.lazy import numpy as np
from pemlang.ops.merge import (
    DENSITY,
    OVER,
    RANK,
    SCALE,
    SEED,
    SHARE,
    WEIGHTS,
    MergeMethod,
    merge_operator,
)
from pemlang.ops.record import Parameter, Section, Within, register
from pemlang.ops.sparse import (
    BAND,
    CHANCE,
    EPSILON,
    FILLS,
    GAMMA,
    LIKELIER,
    MAGNITUDE,
    NOTHING,
    RESCALE,
    Pruning,
    kept,
    kept_by_chance,
    kept_by_magnitude,
    kept_in_band,
    likelihood,
)

if TYPE_CHECKING:
    from pemlang.kernels.fields import Field
    from pemlang.kernels.step import Dense
    from pemlang.tensorfiles.dtypes import Array

ELECT = Parameter("elect", ("word",), "total", words=("total", "frequency"))
NORMALIZE = Parameter("normalize", ("word",), "count", words=("count", "weights", "off"))


def agreed(xs: Sequence[Array], weights: Sequence[float], s: MergeSettings) -> Array:
    """The entries of some tensors that have the elected sign, put together.

    With normalize=count, as PEFT has it, the weights play no part in the election, and the sum is
    divided by the number of entries in it. Otherwise, as mergekit has it, weighted entries elect;
    the sum is divided by the weights in it (`weights`) or not at all (`off`).
    """
    kind, ones = xs[0].dtype.type, [1.0] * len(xs)
    by_weight = s.words["normalize"] == "weights"
    scaled = [x if w == 1 else x * kind(w) for x, w in zip(xs, weights, strict=True)]
    voters = xs if s.words["normalize"] == "count" else scaled
    if s.words["elect"] == "total":
        votes = sum(voters[1:], start=voters[0])
    else:
        votes = sum((np.sign(x) for x in voters[1:]), start=np.sign(voters[0]))
    total, divisor = _agreeing(votes, voters, scaled, weights if by_weight else ones)
    if s.words["normalize"] != "off":
        total /= divisor + (divisor == 0)
    total *= kind(s["scale"])
    return total


def _agreeing(
    votes: Array, voters: Sequence[Array], xs: Sequence[Array], shares: Sequence[float]
) -> tuple[Array, Array]:
    """The sum of the entries whose voter has the sign of the votes, and of their shares."""
    plus, minus = votes >= 0, votes < 0
    total, divisor = np.zeros_like(xs[0]), np.zeros_like(xs[0])
    for x, voter, share in zip(xs, voters, shares, strict=True):
        agrees = ((voter > 0) & plus) | ((voter < 0) & minus)
        total += kept(x, agrees)
        divisor += agrees if share == 1 else agrees * x.dtype.type(share)
    return total, divisor


@dataclass(frozen=True, eq=False)
class Election:
    """An election among the entries that a pruning leaves."""

    pruning: Pruning

    def at(
        self, field: Field, rows: slice, weights: Sequence[float], statistic: Any, s: MergeSettings
    ) -> Array:
        """Some rows of what is elected."""
        return agreed(self.pruning.rows(field, rows, statistic, s), weights, s)


def _election(name: str, pruning: Pruning, reference: Reference) -> MergeMethod:
    kernel = Elementwise(reference, pruning.statistics, Election(pruning).at, draws=pruning.draws)
    return MergeMethod(name, kernel, hold=pruning.hold)


# --- SCE -----------------------------------------------------------------------------------


def _variance(xs: Sequence[Array]) -> Array:
    mean = sum(xs[1:], start=xs[0]) / len(xs)
    variance: Array = sum((x - mean) ** 2 for x in xs) / len(xs)  # type: ignore[assignment]
    return variance


def _sce_look(field: Field, s: MergeSettings) -> tuple[float, list[float]]:
    """The least variance that is kept, and the weight of each tensor."""

    def variances() -> Iterator[Array]:
        for rows in field.tiles():
            yield _variance([field.tile(i, rows) for i in range(field.count)])

    least = 0.0
    if s["density"] < 1:
        varied = sum(int(np.count_nonzero(v)) for v in variances())
        least = kth_largest(variances, field.size, int(varied * s["density"]))
    squares = np.zeros(field.count)
    for rows in field.tiles():
        for i, x in enumerate(_selected(field, rows, least)):
            squares[i] += float(np.sum(x.astype(np.float64) ** 2))
    means = squares / field.size
    even = [1.0 / field.count] * field.count  # where nothing is left
    return least, list(means / means.sum()) if means.sum() > 0 else even


def _selected(field: Field, rows: slice, least: float) -> list[Array]:
    xs = [field.tile(i, rows) for i in range(field.count)]
    if least == 0:
        return xs
    mask = _variance(xs) >= least
    return [kept(x, mask) for x in xs]


def _sce_at(
    field: Field, rows: slice, weights: Sequence[float], statistic: Any, s: MergeSettings
) -> Array:
    least, shares = statistic
    xs = _selected(field, rows, least)
    kind = xs[0].dtype.type
    scaled = [x * kind(share) for x, share in zip(xs, shares, strict=True)]
    total, divisor = _agreeing(sum(xs[1:], start=xs[0]), xs, scaled, shares)
    return total / np.maximum(divisor, kind(1e-6)) * kind(s["scale"])


# --- NearSwap ------------------------------------------------------------------------------


def _no_look(field: Field, s: MergeSettings) -> None:
    return None


def _near_at(
    field: Field, rows: slice, weights: Sequence[float], statistic: Any, s: MergeSettings
) -> Array:
    x, y = field.tile(0, rows), field.tile(1, rows)
    kind = x.dtype.type
    apart = np.maximum(np.abs(x - y), np.finfo(x.dtype).tiny)
    share = np.minimum(kind(s["t"]), apart) / apart
    return share * y + (1 - share) * x


# --- references, written apart from the above ----------------------------------------------


def elected(
    xs: Sequence[Dense], weights: Sequence[float], scale: float, elect: str, normalize: str
) -> Dense:
    """The election of `agreed` on float64 tensors stacked."""
    plain, weighted = np.stack(xs), np.stack([w * x for w, x in zip(weights, xs, strict=True)])
    voters = plain if normalize == "count" else weighted
    votes = (voters if elect == "total" else np.sign(voters)).sum(axis=0)
    mask = np.sign(voters) == np.where(votes >= 0, 1, -1)
    total = (weighted * mask).sum(axis=0)
    each = np.ones(len(xs)) if normalize == "count" else np.array(weights)
    divisor = np.tensordot(each, mask, axes=1)
    divided = total if normalize == "off" else total / np.where(divisor == 0, 1, divisor)
    return np.asarray(scale * divided)


def _sce_reference(xs: Sequence[Dense], density: float, scale: float, **_: object) -> Dense:
    stack = np.stack(xs)
    variance = stack.var(axis=0)
    if density < 1:
        k = int(np.count_nonzero(variance) * density)
        order = np.sort(variance, axis=None)[::-1]
        stack = stack * (variance >= order[k - 1]) if k else 0 * stack
    means = np.array([np.mean(x**2) for x in stack])
    shares = means / means.sum() if means.sum() > 0 else np.full(len(xs), 1 / len(xs))
    mask = np.sign(stack) == np.where(stack.sum(axis=0) >= 0, 1, -1)
    total = np.tensordot(shares, stack * mask, axes=1)
    return np.asarray(scale * total / np.maximum(np.tensordot(shares, mask, axes=1), 1e-6))


def _near_reference(xs: Sequence[Dense], t: float, **_: object) -> Dense:
    x, y = xs
    share = np.clip(t / np.where(x == y, 1, np.abs(x - y)), 0, 1)
    return np.asarray(x + share * (y - x))


def _ties_reference(
    xs: Sequence[Dense],
    weights: Sequence[float],
    density: float,
    scale: float,
    elect: str = "total",
    normalize: str = "count",
    **_: object,
) -> Dense:
    trimmed = [kept_by_magnitude(x, density) for x in xs]
    return elected(trimmed, weights, scale, elect, normalize)


def _dare_ties_reference(
    xs: Sequence[Dense],
    draws: Sequence[Dense],
    weights: Sequence[float],
    density: float,
    scale: float,
    rescale: str,
    elect: str,
    normalize: str,
    **_: object,
) -> Dense:
    sparse = [kept_by_chance(x, d, density, rescale) for x, d in zip(xs, draws, strict=True)]
    return elected(sparse, weights, scale, elect, normalize)


def _della_ties_reference(
    xs: Sequence[Dense],
    draws: Sequence[Dense],
    weights: Sequence[float],
    density: float,
    epsilon: float,
    scale: float,
    rescale: str,
    elect: str,
    normalize: str,
    **_: object,
) -> Dense:
    sparse = [
        kept_by_chance(x, d, likelihood(x, density, epsilon), rescale)
        for x, d in zip(xs, draws, strict=True)
    ]
    return elected(sparse, weights, scale, elect, normalize)


def _breadcrumbs_ties_reference(
    xs: Sequence[Dense],
    weights: Sequence[float],
    density: float,
    gamma: float,
    scale: float,
    elect: str = "total",
    normalize: str = "count",
    **_: object,
) -> Dense:
    band = [kept_in_band(x, density, gamma) for x in xs]
    return elected(band, weights, scale, elect, normalize)


_LAST = (ELECT, NORMALIZE, SCALE, OVER, RANK)

TIES = merge_operator(
    _election("ties", MAGNITUDE, _ties_reference),
    *(WEIGHTS, DENSITY, *_LAST),
    summary="Trims each adapter to its largest entries, elects a sign for every entry, and takes "
    "the mean of those that have it.",
    formula="Δ = λ·Σ wᵢ·top(Δᵢ)·[sign agrees] / how many agree",
    laws=(
        "ties([x], density=1) = x",
        "ties([x, x], density=1) = x",
        "ties([x, y], density=d) = ties([y, x], density=d)",
        "ties([2·x, 2·y], density=d) = 2·ties([x, y], density=d)",
    ),
    source="Yadav et al. 2023, *TIES-Merging*; PEFT `ties` is over=factors, `ties_svd` over=delta; "
    "mergekit `ties` is normalize=weights",
    rank=FILLS,
)

DARE_TIES = merge_operator(
    _election("dare_ties", CHANCE, _dare_ties_reference),
    *(WEIGHTS, DENSITY, SEED, RESCALE, *_LAST),
    summary="Keeps entries by chance as `dare` does, then elects signs as `ties` does.",
    formula="`ties` with the masks of `dare` in place of top",
    laws=("dare_ties([x, y], density=1) = ties([x, y], density=1)",),
    source="Yu et al. 2024; PEFT `dare_ties`, with over=delta `dare_ties_svd`; mergekit "
    "`dare_ties` is rescale=l1, normalize=off",
    rank=FILLS,
)

DELLA_TIES = merge_operator(
    _election("della_ties", LIKELIER, _della_ties_reference),
    *(WEIGHTS, DENSITY, EPSILON, SEED, RESCALE, *_LAST),
    summary="Keeps entries by chance as `della` does, then elects signs as `ties` does.",
    formula="`ties` with the masks of `della` in place of top",
    laws=("della_ties([x, y], density=1) = ties([x, y], density=1)",),
    source="Deep et al. 2024; mergekit `della` is rescale=l1, normalize=weights",
    rank=FILLS,
)

BREADCRUMBS_TIES = merge_operator(
    _election("breadcrumbs_ties", BAND, _breadcrumbs_ties_reference),
    *(WEIGHTS, DENSITY, GAMMA, *_LAST),
    summary="Drops the largest and the smallest entries as `breadcrumbs` does, then elects signs "
    "as `ties` does.",
    formula="`ties` with the band of `breadcrumbs` in place of top",
    laws=(
        "breadcrumbs_ties([x, y], density=1) = ties([x, y], density=1)",
        "breadcrumbs_ties([x, y], density=d, gamma=0) = ties([x, y], density=d)",
    ),
    source="Davari and Belilovsky 2023; mergekit `breadcrumbs_ties` is normalize=off",
    rank=FILLS,
)

SCE = merge_operator(
    MergeMethod("sce", Elementwise(_sce_reference, _sce_look, _sce_at)),
    *(Parameter("density", ("number",), Fraction(1), within=SHARE), SCALE, OVER, RANK),
    summary="Selects the entries that vary most between the adapters, weighs each adapter by its "
    "share of their square, and erases what has not the elected sign.",
    formula="Δ = λ·Σ wᵢ·Δᵢ·[sign agrees] / Σ wᵢ·[sign agrees], wᵢ ∝ mean of Δᵢ² over what is "
    "selected",
    laws=("sce([x]) = x", "sce([x, y], density=d) = sce([y, x], density=d)"),
    source="Wan et al. 2024, *FuseChat*; mergekit `sce`, whose select_topk is density",
    rank=FILLS,
)

NEARSWAP = merge_operator(
    MergeMethod("nearswap", Elementwise(_near_reference, _no_look, _near_at)),
    *(Parameter("t", ("number",), within=Within(NOTHING)), OVER, RANK),
    pair=True,
    summary="Goes from the first adapter to the second where the two are near, entry by entry.",
    formula="Δ = Δx + w·(Δy − Δx), w = min(1, t / |Δx − Δy|)",
    laws=("nearswap(x, y, t=0) = x", "nearswap(x, x, t=1) = x"),
    source="mergekit `nearswap`, whose base is x",
    rank=FILLS,
)

register(
    Section(
        "Merges that elect a sign",
        "Entry by entry, the adapters that have the elected sign are kept: that of their sum with "
        "elect=total, of their number with elect=frequency, + where that is 0. As in PEFT the "
        "weights play no part in the election, and the sum is divided by how many agree "
        "(normalize=count); or as in mergekit weighted entries elect, and the sum is divided by "
        "the weights that agree (normalize=weights) or not at all (normalize=off).",
        (TIES, DARE_TIES, DELLA_TIES, BREADCRUMBS_TIES, SCE, NEARSWAP),
    )
)
