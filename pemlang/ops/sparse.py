"""Sparsifying methods: a share of the entries of each adapter is kept, and the rest is zero.

An entry of an adapter is one of its Δ, or with over=factors one of A and one of B. A share is that
of each tensor, never of all of them together. Of entries of equal magnitude at the border all are
kept: which of them go is then no matter of the order in which a solver happened to find them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault
from pemlang.graph.numbers import shown
from pemlang.kernels.methods import Elementwise, Reference
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
from pemlang.ops.record import Context, Parameter, Section, Within, register

if TYPE_CHECKING:
    from pemlang.kernels.builder import Value
    from pemlang.kernels.entries import Entries
    from pemlang.kernels.step import Dense

NOTHING = Fraction(0)
RESCALE = Parameter("rescale", ("word",), "density", words=("density", "l1", "off"))
GAMMA = Parameter(
    "gamma", ("number", "schedule"), Fraction(1, 100), within=Within(NOTHING, Fraction(1))
)
EPSILON = Parameter(
    "epsilon",
    ("number", "schedule"),
    Fraction(15, 100),
    within=Within(NOTHING, Fraction(1, 2), open=True),
)
FILLS = "over delta what rank= says, full for min(out, in); over factors the adapters'"


@dataclass(frozen=True, eq=False)
class Pruning:
    """How entries are chosen.

    Attributes:
        keep: one of the tensors, by number, with the entries that go set to zero.
        hold: see MergeMethod.
    """

    keep: Callable[[Entries, int], Value]
    hold: Callable[[Context, Settings], None] | None = None

    def sparse(self, e: Entries) -> list[Value]:
        """Each tensor with what is kept of it."""
        if e.numbers["density"] >= 1:
            return list(e.xs)
        kept = [self.keep(e, index) for index in range(len(e.xs))]
        if e.words.get("rescale") != "l1":
            return kept
        return [_of_norm(e, x, whole) for x, whole in zip(kept, e.xs, strict=True)]

    def summed(self, e: Entries) -> Value:
        """The weighted sum of what is kept."""
        scale = e.numbers["scale"]
        return e.weighted(self.sparse(e), [weight * scale for weight in e.weights])


def _of_norm(e: Entries, x: Value, whole: Value) -> Value:
    """x with the 1-norm of another tensor, unless it is zero."""
    before, after = (e.sum_of(e.size_of(tensor)) for tensor in (whole, x))
    some, one = e.less(e.number(0, "F64"), after), e.number(1, "F64")
    by = e.over(e.where(some, before, one), e.where(some, after, one))
    return e.times(x, e.narrow(by))


# --- the largest ---------------------------------------------------------------------------


def _largest(e: Entries, index: int) -> Value:
    x = e.xs[index]
    size = e.size_of(x)
    least = e.kth(size, int(e.numbers["density"] * e.size))
    return e.where(e.less(size, least), e.number(0), x)


MAGNITUDE = Pruning(_largest)

# --- all but the largest and the smallest --------------------------------------------------


def _inside(e: Entries, index: int) -> Value:
    x, zero = e.xs[index], e.number(0)
    size = e.size_of(x)
    kept, top = int(e.numbers["density"] * e.size), int(e.numbers["gamma"] * e.size)
    top = min(top, e.size - kept)
    under = e.less(size, e.kth(size, top + kept if kept else 0))
    if top == 0 or kept == 0:  # the largest is no outlier
        return e.where(under, zero, x)
    return e.where(under, zero, e.where(e.less(e.kth(size, top + 1), size), zero, x))


BAND = Pruning(_inside)

# --- by chance -----------------------------------------------------------------------------


def _chosen(e: Entries, index: int) -> Value:
    density = e.numbers["density"]
    keep = e.less(e.draw(index), e.number(density, "F64"))
    kept = e.where(keep, e.xs[index], e.number(0))
    return e.scaled(kept, 1 / density) if e.words["rescale"] == "density" else kept


CHANCE = Pruning(_chosen)

# --- by chance, the larger the likelier ----------------------------------------------------


def _likelier(e: Entries, index: int) -> Value:
    x, density, spread = e.xs[index], e.numbers["density"], e.numbers["epsilon"]
    place, columns = e.place(e.size_of(x))
    keep = e.number(density, "F64")
    if columns > 1:
        keep = e.plus(
            e.scaled(place, 2 * spread / (columns - 1)), e.number(density - spread, "F64")
        )
    kept = e.where(e.less(e.draw(index), keep), x, e.number(0))
    return e.over(kept, e.narrow(keep)) if e.words["rescale"] == "density" else kept


def _hold_spread(ctx: Context, settings: Settings) -> None:
    """Raise PEM0326 for an epsilon that makes a probability of less than 0 or more than 1."""
    spread, density = settings["epsilon"], settings["density"]
    assert isinstance(spread, Fraction) and isinstance(density, Fraction)
    room = min(density, 1 - density)
    if density != 1 and spread >= room:
        raise Fault(
            "PEM0326",
            f"epsilon={shown(spread)} is too wide for density={shown(density)}: {ctx.what} "
            "keeps an entry with a probability from density − epsilon to density + epsilon, which "
            "has to lie between 0 and 1",
            ctx.having("epsilon", shown(room / 2)),
        )


LIKELIER = Pruning(_likelier, hold=_hold_spread)


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
    return MergeMethod(name, Elementwise(reference, pruning.summed), hold=pruning.hold)


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
        "with rank`, one of which has to be given. With over=factors, as in PEFT, it is one of A "
        "or of B: the adapters need one rank, one scale and one initialisation. What is drawn "
        "depends on the seed, the site's name and the adapter, not on an order.",
        (MAGNITUDE_PRUNE, DARE, DELLA, BREADCRUMBS),
    )
)
