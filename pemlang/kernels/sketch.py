"""The best approximation of a dense matrix of a rank: randomised, checked, and exact where the
matrix is small or the check fails.

A matrix of a medium size goes through its Gram matrix, which costs less than the passes over the
matrix that it saves: subspace iteration, filtered by Chebyshev polynomials (Zhou, Saad, Tiago and
Chelikowsky 2006). What stands out too far for that, what is large, and what is near a matrix that
is known goes through a block Krylov method (Musco and Musco 2015, algorithm 2): each round
multiplies by the matrix and its transpose and widens the basis. Both settle where singular values
lie close together too, which those of a task vector and of a sparse Δ do; there a plain subspace
iteration would not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from pemlang.kernels.algebra import NUMPY, Algebra, Matrix
from pemlang.kernels.lowrank import column_signs, triangle
from pemlang.kernels.philox import drawn
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import Array

Merged: TypeAlias = "tuple[Array, Array, Array]"
"""A and B at scale 1; and what a cut to a rank costs: the norm of what is lost, and of all."""

Factors: TypeAlias = "Sequence[tuple[Array, Array]]"
"""Pairs A (r, n) and B (m, r), whose products B·A are summed up."""

PART = 1 << 18
"""Elements of a matrix that are taken to float64 at a time."""

ROWS, COLUMNS = 256, 512
"""Rows of a matrix, or columns, that are multiplied at a time."""

SMALL = 512
"""Of min(rows, columns): an exact decomposition is quick there."""

MEDIUM = 1024
"""Of min(rows, columns): the Gram matrix stays in a cache there, and an exact decomposition is at
hand where a method does not settle."""

FILTERED = 128
"""Of min(rows, columns): an exact decomposition is quicker below."""

TOLERANCE = 1e-3
"""How much more than the least possible the residual ‖x − x_k‖ may be, relative to it."""

PRECISE = 1e-7
"""The same of a matrix up to a medium size in float32, of which no near one is known."""

STAGES = 8
"""Filters, one after the other. Two or three do, but where a few singular values stand out far."""

DEGREE = 16
"""The most of a filter."""

GROWTH = math.log(1e4)
"""How much more a filter may stretch the first direction than the last that is wanted: rounding
of float32 in the first stays below the last."""

DRAWN = 4
"""Columns of a start that are drawn at random alone, so that what stands out in no other shows."""

UNKNOWN = 0.01
"""The share of the other columns that is drawn. What only that part finds grows a hundredfold in
the round after, far above the rounding of float32, and no round settles while it does."""

_HALF = 0.5
"""The least that is left of a column of norm 1, squared, where more than rounding is."""

ROUNDS = 10

PASSES = 4
"""Over the matrix, forth and back, that it takes as a rule where it is told what is near."""


def truncated_svd(
    x: Array, rank: int, square: float, near: Factors = (), algebra: Algebra = NUMPY
) -> tuple[Array, Matrix, Array]:
    """U (m, k), σ (k,) and Vᵀ (k, n) of an (m, n) matrix, in the precision of it or in float64.

    What the singular values that were found leave out is known exactly, ‖x‖² − Σσ². A round that
    adds little to them, and would if it went on for ever, ends the method.

    Args:
        x, rank: the matrix, of float32 or float64, and how many singular values are wanted.
        square: ‖x‖².
        near: a matrix that is near it, if there is one: its right vectors save a round.
        algebra: what multiplies tall matrices.
    """
    k, least = min(rank, *x.shape), min(x.shape)
    narrow, width = x.dtype == np.float32, k + 8
    precise = narrow and not near and least <= MEDIUM
    if precise and least >= max(FILTERED, 4 * _filtered_width(k)):
        decomposition = _filtered(x, k, square, algebra)
        if decomposition is not None:
            return decomposition
    if least > max(SMALL, 3 * width):
        start = _start(x.shape, width, near, algebra).astype(x.dtype, copy=False)
        tolerance = PRECISE if precise else TOLERANCE
        decomposition = _krylov(x, k, square, start, tolerance, algebra)
        if decomposition is not None:
            return decomposition
    if least > SMALL or narrow:
        return _by_gram(x, k)
    u, values, vt = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    return u[:, :k], values[:k], vt[:k]


def _start(shape: tuple[int, int], width: int, near: Factors, algebra: Algebra) -> Array:
    """Some right vectors to start from."""
    if not near:
        return _signs(shape[1], width)
    known = _orthonormal(_right_of(near, _signs(shape[0], width - DRAWN), algebra), algebra)
    # It may know nothing of some directions: a few columns are drawn alone, and a little of them
    # all.
    start = _signs(shape[1], width, 1 / math.sqrt(shape[1]))
    start[:, :-DRAWN] = known + UNKNOWN * start[:, :-DRAWN]
    return start


def _signs(rows: int, columns: int, size: float = 1.0) -> Array:
    """Numbers of one size in float32, with signs that are drawn."""
    highest = drawn((rows, columns), 0, rows * columns).view(np.int32) < 0
    return np.where(highest, np.float32(-size), np.float32(size)).reshape(rows, columns)


def _right_of(near: Factors, block: Array, algebra: Algebra) -> Array:
    """About the leading right vectors of a sum of products, from columns that are drawn."""

    def across(x: Array) -> Array:
        return np.asarray(sum(a.T @ (b.T @ x.astype(b.dtype, copy=False)) for a, b in near))

    block = _orthonormal(across(block), algebra)
    return across(np.asarray(sum(b @ (a @ block) for a, b in near)))


def _by_gram(x: Array, k: int) -> tuple[Matrix, Matrix, Matrix]:
    """From the eigenvectors of xᵀx or x·xᵀ, whichever is smaller: x·V·Vᵀ, of a large matrix with no
    copy of it in float64. Singular values below 10⁻⁸ of the largest are not resolved; nor do they
    matter."""
    if x.shape[0] < x.shape[1]:
        v, values, ut = _by_gram(x.T, k)
        return ut.T, values, v.T
    gram = np.zeros((x.shape[1], x.shape[1]))
    for part in np.array_split(x, max(1, x.size // PART)):
        wide = part.astype(np.float64)
        gram += wide.T @ wide
    vectors = np.linalg.eigh(gram)[1][:, : -k - 1 : -1]
    precision = x.dtype if len(gram) > SMALL else np.float64
    projected = (x @ vectors.astype(precision)).astype(np.float64, copy=False)
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


def room_of_part(rows: int, columns: int, rank: int) -> int:
    """The most bytes that a thread takes which does some rows at a time of truncated_svd."""
    bases = min(ROUNDS * (rank + 8), rows, columns)
    return 8 * max(2 * ROWS * bases, COLUMNS * (rank + 8))


def _filtered_width(k: int) -> int:
    """Directions that are looked for: the more there are beside those wanted, the better a filter
    tells these from all others."""
    return k + max(8, k // 2)


def _filtered(
    x: Array, k: int, total: float, algebra: Algebra
) -> tuple[Array, Matrix, Array] | None:
    """From the leading right vectors V of the smaller side: x·V·Vᵀ. None where they do not
    settle in float32."""
    if x.shape[0] < x.shape[1]:
        turned = _filtered(x.T, k, total, algebra)
        return turned and (turned[2].T, turned[1], turned[0].T)
    if not _LEAST < total < _MOST:
        return None
    vectors = _leading(x.T @ x, k, total, algebra)
    if vectors is None:
        return None
    projected = _product(x, vectors, algebra)
    values = np.sqrt(np.sum(projected.astype(np.float64) ** 2, axis=0))
    return (projected / np.where(values > 0, values, 1)).astype(x.dtype), values, vectors.T


_LEAST, _MOST = 1e-24, 1e30
"""Of ‖x‖²: a Gram matrix in float32 has room for its entries, and for what they are made of."""


def _leading(gram: Array, k: int, total: float, algebra: Algebra) -> Array | None:
    """The leading eigenvectors of a Gram matrix (n, n) whose trace is given, (n, k).

    A stage is a polynomial of the matrix, applied to some directions, and the best approximation
    of eigenvectors V, eigenvalues θ among what comes out. Eigenvalues below the last of those
    directions are what the polynomial keeps small. What V lacks of the leading Σθ is about
    Σ ‖gram·vᵢ − θᵢvᵢ‖²/(θᵢ − θ_last) (Kato 1949), and that ends the method.
    """
    block = _orthonormal(gram @ _signs(len(gram), _filtered_width(k)), algebra)
    before = math.inf
    for _ in range(STAGES):
        image = gram @ block
        inner = block.T.astype(np.float64) @ image.astype(np.float64)
        values, turn = (part[..., ::-1] for part in np.linalg.eigh(inner))
        turn = np.ascontiguousarray(turn, dtype=block.dtype)
        block, image = block @ turn, image @ turn
        cut = float(values[-1])
        if not 0 < cut < values[k - 1]:
            return None
        off = image[:, :k] - block[:, :k] * values[:k].astype(block.dtype)
        missing = float(np.sum(np.sum(off.astype(np.float64) ** 2, axis=0) / (values[:k] - cut)))
        allowed = 2 * PRECISE * (total - float(np.sum(values[:k])))
        if missing <= allowed:
            return np.ascontiguousarray(block[:, :k])
        if not missing < _HALF * before:
            return None  # rounding is as large as what is looked for
        before = missing
        first, last = (math.acosh(2 * float(values[i]) / cut - 1) for i in (0, k - 1))
        enough = math.log(missing / max(allowed, missing * PRECISE)) / (2 * last)
        degree = min(math.ceil(enough) + 1, DEGREE, int(GROWTH / max(first - last, _LEAST)))
        block = _orthonormal(_chebyshev(gram, block, image, cut, max(1, degree)), algebra)
    return None


def _chebyshev(gram: Array, block: Array, image: Array, cut: float, degree: int) -> Array:
    """T_degree(2·gram/cut − 1)·block, where image = gram·block: within ±1 for the eigenvalues of
    0 to cut, and growing fast above."""
    new = image * (2 / cut) - block
    for _ in range(degree - 1):
        image = gram @ new
        image *= 4 / cut
        image -= block
        image -= new
        image -= new
        block, new = new, image
    return new


def _krylov(
    x: Array, k: int, total: float, block: Array, tolerance: float, algebra: Algebra
) -> tuple[Array, Matrix, Array] | None:
    """From some right vectors, which are no longer needed. None where the method does not settle.

    A round is two half steps. From the leading right vectors V that are known the first finds x·V,
    and what of that is new widens the basis on the left; the second finds what the basis gives on
    the right, and V anew. What they add to Σσ² falls about as a geometric series does: from half
    step to half step where directions stand out, from round to round where they do not.
    """
    left: list[Array] = []
    across: list[Array] = []
    gram: Matrix = np.empty((0, 0))  # of the columns across: its eigenvalues are the squares of σ
    width, kept, rounding = block.shape[1], 0.0, 100 * float(np.finfo(x.dtype).eps) ** 2
    gains: list[float] = []
    block = _orthonormal(block, algebra)
    for turn in range(min(ROUNDS, min(x.shape) // width)):
        block = _outside(left, _product(x, block, algebra), algebra)
        first = squared_norm(block[:, :k])
        block = _new(left, block, algebra)
        left.append(block)
        across.append(_product_across(x, block, algebra))
        gram = _wider(gram, np.vstack([_inner(columns, across[-1], algebra) for columns in across]))
        squares, vectors = (part[..., : -width - 1 : -1] for part in np.linalg.eigh(gram))
        before, kept = kept, float(np.sum(squares[:k]))
        if kept > total * (1 + TOLERANCE):
            return None  # directions were counted twice
        second = kept - before - first
        values = np.sqrt(np.maximum(squares, 0))
        scaled = vectors / np.where(values > 0, values, 1)
        gains.append(first + second)
        to_come = _to_come(first, second)  # if half steps, or rounds, go on so
        if turn > 2:  # neither of the two is the start's own
            to_come = min(to_come, _to_come(*gains[-2:]))
        if turn and (to_come <= tolerance * (total - kept) or gains[-1] <= rounding * total):
            u, v = _mixed(left, vectors[:, :k], algebra), _mixed(across, scaled[:, :k], algebra)
            return u, values[:k], v.T
        block = _mixed(across, scaled, algebra)
    return None


def _to_come(before: float, last: float) -> float:
    """All that is to come of a geometric series, by two of its terms."""
    return last * last / (before - last) if before > last else math.inf


def _new(left: Sequence[Array], block: Array, algebra: Algebra) -> Array:
    """Orthonormal columns for what a basis lacks of some that are orthogonal to it but for
    rounding. Of a column that is rounding alone the basis has all: nothing comes of it."""
    block = _outside(left, _orthonormal(block, algebra), algebra)
    sizes = sum(np.sum(block[rows].astype(np.float64) ** 2, axis=0) for rows in _parts(block))
    new = sizes > _HALF
    if not new.all():
        block = np.ascontiguousarray(block[:, new])
    return _orthonormal(block, algebra)


# Tall matrices are in the precision of x, and taken to float64 some rows at a time.


def _parts(x: Array) -> list[slice]:
    return [slice(first, first + ROWS) for first in range(0, len(x), ROWS)]


def _product(x: Array, y: Array, algebra: Algebra) -> Array:
    """x·y. Linear algebra packs what it is given, and keeps the memory that takes."""
    product: Array = np.empty((len(x), y.shape[1]), x.dtype)

    def some(rows: slice) -> None:
        np.matmul(x[rows], y, out=product[rows])

    algebra.each(some, _parts(x))
    return product


def _product_across(x: Array, y: Array, algebra: Algebra) -> Array:
    """xᵀy, in the order in which rows of x lie: (yᵀx)ᵀ."""
    product: Array = np.empty((x.shape[1], y.shape[1]), x.dtype)

    def some(first: int) -> None:
        product[first : first + COLUMNS] = (y.T @ x[:, first : first + COLUMNS]).T

    algebra.each(some, range(0, x.shape[1], COLUMNS))
    return product


def _inner(x: Array, y: Array, algebra: Algebra) -> Matrix:
    """xᵀy, with sums in float64."""
    parts = _parts(x)
    products: Matrix = np.empty((len(parts), x.shape[1], y.shape[1]))

    def some(number: int) -> None:
        left, right = (z[parts[number]].astype(np.float64) for z in (x, y))
        np.matmul(left.T, right, out=products[number])

    algebra.each(some, range(len(parts)))
    total: Matrix = np.zeros(products.shape[1:])
    for product in products:
        total += product
    return total


def _outside(basis: Sequence[Array], x: Array, algebra: Algebra) -> Array:
    """What of some columns is orthogonal to a basis, given in parts. It takes their place."""
    for part in basis:
        inside = _inner(part, x, algebra)

        def some(rows: slice, part: Array = part, inside: Matrix = inside) -> None:
            x[rows] -= part[rows].astype(np.float64) @ inside

        algebra.each(some, _parts(x))
    return x


def _mixed(parts: Sequence[Array], numbers: Matrix, algebra: Algebra) -> Array:
    """The columns of some matrices, which stand side by side, times a matrix."""
    mixed: Array = np.empty((len(parts[0]), numbers.shape[1]), parts[0].dtype)

    def some(rows: slice) -> None:
        mixed[rows] = np.hstack([part[rows] for part in parts]).astype(np.float64) @ numbers

    algebra.each(some, _parts(mixed))
    return mixed


def _orthonormal(x: Array, algebra: Algebra) -> Array:
    """Orthonormal columns that span those of a tall matrix. They may take its place."""
    tall = triangle(x, algebra)
    inverse = tall.inverse
    if inverse is None:
        return tall.x.astype(x.dtype)

    def some(rows: slice) -> None:
        x[rows] = x[rows].astype(np.float64) @ inverse

    algebra.each(some, _parts(x))
    return x


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


def cut(x: Array, rank: int, square: float, near: Factors = (), algebra: Algebra = NUMPY) -> Merged:
    """A dense Δ as factors of a rank; whole where the rank is full, one of them the identity. The
    rest as truncated_svd says."""
    rows, columns = x.shape
    if rank >= min(rows, columns):
        eye = np.eye(min(rows, columns), dtype=x.dtype)
        return (x, eye, np.zeros(2)) if rows <= columns else (eye, x, np.zeros(2))
    u, values, vt = truncated_svd(x, rank, square, near, algebra)
    root = np.sqrt(values) * column_signs(u)
    u *= root
    vt *= root[:, None]
    lost = math.sqrt(max(0.0, square - float(np.sum(values**2))))
    return vt, u, np.array([lost, math.sqrt(square)])
