"""Sign-aware methods: entry by entry the adapters agree on a sign, and those of the other sign are
left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pemlang.ops.merge import DENSITY, OVER, RANK, SCALE, SEED, SHARE, WEIGHTS, Kind, many, pair
from pemlang.ops.record import Operator, Param, Within
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
    from pemlang.kernels.methods import Method, Settings
    from pemlang.tensorfiles.dtypes import Array

ELECT = Param("elect", ("word",), "total", words=("total", "frequency"))
NORMALIZE = Param("normalize", ("word",), "count", words=("count", "weights", "off"))


def agreed(xs: Sequence[Array], weights: Sequence[float], s: Settings) -> Array:
    """The entries of some tensors that have the elected sign, put together.

    With normalize=count, as PEFT has it, the weights play no part in the election, and the sum is
    divided by the number of entries in it. Otherwise, as mergekit has it, weighted entries elect;
    the sum is divided by the weights in it (`weights`) or not at all (`off`).
    """
    import numpy as np

    kind, ones = xs[0].dtype.type, [1.0] * len(xs)
    by_weight = s["normalize"] == "weights"
    scaled = [x if w == 1 else x * kind(w) for x, w in zip(xs, weights, strict=True)]
    voters = xs if s["normalize"] == "count" else scaled
    if s["elect"] == "total":
        votes = sum(voters[1:], start=voters[0])
    else:
        votes = sum((np.sign(x) for x in voters[1:]), start=np.sign(voters[0]))
    total, divisor = _agreeing(votes, voters, scaled, weights if by_weight else ones)
    if s["normalize"] != "off":
        total /= divisor + (divisor == 0)
    total *= kind(s["scale"])
    return total


def _agreeing(
    votes: Array, voters: Sequence[Array], xs: Sequence[Array], shares: Sequence[float]
) -> tuple[Array, Array]:
    """The sum of the entries whose voter has the sign of the votes, and of their shares."""
    import numpy as np

    plus, minus = votes >= 0, votes < 0
    total, divisor = np.zeros_like(xs[0]), np.zeros_like(xs[0])
    for x, voter, share in zip(xs, voters, shares, strict=True):
        agrees = ((voter > 0) & plus) | ((voter < 0) & minus)
        total += kept(x, agrees)
        divisor += agrees if share == 1 else agrees * x.dtype.type(share)
    return total, divisor


def _elected(pruning: Pruning) -> Callable[[], Method]:
    def made() -> Method:
        from pemlang.kernels.methods import Elementwise

        def at(
            field: Field, rows: slice, weights: Sequence[float], known: Any, s: Settings
        ) -> Array:
            return agreed(pruning.rows(field, rows, known, s), weights, s)

        return Elementwise(pruning.known, at)

    return made


def _election(name: str, pruning: Pruning, *params: Param) -> Any:
    shared = (ELECT, NORMALIZE, SCALE, OVER, RANK)
    return many(name, Kind(_elected(pruning)), WEIGHTS, DENSITY, *params, *shared)


# --- SCE -----------------------------------------------------------------------------------


def _variance(xs: Sequence[Array]) -> Array:
    mean = sum(xs[1:], start=xs[0]) / len(xs)
    found: Array = sum((x - mean) ** 2 for x in xs) / len(xs)  # type: ignore[assignment]
    return found


def _sce_look(field: Field, s: Settings) -> tuple[float, list[float]]:
    """The least variance that is kept, and the weight of each tensor."""
    import numpy as np

    from pemlang.kernels.fields import kth_largest

    def variances() -> Any:
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


def _sce_at(field: Field, rows: slice, weights: Sequence[float], known: Any, s: Settings) -> Array:
    import numpy as np

    least, shares = known
    xs = _selected(field, rows, least)
    kind = xs[0].dtype.type
    scaled = [x * kind(share) for x, share in zip(xs, shares, strict=True)]
    total, divisor = _agreeing(sum(xs[1:], start=xs[0]), xs, scaled, shares)
    return total / np.maximum(divisor, kind(1e-6)) * kind(s["scale"])


def _sce() -> Method:
    from pemlang.kernels.methods import Elementwise

    return Elementwise(_sce_look, _sce_at)


# --- NearSwap ------------------------------------------------------------------------------


def _near_at(field: Field, rows: slice, weights: Sequence[float], known: Any, s: Settings) -> Array:
    import numpy as np

    x, y = field.tile(0, rows), field.tile(1, rows)
    kind = x.dtype.type
    apart = np.maximum(np.abs(x - y), np.finfo(x.dtype).tiny)
    share = np.minimum(kind(s["t"]), apart) / apart
    return share * y + (1 - share) * x


def _near() -> Method:
    from pemlang.kernels.methods import Elementwise

    return Elementwise(lambda field, s: None, _near_at)


# --- references, written apart from the above ----------------------------------------------


def elected(
    xs: Sequence[Any], weights: Sequence[float], scale: float, elect: str, normalize: str
) -> Any:
    """The election of `agreed` on float64 tensors stacked."""
    import numpy as np

    plain, weighted = np.stack(xs), np.stack([w * x for w, x in zip(weights, xs, strict=True)])
    voters = plain if normalize == "count" else weighted
    votes = (voters if elect == "total" else np.sign(voters)).sum(axis=0)
    mask = np.sign(voters) == np.where(votes >= 0, 1, -1)
    total = (weighted * mask).sum(axis=0)
    each = np.ones(len(xs)) if normalize == "count" else np.array(weights)
    divisor = np.tensordot(each, mask, axes=1)
    return scale * (total if normalize == "off" else total / np.where(divisor == 0, 1, divisor))


def _sce_reference(xs: Sequence[Any], density: float, scale: float, **_: Any) -> Any:
    import numpy as np

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
    return scale * total / np.maximum(np.tensordot(shares, mask, axes=1), 1e-6)


TIES = Operator(
    name="ties",
    signatures=(_election("ties", MAGNITUDE),),
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
    reference=lambda xs, weights, density, scale, elect="total", normalize="count", **_: elected(
        [kept_by_magnitude(x, density) for x in xs], weights, scale, elect, normalize
    ),
    acts_on="delta",
)

DARE_TIES = Operator(
    name="dare_ties",
    signatures=(_election("dare_ties", CHANCE, SEED, RESCALE),),
    summary="Keeps entries by chance as `dare` does, then elects signs as `ties` does.",
    formula="`ties` with the masks of `dare` in place of top",
    laws=("dare_ties([x, y], density=1) = ties([x, y], density=1)",),
    source="Yu et al. 2024; PEFT `dare_ties`, with over=delta `dare_ties_svd`; mergekit "
    "`dare_ties` is rescale=l1, normalize=off",
    rank=FILLS,
    reference=lambda xs, draws, weights, density, scale, rescale, elect, normalize, **_: elected(
        [kept_by_chance(x, draws, density, rescale) for x in xs], weights, scale, elect, normalize
    ),
    acts_on="delta",
)

DELLA_TIES = Operator(
    name="della_ties",
    signatures=(_election("della_ties", LIKELIER, EPSILON, SEED, RESCALE),),
    summary="Keeps entries by chance as `della` does, then elects signs as `ties` does.",
    formula="`ties` with the masks of `della` in place of top",
    laws=("della_ties([x, y], density=1) = ties([x, y], density=1)",),
    source="Deep et al. 2024; mergekit `della` is rescale=l1, normalize=weights",
    rank=FILLS,
    reference=lambda xs, draws, weights, density, epsilon, scale, rescale, elect, normalize, **_: (
        elected(
            [kept_by_chance(x, draws, likelihood(x, density, epsilon), rescale) for x in xs],
            weights,
            scale,
            elect,
            normalize,
        )
    ),
    acts_on="delta",
)

BREADCRUMBS_TIES = Operator(
    name="breadcrumbs_ties",
    signatures=(_election("breadcrumbs_ties", BAND, GAMMA),),
    summary="Drops the largest and the smallest entries as `breadcrumbs` does, then elects signs "
    "as `ties` does.",
    formula="`ties` with the band of `breadcrumbs` in place of top",
    laws=(
        "breadcrumbs_ties([x, y], density=1) = ties([x, y], density=1)",
        "breadcrumbs_ties([x, y], density=d, gamma=0) = ties([x, y], density=d)",
    ),
    source="Davari and Belilovsky 2023; mergekit `breadcrumbs_ties` is normalize=off",
    rank=FILLS,
    reference=lambda xs, weights, density, gamma, scale, elect="total", normalize="count", **_: (
        elected([kept_in_band(x, density, gamma) for x in xs], weights, scale, elect, normalize)
    ),
    acts_on="delta",
)

SCE = Operator(
    name="sce",
    signatures=(
        many(
            "sce",
            Kind(_sce),
            Param("density", ("number",), Fraction(1), within=SHARE),
            SCALE,
            OVER,
            RANK,
        ),
    ),
    summary="Selects the entries that vary most between the adapters, weighs each adapter by its "
    "share of their square, and erases what has not the elected sign.",
    formula="Δ = λ·Σ wᵢ·Δᵢ·[sign agrees] / Σ wᵢ·[sign agrees], wᵢ ∝ mean of Δᵢ² over what is "
    "selected",
    laws=("sce([x]) = x", "sce([x, y], density=d) = sce([y, x], density=d)"),
    source="Wan et al. 2024, *FuseChat*; mergekit `sce`, whose select_topk is density",
    rank=FILLS,
    reference=_sce_reference,
    acts_on="delta",
)

NEARSWAP = Operator(
    name="nearswap",
    signatures=(
        pair(
            "nearswap",
            Kind(_near),
            Param("t", ("number",), within=Within(NOTHING)),
            OVER,
            RANK,
        ),
    ),
    summary="Goes from the first adapter to the second where the two are near, entry by entry.",
    formula="Δ = Δx + w·(Δy − Δx), w = min(1, t / |Δx − Δy|)",
    laws=("nearswap(x, y, t=0) = x", "nearswap(x, x, t=1) = x"),
    source="mergekit `nearswap`, whose base is x",
    rank=FILLS,
    reference=lambda x, y, t, **_: _near_reference(x, y, t),
    acts_on="delta",
)


def _near_reference(x: Any, y: Any, t: float) -> Any:
    import numpy as np

    share = np.clip(t / np.where(x == y, 1, np.abs(x - y)), 0, 1)
    return x + share * (y - x)


OPERATORS = (TIES, DARE_TIES, DELLA_TIES, BREADCRUMBS_TIES, SCE, NEARSWAP)
