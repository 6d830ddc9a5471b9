"""Methods that tell entries that one adapter alone changed from those that several did."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.kernels.methods import Elementwise
from pemlang.lazy import numpy as np
from pemlang.ops.merge import RANK, MergeMethod, merge_operator
from pemlang.ops.record import Parameter, Section, Within, register
from pemlang.ops.sparse import NOTHING

if TYPE_CHECKING:
    from pemlang.kernels.builder import Value
    from pemlang.kernels.entries import Entries
    from pemlang.kernels.step import Dense

THRESHOLD = Parameter(
    "threshold", ("number", "schedule"), Fraction(1, 100_000), within=Within(NOTHING)
)
R = Parameter("r", ("number", "schedule"), Fraction(1, 10), within=Within(NOTHING))
ALPHA = Parameter("alpha", ("number", "schedule"), Fraction(2, 10), within=Within(NOTHING))
FILLS = "what rank= says, full for min(out, in)"


def _ram(e: Entries) -> Value:
    changed, count = _changes(e)
    return e.over(_kept(e, changed), e.most(count, e.number(1)))


def _ramplus_tl(e: Entries) -> Value:
    changed, count = _changes(e)
    one = e.number(1)
    shared = e.less(one, count)
    mean = e.over(_kept(e, changed), e.most(count, one))
    alone = [
        e.times(e.times(x, mask), e.narrow(_stronger(e, mask, shared)))
        for x, mask in zip(e.xs, changed, strict=True)
    ]
    return e.where(shared, mean, e.total(alone))


def _changes(e: Entries) -> tuple[list[Value], Value]:
    """Where each adapter changes an entry, as 1 and 0, and how many do."""
    threshold, zero, one = e.number(e.numbers["threshold"]), e.number(0), e.number(1)
    changed = [e.where(e.less(threshold, e.size_of(x)), one, zero) for x in e.xs]
    return changed, e.total(changed)


def _kept(e: Entries, changed: Sequence[Value]) -> Value:
    return e.total([e.times(x, mask) for x, mask in zip(e.xs, changed, strict=True)])


def _stronger(e: Entries, changed: Value, shared: Value) -> Value:
    """λ of an adapter, in float64."""
    one, zero = e.number(1, "F64"), e.number(0, "F64")
    both = e.sum_of(e.where(shared, changed, e.number(0)))
    alone = e.minus(e.sum_of(changed), both)
    ratio = e.over(both, e.most(alone, one))  # where it is alone nowhere, nothing is scaled by it
    bounded = e.least(e.most(ratio, zero), e.number(e.numbers["alpha"], "F64"))
    return e.plus(one, e.scaled(bounded, e.numbers["r"]))


# --- references, written apart from the above ----------------------------------------------


def _ram_reference(xs: Sequence[Dense], threshold: float, **_: object) -> Dense:
    stack = np.stack(xs)
    changed = np.abs(stack) > threshold
    return np.asarray((stack * changed).sum(axis=0) / np.maximum(changed.sum(axis=0), 1))


def _ramplus_tl_reference(
    xs: Sequence[Dense], threshold: float, r: float, alpha: float, **_: object
) -> Dense:
    stack = np.stack(xs)
    changed = np.abs(stack) > threshold
    count = changed.sum(axis=0)
    merged = np.zeros(xs[0].shape)
    for x, mask in zip(stack, changed, strict=True):
        alone, shared = mask & (count == 1), mask & (count > 1)
        ratio = shared.sum() / alone.sum() if alone.any() else 0.0
        merged[alone] = x[alone] * (1 + r * min(ratio, alpha))
        merged[shared] += x[shared] / count[shared]
    return merged


RAM = merge_operator(
    MergeMethod("ram", Elementwise(_ram_reference, _ram)),
    *(THRESHOLD, RANK),
    summary="Keeps what one adapter alone changes, and takes the mean where several do, of those "
    "that do.",
    formula="Δ = Σ Δᵢ·[|Δᵢ| > ε] / max(1, how many of |Δᵢ| > ε), ε the threshold",
    laws=(
        "ram([x], threshold=0) = x",
        "ram([x, x], threshold=0) = x",
        "ram([x, y]) = ram([y, x])",
    ),
    source="*Reinforced Agent Merging* 2026 (arXiv 2601.13572); mergekit `ram`, whose epsilon is "
    "threshold",
    rank=FILLS,
)

RAMPLUS_TL = merge_operator(
    MergeMethod("ramplus_tl", Elementwise(_ramplus_tl_reference, _ramplus_tl)),
    *(R, ALPHA, THRESHOLD, RANK),
    summary="`ram`, in which what one adapter alone changes is made the stronger, the more of its "
    "tensor it shares with others: that makes up for what the means take from it.",
    formula="`ram`, where one adapter alone changes an entry times λᵢ = 1 + r·min(α, ρᵢ), ρᵢ how "
    "many entries it shares, over how many it alone changes",
    laws=(
        "ramplus_tl([x], threshold=0) = x",
        "ramplus_tl([x, y], r=0) = ram([x, y])",
    ),
    source="*Reinforced Agent Merging* 2026 (arXiv 2601.13572), tensor by tensor; mergekit "
    "`ramplus_tl`, whose epsilon is threshold",
    rank=FILLS,
)

register(
    Section(
        "Merges by what is shared",
        "Entry by entry of Δ, what several adapters change is told from what one alone does: one "
        "that is no larger than the threshold is not changed, and counts as 0.",
        (RAM, RAMPLUS_TL),
    )
)
