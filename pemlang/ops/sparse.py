"""Sparsifying methods: a share of the entries of each adapter is kept, and the rest is zero.

An entry of an adapter is one of its Δ, or with over=factors one of A and one of B. A share is that
of each tensor, never of all of them together. Of entries of equal magnitude at the border all are
kept: which of them go is then no matter of the order in which a solver happened to find them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault
from pemlang.graph.numbers import shown
from pemlang.kernels.fields import kth_largest
from pemlang.kernels.methods import Elementwise, MergeSettings, Reference
from pemlang.lazy import numpy as np
from pemlang.ops.merge import (
    DENSITY,
    OVER,
    RANK,
    SCALE,
    SEED,
    WEIGHTS,
    MergeMethod,
    Settings,
    merge_operator,
)
from pemlang.ops.record import Parameter, Section, Within, register

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pemlang.kernels.fields import Draws, Field
    from pemlang.kernels.step import Dense
    from pemlang.tensorfiles.dtypes import Array

NOTHING = Fraction(0)
RESCALE = Parameter("rescale", ("word",), "density", words=("density", "l1", "off"))
GAMMA = Parameter("gamma", ("number",), Fraction(1, 100), within=Within(NOTHING, Fraction(1)))
EPSILON = Parameter(
    "epsilon", ("number",), Fraction(15, 100), within=Within(NOTHING, Fraction(1, 2), open=True)
)
FILLS = "over delta min(out, in), or rank= what is given; over factors the adapters'"


@dataclass(frozen=True, eq=False)
class Pruning:
    """How entries are chosen.

    Attributes:
        look: what has to be known of a whole tensor: the field, the tensor's number, the settings.
        keep: the entries of some rows with those that go set to zero, from the draws for them.
        draws: whether it draws.
        hold: see MergeMethod.
    """

    look: Callable[[Field, int, MergeSettings], Any]
    keep: Callable[[Array, Draws | None, Any, MergeSettings], Array]
    draws: bool = False
    hold: Callable[[str, Settings], None] | None = None

    def statistics(self, field: Field, s: MergeSettings) -> list[tuple[Any, float]]:
        """What `look` gives for each tensor, and what to scale what is kept by."""
        looks = [self.look(field, index, s) for index in range(field.count)]
        if s.words.get("rescale") != "l1" or s["density"] >= 1:
            return [(look, 1.0) for look in looks]
        return [(look, self._l1(field, index, look, s)) for index, look in enumerate(looks)]

    def _l1(self, field: Field, index: int, statistic: Any, s: MergeSettings) -> float:
        before = after = 0.0
        for rows in field.tiles():
            x = field.tile(index, rows)
            before += float(np.sum(np.abs(x), dtype="f8"))
            sparse = self._kept(field, index, rows, x, statistic, s)
            after += float(np.sum(np.abs(sparse), dtype="f8"))
        return before / after if after > 0 else 1.0

    def _kept(
        self, field: Field, index: int, rows: slice, x: Array, statistic: Any, s: MergeSettings
    ) -> Array:
        if s["density"] >= 1:
            return x
        return self.keep(x, field.draws(index, rows) if self.draws else None, statistic, s)

    def rows(
        self, field: Field, rows: slice, statistics: Sequence[tuple[Any, float]], s: MergeSettings
    ) -> list[Array]:
        """Some rows of each tensor, sparse."""
        sparse = []
        for index, (look, by) in enumerate(statistics):
            x = self._kept(field, index, rows, field.tile(index, rows), look, s)
            sparse.append(x if by == 1 else x * x.dtype.type(by))
        return sparse

    def summed(
        self, field: Field, rows: slice, weights: Sequence[float], statistics: Any, s: MergeSettings
    ) -> Array:
        """Some rows of the weighted sum."""
        first, *others = self.rows(field, rows, statistics, s)
        total = first * first.dtype.type(weights[0] * s["scale"])
        for weight, x in zip(weights[1:], others, strict=True):
            total += x * x.dtype.type(weight * s["scale"])
        return total


def kept(x: Array, mask: NDArray[np.bool_]) -> Array:
    """x where a mask holds, else zero. A product takes a tenth of the time that np.where does."""
    sparse: Array = x * mask
    return sparse


def _no_look(field: Field, index: int, s: MergeSettings) -> None:
    return None


# --- the largest ---------------------------------------------------------------------------


def _threshold(field: Field, index: int, s: MergeSettings) -> float:
    if s["density"] >= 1:
        return 0.0
    return kth_largest(field.of(index), field.size, int(s["density"] * field.size))


def _largest(x: Array, draws: Draws | None, threshold: float, s: MergeSettings) -> Array:
    return kept(x, np.abs(x) >= threshold)


MAGNITUDE = Pruning(_threshold, _largest)

# --- all but the largest and the smallest --------------------------------------------------


def _band(field: Field, index: int, s: MergeSettings) -> tuple[float, float]:
    size = field.size
    kept, top = int(s["density"] * size), int(s["gamma"] * size)
    top = min(top, size - kept)
    walk = field.of(index)
    if kept == 0 or s["density"] >= 1:
        return float("inf"), float("inf")
    return kth_largest(walk, size, top + kept), kth_largest(walk, size, top + 1)


def _inside(x: Array, draws: Draws | None, band: tuple[float, float], s: MergeSettings) -> Array:
    size = np.abs(x)
    return kept(x, (size >= band[0]) & (size <= band[1]))


BAND = Pruning(_band, _inside)

# --- by chance -----------------------------------------------------------------------------


def _chosen(x: Array, draws: Draws | None, statistic: None, s: MergeSettings) -> Array:
    assert draws is not None
    chosen = kept(x, draws < np.uint32(s["density"] * 2**32))
    return chosen * x.dtype.type(1 / s["density"]) if s.words["rescale"] == "density" else chosen


CHANCE = Pruning(_no_look, _chosen, draws=True)

# --- by chance, the larger the likelier ----------------------------------------------------


def _likelier(x: Array, draws: Draws | None, statistic: None, s: MergeSettings) -> Array:
    order = np.argsort(np.abs(x), axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(x.shape[1])[None], axis=1)
    share = place / (x.shape[1] - 1) if x.shape[1] > 1 else np.full(x.shape, 0.5)
    keep = s["density"] + s["epsilon"] * (2 * share - 1)
    assert draws is not None
    chosen = kept(x, draws < keep * 2**32)
    return chosen / keep.astype(x.dtype) if s.words["rescale"] == "density" else chosen


def _hold_spread(name: str, settings: Settings) -> None:
    """Raise PEM0326 for an epsilon that makes a probability of less than 0 or more than 1."""
    spread, density = settings["epsilon"], settings["density"]
    assert isinstance(spread, Fraction) and isinstance(density, Fraction)
    room = min(density, 1 - density)
    if density != 1 and spread >= room:
        raise Fault(
            "PEM0326",
            f"epsilon={shown(spread)} is too wide for density={shown(density)}: {name} "
            "keeps an entry with a probability from density − epsilon to density + epsilon, which "
            "has to lie between 0 and 1",
            f"epsilon={shown(room / 2)}",
        )


LIKELIER = Pruning(_no_look, _likelier, draws=True, hold=_hold_spread)


# --- references, written apart from the above ----------------------------------------------


def kept_by_magnitude(x: Dense, density: float) -> Dense:
    """A float64 tensor with all but its largest entries set to zero."""
    k = int(density * x.size)
    order = np.sort(np.abs(x), axis=None)[::-1]
    return x * (np.abs(x) >= order[k - 1]) if k else 0 * x


def kept_in_band(x: Dense, density: float, gamma: float) -> Dense:
    """A float64 tensor without its largest entries and without its smallest."""
    if density == 1:
        return x
    order = np.sort(np.abs(x), axis=None)[::-1]
    kept = int(density * x.size)
    top = min(int(gamma * x.size), x.size - kept)
    if kept == 0:
        return 0 * x
    return np.asarray(x * (np.abs(x) <= order[top]) * (np.abs(x) >= order[top + kept - 1]))


def kept_by_chance(x: Dense, draws: Dense, keep: Dense | float, rescale: str) -> Dense:
    """A float64 tensor with its entries kept where a draw from 0 to 1 is below a probability."""
    if np.min(keep) >= 1:
        return x
    kept = np.where(draws < keep, x, 0)
    if rescale == "l1":
        after = np.abs(kept).sum()
        return np.asarray(kept * (np.abs(x).sum() / after if after > 0 else 1))
    return kept / keep if rescale == "density" else kept


def likelihood(x: Dense, density: float, epsilon: float) -> Dense:
    """The probability of each entry of a float64 matrix by its rank in the row."""
    if density == 1 or x.shape[1] == 1:
        return np.full(x.shape, density)
    place = np.array([[(abs(row) < abs(v)).sum() for v in row] for row in x])
    share: Dense = density - epsilon + 2 * epsilon * place / (x.shape[1] - 1)
    return share


def summed(xs: Sequence[Dense], weights: Sequence[float], scale: float) -> Dense:
    """λ·Σ wᵢ·xᵢ."""
    return np.asarray(scale * sum(w * x for w, x in zip(weights, xs, strict=True)))


def _magnitude_reference(
    xs: Sequence[Dense], weights: Sequence[float], density: float, scale: float, **_: object
) -> Dense:
    return summed([kept_by_magnitude(x, density) for x in xs], weights, scale)


def _dare_reference(
    xs: Sequence[Dense],
    draws: Sequence[Dense],
    weights: Sequence[float],
    density: float,
    scale: float,
    rescale: str,
    **_: object,
) -> Dense:
    sparse = [kept_by_chance(x, d, density, rescale) for x, d in zip(xs, draws, strict=True)]
    return summed(sparse, weights, scale)


def _della_reference(
    xs: Sequence[Dense],
    draws: Sequence[Dense],
    weights: Sequence[float],
    density: float,
    epsilon: float,
    scale: float,
    rescale: str,
    **_: object,
) -> Dense:
    sparse = [
        kept_by_chance(x, d, likelihood(x, density, epsilon), rescale)
        for x, d in zip(xs, draws, strict=True)
    ]
    return summed(sparse, weights, scale)


def _breadcrumbs_reference(
    xs: Sequence[Dense],
    weights: Sequence[float],
    density: float,
    gamma: float,
    scale: float,
    **_: object,
) -> Dense:
    return summed([kept_in_band(x, density, gamma) for x in xs], weights, scale)


def _sum_of(name: str, pruning: Pruning, reference: Reference) -> MergeMethod:
    kernel = Elementwise(reference, pruning.statistics, pruning.summed, draws=pruning.draws)
    return MergeMethod(name, kernel, hold=pruning.hold)


MAGNITUDE_PRUNE = merge_operator(
    _sum_of("magnitude_prune", MAGNITUDE, _magnitude_reference),
    *(WEIGHTS, DENSITY, SCALE, OVER, RANK),
    summary="Keeps the entries of largest magnitude of each adapter, and sums what is left.",
    formula="Δ = λ·Σ wᵢ·top(Δᵢ), top: the ⌊density·n⌋ largest of n entries",
    laws=(
        "magnitude_prune([x, y], density=1) = x + y",
        "magnitude_prune([x, y], density=d) = magnitude_prune([y, x], density=d)",
    ),
    source="Yadav et al. 2023 (the trimming of TIES); PEFT `magnitude_prune`, with over=delta "
    "`magnitude_prune_svd`",
    rank=FILLS,
)

DARE = merge_operator(
    _sum_of("dare", CHANCE, _dare_reference),
    *(WEIGHTS, DENSITY, SEED, RESCALE, SCALE, OVER, RANK),
    aliases=("dare_linear",),
    summary="Keeps each entry by chance, makes up for those that go, and sums what is left.",
    formula="Δ = λ·Σ wᵢ·mᵢ∘Δᵢ / density, mᵢ = 1 with probability density; rescale=l1 divides by "
    "‖m∘Δ‖₁/‖Δ‖₁ instead",
    laws=(
        "dare([x, y], density=1) = x + y",
        "dare([x, y], density=d, seed=s) = dare([y, x], density=d, seed=s)",
    ),
    source="Yu et al. 2024, *Language Models are Super Mario*; PEFT `dare_linear` and, with "
    "over=delta, `dare_linear_svd`; mergekit `dare_linear` is rescale=l1",
    rank=FILLS,
)

DELLA = merge_operator(
    _sum_of("della", LIKELIER, _della_reference),
    *(WEIGHTS, DENSITY, EPSILON, SEED, RESCALE, SCALE, OVER, RANK),
    aliases=("della_linear",),
    summary="Keeps entries by chance, the larger of a row the likelier, and sums what is left.",
    formula="Δ = λ·Σ wᵢ·mᵢ∘Δᵢ / p, p from density − ε to density + ε by rank of magnitude in the "
    "row; rescale=l1 divides by ‖m∘Δ‖₁/‖Δ‖₁ instead",
    laws=("della([x, y], density=1) = x + y",),
    source="Deep et al. 2024, *DELLA-Merging*; mergekit `della_linear` is rescale=l1",
    rank=FILLS,
)

BREADCRUMBS = merge_operator(
    _sum_of("breadcrumbs", BAND, _breadcrumbs_reference),
    *(WEIGHTS, DENSITY, GAMMA, SCALE, OVER, RANK),
    summary="Drops the largest entries as outliers and the smallest as noise, and sums the rest.",
    formula="Δ = λ·Σ wᵢ·band(Δᵢ), band: without the ⌊γ·n⌋ largest, the ⌊density·n⌋ largest then",
    laws=(
        "breadcrumbs([x, y], density=1) = x + y",
        "breadcrumbs([x, y], density=d, gamma=0) = magnitude_prune([x, y], density=d)",
    ),
    source="Davari and Belilovsky 2023, *Model Breadcrumbs*; mergekit `breadcrumbs`, whose γ = 0 "
    "gives zeros",
    rank=FILLS,
)

register(
    Section(
        "Sparse merges",
        "A share of the entries of each adapter is kept, tensor by tensor; entries as large as the "
        "smallest that is kept are kept too. With over=delta an entry is one of Δ, which fills the "
        "matrix: it is formed a site at a time, in tiles, and cut to rank=, or to that of `save … "
        "with rank`. With over=factors, as in PEFT, it is one of A or of B: the adapters need one "
        "rank, one scale and one initialisation. What is drawn depends on the seed, the site's "
        "name and the adapter, not on an order.",
        (MAGNITUDE_PRUNE, DARE, DELLA, BREADCRUMBS),
    )
)
