"""The best approximation of a dense matrix of a rank: randomised, checked, and exact where the
matrix is small or the check fails.

Subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4): each round multiplies by the
matrix and its transpose, and the share of the norm that is kept can only grow.
"""

from __future__ import annotations

import numpy as np

from pemlang.kernels.dtypes import Array
from pemlang.kernels.fields import drawn
from pemlang.kernels.lowrank import Matrix

SMALL = 512
"""Of min(rows, columns): an exact decomposition is quick there."""

TOLERANCE = 1e-3
"""How much more than the least possible the residual ‖x − x_k‖ may be, relative to it."""

ROUNDS = 12


def truncated_svd(x: Array, rank: int) -> tuple[Matrix, Matrix, Matrix]:
    """U (m, k), σ (k,) and Vᵀ (k, n) of an (m, n) matrix, in float64.

    What the singular values that were found leave out is known exactly, ‖x‖² − Σσ²; a round that
    adds little to them, and would add little if it went on for ever, ends the iteration.
    """
    k = min(rank, *x.shape)
    width = k + max(10, k // 2)
    if min(x.shape) > max(SMALL, 3 * width):
        found = _randomised(x, k, width)
        if found is not None:
            return found
    u, values, vt = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    return u[:, :k], values[:k], vt[:k]


def _randomised(x: Array, k: int, width: int) -> tuple[Matrix, Matrix, Matrix] | None:
    """None where the iteration does not settle."""
    signs = drawn((x.shape[1], width), 0, x.shape[1] * width) >> 31
    right = (1 - 2.0 * signs).reshape(x.shape[1], width).astype(x.dtype)
    total = float(sum(np.sum(row.astype(np.float64) ** 2) for row in np.array_split(x, 64)))
    before, gain = 0.0, 0.0
    for _ in range(ROUNDS):
        left, core = np.linalg.qr((x @ right).astype(np.float64))
        u, values, wt = np.linalg.svd(core)
        kept = float(np.sum(values[:k] ** 2))
        last, gain = gain, kept - before
        rest = max(total - kept, total * 1e-14)
        # Gains fall as a geometric series does: what is still to come, if this one goes on so.
        ratio = gain / last if last else 1.0
        if before and ratio < 1 and gain * ratio / (1 - ratio) <= TOLERANCE * rest:
            vt = wt[:k] @ right.T.astype(np.float64)
            return left @ u[:, :k], values[:k], vt
        before = kept
        right = np.linalg.qr((x.T @ left.astype(x.dtype)).astype(np.float64))[0].astype(x.dtype)
    return None
