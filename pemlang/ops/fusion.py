"""`arcee_fusion`: the entries in which a fine-tune differs most from its base, by how much its row
does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.kernels.methods import MergeSettings, SiteKernel, as_rows, flat_columns, flat_rows
from pemlang.kernels.sketch import cut, room, squared_norm
from pemlang.lazy import numpy as np
from pemlang.ops.merge import PAIR, RANK, MergeMethod, merge_operator
from pemlang.ops.record import Section, register

if TYPE_CHECKING:
    from pemlang.kernels.algebra import Matrix, StoredTensor
    from pemlang.kernels.lowrank import LowRank
    from pemlang.kernels.sketch import Merged
    from pemlang.kernels.step import Dense
    from pemlang.tensorfiles.dtypes import Array

EPSILON = 1e-8
"""Added to the share of every entry of a row, as in mergekit."""

BLOCK = 1 << 18
"""Entries whose importance is found at a time."""


@dataclass(frozen=True, eq=False)
class Fusion(SiteKernel):
    """x, with the entries of y that matter most."""

    def of_tensors(self, xs: Sequence[StoredTensor], s: MergeSettings) -> Array:
        """See SiteKernel."""
        x, y = (as_rows(each.whole()) for each in xs)
        return _fused(x, y).reshape(xs[0].shape)

    def of_factors(self, parts: Sequence[LowRank], s: MergeSettings) -> Merged:
        """See SiteKernel."""
        x, y = (flat_columns(part) @ flat_rows(part) for part in parts)
        whole = _fused(x, y)
        return cut(whole, s.rank, squared_norm(whole), algebra=s.algebra)

    def workspace(self, rows: int, columns: int, ranks: int, s: MergeSettings) -> int:
        """See SiteKernel."""
        entries = 5 * rows * columns + 8 * max(BLOCK, columns)
        return 8 * entries + (room(rows, columns, s.rank, 8) if ranks else 0)


def _fused(x: Matrix, y: Matrix) -> Matrix:
    """x, with the entries of y that matter most."""
    importance: Matrix = np.empty(x.shape)
    step = max(1, BLOCK // max(1, x.shape[1]))
    for first in range(0, len(x), step):
        rows = slice(first, first + step)
        importance[rows] = np.abs(y[rows] - x[rows]) * _divergence(y[rows], x[rows])
    return np.where(importance >= _threshold(importance), y, x)


def _shares(x: Matrix) -> Matrix:
    """Of each entry of a row, e^x over the sum of all, and a little more."""
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True) + EPSILON)


def _divergence(x: Matrix, y: Matrix) -> Matrix:
    """Σ p·ln(p/q) of the shares p and q of each row, (rows, 1). Both have one sum, so that it is
    Σ q·((1 + u)·ln(1 + u) − u) with u = p/q − 1: no term is less than 0, and none cancels another
    where the rows are nearly alike."""
    p, q = _shares(x), _shares(y)
    u = (p - q) / q
    terms = q * ((1 + u) * np.log1p(u) - u)
    return np.asarray(np.maximum(terms, 0).sum(axis=1, keepdims=True))


def _threshold(importance: Matrix) -> float:
    """The median plus 1.5 times the distance of the quartiles; a quantile is the number at
    ⌊share·(n − 1)⌋ of all n from the smallest on."""
    places = [int(share * (importance.size - 1)) for share in (0.25, 0.5, 0.75)]
    lower, median, upper = np.partition(importance, places, axis=None)[places]
    return float(median + 1.5 * (upper - lower))


def _reference(xs: Sequence[Dense], **_: object) -> Dense:
    """Written apart from the above, as mergekit's formula stands."""
    one_row = max(xs[0].shape) == xs[0].size
    base, tuned = (x.reshape(1 if one_row else len(x), -1) for x in xs)
    scores = []
    for q_row, p_row in zip(base, tuned, strict=True):
        p, q = (np.exp(row) / np.exp(row).sum() + 1e-8 for row in (p_row, q_row))
        scores.append(np.abs(p_row - q_row) * np.sum(p * np.log(p / q)))
    order = np.sort(np.stack(scores), axis=None)
    lower, median, upper = (order[int(share * (order.size - 1))] for share in (0.25, 0.5, 0.75))
    important = np.stack(scores) >= median + 1.5 * (upper - lower)
    return np.asarray((base + (tuned - base) * important).reshape(xs[0].shape))


ARCEE_FUSION = merge_operator(
    MergeMethod("arcee_fusion", Fusion(_reference)),
    RANK,
    takes=PAIR,
    points=True,
    summary="The first, with the entries of the second that differ most from it, in rows that "
    "differ most.",
    formula="y where |y − x|·KL(softmax of the row of y ‖ that of x) is at least the median + "
    "1.5·(upper − lower quartile) over the tensor, else x",
    laws=("arcee_fusion(x, x) = x",),
    source="mergekit `arcee_fusion`, whose base is x; above a million entries that has quartiles "
    "of a million drawn by chance, and here they are those of all",
    rank="what rank= says, full for min(out, in)",
)

register(
    Section(
        "Merges by importance",
        "Of two models, or two adapters, those entries of the second that matter. A row is what "
        "stands at one place of the first axis; a vector is one row.",
        (ARCEE_FUSION,),
    )
)
