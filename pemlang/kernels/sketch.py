"""The best approximation of a dense matrix of a rank: randomised, checked, and exact where the
matrix is small or the check fails.

A block Krylov method (Musco and Musco 2015, algorithm 2): each round multiplies by the matrix and
its transpose and widens the basis. It settles where singular values lie close together too, which
those of a sparse Δ do; there a subspace iteration would not.
"""

from __future__ import annotations

import math
from typing import TypeAlias

from pemlang.kernels.lowrank import Matrix, triangle
from pemlang.kernels.philox import drawn
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import Array

Merged: TypeAlias = "tuple[Array, Array, Array]"
"""A and B at scale 1; and what a cut to a rank costs: the norm of what is lost, and of all."""

PART = 1 << 18
"""Elements of a matrix that are taken to float64 at a time."""

SMALL = 512
"""Of min(rows, columns): an exact decomposition is quick there."""

TOLERANCE = 1e-3
"""How much more than the least possible the residual ‖x − x_k‖ may be, relative to it."""

ROUNDS = 10

PASSES = 6
"""Over the matrix, forth and back, that it takes as a rule."""


def truncated_svd(x: Array, rank: int, square: float) -> tuple[Matrix, Matrix, Matrix]:
    """U (m, k), σ (k,) and Vᵀ (k, n) of an (m, n) matrix, in float64.

    What the singular values that were found leave out is known exactly, ‖x‖² − Σσ². A round that
    adds little to them, and would if it went on for ever, ends the method.

    Args:
        x, rank: the matrix, and how many singular values are wanted.
        square: ‖x‖².
    """
    k = min(rank, *x.shape)
    width = k + 8
    if min(x.shape) > max(SMALL, 3 * width):
        decomposition = _krylov(x, k, width, square)
        if decomposition is not None:
            return decomposition
    if min(x.shape) > SMALL:
        return _by_gram(x, k)
    u, values, vt = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    return u[:, :k], values[:k], vt[:k]


def _by_gram(x: Array, k: int) -> tuple[Matrix, Matrix, Matrix]:
    """From the eigenvectors of xᵀx or x·xᵀ, whichever is smaller: x·V·Vᵀ, with no copy of x in
    float64. Singular values below 10⁻⁸ of the largest are not resolved; nor do they matter."""
    if x.shape[0] < x.shape[1]:
        v, values, ut = _by_gram(x.T, k)
        return ut.T, values, v.T
    gram = np.zeros((x.shape[1], x.shape[1]))
    for part in np.array_split(x, max(1, x.size // PART)):
        wide = part.astype(np.float64)
        gram += wide.T @ wide
    vectors = np.linalg.eigh(gram)[1][:, : -k - 1 : -1]
    projected = (x @ vectors.astype(x.dtype)).astype(np.float64)
    values = np.linalg.norm(projected, axis=0)
    return projected / np.where(values > 0, values, 1), values, vectors.T


def room(rows: int, columns: int, rank: int, width: int) -> int:
    """The most bytes that truncated_svd takes beside a matrix of numbers of some bytes each."""
    least = min(rows, columns)
    if least <= SMALL:
        return 8 * (4 * rows * columns + 4 * (rows + columns) * least)
    # The bases of all rounds, and copies of them; or a Gram matrix, and what its vectors take.
    bases = min(ROUNDS * (rank + 8), least)
    return max(8 * 5 * (rows + columns) * bases, 8 * 5 * least**2) + width * 8 * PART


def _krylov(x: Array, k: int, width: int, total: float) -> tuple[Matrix, Matrix, Matrix] | None:
    """None where the method does not settle."""
    signs = drawn((x.shape[1], width), 0, x.shape[1] * width) >> 31
    block: Matrix = (1 - 2.0 * signs).reshape(x.shape[1], width)
    left, across = np.empty((x.shape[0], 0)), np.empty((x.shape[1], 0))
    gram: Matrix = np.empty((0, 0))  # of the columns across: the squares of their singular values
    before, gain = 0.0, 0.0
    for _ in range(min(ROUNDS, min(x.shape) // width)):
        new = _beside(left, (x @ block.astype(x.dtype)).astype(np.float64))
        block = (x.T @ new.astype(x.dtype)).astype(np.float64)
        left, across = np.hstack([left, new]), np.hstack([across, block])
        gram = _wider(gram, across.T @ block)
        squares, vectors = (part[..., ::-1] for part in np.linalg.eigh(gram))
        kept = float(np.sum(squares[:k]))
        last, gain = gain, kept - before
        rest = max(total - kept, total * 1e-12)
        # Gains fall at least as a geometric series does: what is to come, if this one goes on so.
        ratio = gain / last if last else 1.0
        if before and ratio < 1 and gain * ratio / (1 - ratio) <= TOLERANCE * rest:
            values, vectors = np.sqrt(np.maximum(squares[:k], 0)), vectors[:, :k]
            right = across @ vectors / np.where(values > 0, values, 1)
            return left @ vectors, values, right.T
        before = kept
    return None


def _beside(basis: Matrix, block: Matrix) -> Matrix:
    """Orthonormal columns of a block that are orthogonal to a basis."""
    for _ in range(2):
        rest: Matrix = block - basis @ (basis.T @ block)
        block = triangle(rest).times(np.eye(rest.shape[1]))
    return block


def _wider(gram: Matrix, columns: Matrix) -> Matrix:
    """A Gram matrix with the products of more columns, those with themselves last."""
    more = columns[len(gram) :]
    return np.block([[gram, columns[: len(gram)]], [columns[: len(gram)].T, (more + more.T) / 2]])


def squared_norm(x: Array) -> float:
    """Σ x² in float64, of a matrix that float64 may have no room for."""
    return float(sum(np.sum(part.astype(np.float64) ** 2) for part in np.array_split(x, 64)))


def best_factors(delta: Array, rank: int) -> Merged:
    """The best factors of a rank by a full decomposition; with zeros where there is no more."""
    u, values, vt = np.linalg.svd(delta, full_matrices=False)
    root, more = np.sqrt(values[:rank]), max(0, rank - len(values))
    a = np.pad(root[:, None] * vt[:rank], ((0, more), (0, 0)))
    b = np.pad(u[:, :rank] * root, ((0, 0), (0, more)))
    return a, b, np.array([np.linalg.norm(values[rank:]), np.linalg.norm(values)])


def cut(x: Array, rank: int, square: float) -> Merged:
    """A dense Δ as factors of a rank; whole where the rank is full, one of them the identity."""
    rows, columns = x.shape
    if rank >= min(rows, columns):
        eye = np.eye(min(rows, columns), dtype=x.dtype)
        return (x, eye, np.zeros(2)) if rows <= columns else (eye, x, np.zeros(2))
    u, values, vt = truncated_svd(x, rank, square)
    root = np.sqrt(values) * np.where(u.max(axis=0) >= -u.min(axis=0), 1.0, -1.0)
    lost = math.sqrt(max(0.0, square - float(np.sum(values**2))))
    return root[:, None] * vt, u * root, np.array([lost, math.sqrt(square)])
