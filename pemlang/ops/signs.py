"""Sign-aware methods: entry by entry the adapters agree on a sign, and those of the other sign are
left out."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.kernels.methods import Elementwise, Reference
from pemlang.lazy import numpy as np
from pemlang.ops.merge import (
    DENSITY,
    OVER,
    PAIR,
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
    kept_by_chance,
    kept_by_magnitude,
    kept_in_band,
    likelihood,
)

if TYPE_CHECKING:
    from pemlang.kernels.builder import Value
    from pemlang.kernels.entries import Entries
    from pemlang.kernels.step import Dense

ELECT = Parameter("elect", ("word",), "total", words=("total", "frequency"))
NORMALIZE = Parameter("normalize", ("word",), "count", words=("count", "weights", "off"))


def agreed(e: Entries, xs: Sequence[Value]) -> Value:
    """The entries of some tensors that have the elected sign, put together.

    With normalize=count, as PEFT has it, the weights play no part in the election, and the sum is
    divided by the number of entries in it. Otherwise, as mergekit has it, weighted entries elect;
    the sum is divided by the weights in it (`weights`) or not at all (`off`).
    """
    normalize = e.words["normalize"]
    scaled = [e.scaled(x, weight) for x, weight in zip(xs, e.weights, strict=True)]
    voters = xs if normalize == "count" else scaled
    votes = e.total(voters if e.words["elect"] == "total" else [e.sign(x) for x in voters])
    shares = [e.number(w if normalize == "weights" else 1) for w in e.weights]
    total, divisor = _agreeing(e, votes, voters, scaled, shares)
    if normalize != "off":
        zero = e.number(0)
        total = e.over(total, e.where(e.equal(divisor, zero), e.number(1), divisor))
    return e.scaled(total, e.numbers["scale"])


def _agreeing(
    e: Entries,
    votes: Value,
    voters: Sequence[Value],
    xs: Sequence[Value],
    shares: Sequence[Value],
) -> tuple[Value, Value]:
    """The sum of the entries whose voter has the sign of the votes, + for none, and the sum of
    their shares."""
    zero = e.number(0)
    elected = e.where(e.less(votes, zero), e.number(-1), e.number(1))
    agrees = [e.less(zero, e.times(voter, elected)) for voter in voters]
    return (
        e.total([e.where(yes, x, zero) for yes, x in zip(agrees, xs, strict=True)]),
        e.total([e.where(yes, share, zero) for yes, share in zip(agrees, shares, strict=True)]),
    )


@dataclass(frozen=True, eq=False)
class Election:
    """An election among the entries that a pruning leaves."""

    pruning: Pruning

    def emit(self, e: Entries) -> Value:
        """What is elected."""
        return agreed(e, self.pruning.sparse(e))


def _elementwise(pruning: Pruning, reference: Reference) -> Elementwise:
    return Elementwise(reference, Election(pruning).emit)


def _election(name: str, pruning: Pruning, reference: Reference) -> MergeMethod:
    return MergeMethod(name, _elementwise(pruning, reference), hold=pruning.hold)


# --- SCE -----------------------------------------------------------------------------------


def _variance(e: Entries) -> Value:
    """In float64: float32 has no room for the squares of very large and very small numbers."""
    xs, count = [e.wide(x) for x in e.xs], e.number(len(e.xs), "F64")
    mean = e.over(e.total(xs), count)
    apart = [e.minus(x, mean) for x in xs]
    return e.over(e.total([e.times(x, x) for x in apart]), count)


def _sce(e: Entries) -> Value:
    xs, zero = e.xs, e.number(0)
    if e.numbers["density"] < 1:
        variance = _variance(e)
        varied = e.where(e.equal(variance, e.number(0, "F64")), zero, e.number(1))
        least = e.kth_share(variance, e.numbers["density"], e.sum_of(varied))
        xs = [e.where(e.less(variance, least), zero, x) for x in xs]
    shares = [e.narrow(share) for share in _shares(e, xs)]
    scaled = [e.times(x, share) for x, share in zip(xs, shares, strict=True)]
    total, divisor = _agreeing(e, e.total(xs), xs, scaled, shares)
    return e.scaled(e.over(total, e.most(divisor, e.number(1e-6))), e.numbers["scale"])


def _shares(e: Entries, xs: Sequence[Value]) -> list[Value]:
    """The weight of each tensor, by its share of all squares; even where nothing is left."""
    squares = [e.sum_of(e.times(e.wide(x), e.wide(x))) for x in xs]
    total, one = e.total(squares), e.number(1, "F64")
    some = e.less(e.number(0, "F64"), total)
    even, whole = e.number(1 / len(xs), "F64"), e.where(some, total, one)
    return [e.where(some, e.over(square, whole), even) for square in squares]


# --- NearSwap ------------------------------------------------------------------------------


def _near(e: Entries) -> Value:
    x, y = e.xs
    apart = e.most(e.size_of(e.minus(x, y)), e.number(1e-300 if x.dtype == "F64" else 1e-37))
    share = e.over(e.least(e.number(e.numbers["t"]), apart), apart)
    return e.plus(e.times(share, y), e.times(e.minus(e.number(1), share), x))


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

TIES_KERNEL = _elementwise(MAGNITUDE, _ties_reference)

TIES = merge_operator(
    MergeMethod("ties", TIES_KERNEL),
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
    MergeMethod("sce", Elementwise(_sce_reference, _sce)),
    *(Parameter("density", ("number", "schedule"), Fraction(1), within=SHARE), SCALE, OVER, RANK),
    summary="Selects the entries that vary most between the adapters, weighs each adapter by its "
    "share of their square, and erases what has not the elected sign.",
    formula="Δ = λ·Σ wᵢ·Δᵢ·[sign agrees] / Σ wᵢ·[sign agrees], wᵢ ∝ mean of Δᵢ² over what is "
    "selected",
    laws=("sce([x]) = x", "sce([x, y], density=d) = sce([y, x], density=d)"),
    source="Wan et al. 2024, *FuseChat*; mergekit `sce`, whose select_topk is density",
    rank=FILLS,
)

NEARSWAP = merge_operator(
    MergeMethod("nearswap", Elementwise(_near_reference, _near)),
    *(Parameter("t", ("number", "schedule"), within=Within(NOTHING)), OVER, RANK),
    takes=PAIR,
    points=True,
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
