"""Low-rank linear algebra on factors in float64; no dense Δ is ever formed.

Δ = s·B·A with B = Q_B·R_B and Aᵀ = Q_A·R_A has the singular values of the small core
C = s·R_B·R_Aᵀ, and its singular vectors through Q_B and Q_A. R comes from the Gram matrix of a
factor where that is accurate enough, and from a QR decomposition where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pemlang.dataclass import dataclass
from pemlang.failures import TooLarge
from pemlang.kernels.algebra import NUMPY, Algebra, Matrix
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import Array

MAX_CONDITION = 1e4
"""Of a factor with columns of norm 1. A Gram matrix squares it, and R, with it the core, has a
relative error of about ε·κ²: 2·10⁻⁸ here, under float32's rounding."""


@contextmanager
def finite() -> Iterator[None]:
    """Numbers stay finite, so that no later step meets infinity or NaN; raises TooLarge."""
    try:
        with np.errstate(over="raise"):
            yield
    except (FloatingPointError, np.linalg.LinAlgError):
        raise TooLarge(None) from None


@dataclass(frozen=True, slots=True)
class LowRank:
    """Δ = scale·B·A of one site, by its factors.

    Attributes:
        a: (r, in), or (r, in, k, …) of a convolution.
        b: (out, r), or (out, r, 1, …).
        scale: s.
    """

    a: Array
    b: Array
    scale: float = 1.0


def flat(part: LowRank) -> tuple[Array, Array]:
    """B (out, r) without the scale, and A (r, in), flattened."""
    rank = part.a.shape[0]
    return part.b.reshape(part.b.shape[0], rank), part.a.reshape(rank, -1)


def matrices(part: LowRank) -> tuple[Matrix, Matrix]:
    """The same in float64."""
    b, a = flat(part)
    return b.astype(np.float64, copy=False), a.astype(np.float64, copy=False)


@dataclass(frozen=True, slots=True)
class Triangle:
    """x = Q·R of a tall matrix, without Q unless it had to be formed.

    Attributes:
        x: the matrix; Q where that had to be formed.
        r: R.
        inverse: R⁻¹ where Q was not formed.
        algebra: what multiplies.
        columns: how many Q has.
    """

    x: Array
    r: Matrix
    inverse: Matrix | None
    algebra: Algebra

    @property
    def columns(self) -> int:
        return len(self.r)

    def times(self, y: Matrix) -> Matrix:
        """Q·y."""
        return self.algebra.times(self.x, y if self.inverse is None else self.inverse @ y)

    def across(self, y: Matrix) -> Matrix:
        """y·Qᵀ, its rows one after the other in memory."""
        return self.algebra.across(y if self.inverse is None else y @ self.inverse.T, self.x)


def triangle(x: Array, algebra: Algebra = NUMPY) -> Triangle:
    """Q and R of an (n, r) matrix of float32 or float64.

    From the Cholesky factor of xᵀx (r·n·r operations in one matrix product) where the condition
    number, which that squares, allows it; else by Householder QR. Columns are brought to norm 1
    first, which costs nothing and leaves R exact in its scales.
    """
    gram = algebra.gram(x) if x.shape[0] >= x.shape[1] else np.zeros((1, 1))
    squares = np.diagonal(gram)
    if (squares > 1e-280).all() and (squares < 1e280).all():
        size = np.sqrt(squares)
        made = algebra.cholesky(gram / (size[:, None] * size))
        if made is not None:  # else columns depend on each other
            r, inverse = made
            if np.linalg.norm(r) * np.linalg.norm(inverse) <= MAX_CONDITION:
                return Triangle(x, r * size, inverse / size[:, None], algebra)
    q, r = np.linalg.qr(x.astype(np.float64, copy=False))
    return Triangle(q, r, None, algebra)


def core(part: LowRank, algebra: Algebra = NUMPY) -> Matrix:
    """The core s·R_B·R_Aᵀ: at most r×r, with the singular values and the norm of Δ."""
    b, a = flat(part)
    product: Matrix = part.scale * (triangle(b, algebra).r @ triangle(a.T, algebra).r.T)
    return product


def singular_values(part: LowRank) -> Matrix:
    """The min(r, out, in) largest singular values of Δ, falling; raises TooLarge."""
    product = core(part)
    if not np.isfinite(product).all():  # of which LAPACK complains on the terminal
        raise TooLarge(None)
    return np.asarray(np.linalg.svd(product, compute_uv=False), dtype=np.float64)


def numerical_rank(part: LowRank) -> int:
    """How many singular values of Δ stand above rounding, σᵢ > σ₁·max(out, in)·ε, with ε that of
    the dtype the factors came in."""
    values = singular_values(part)
    size = max(part.b.shape[0], part.a[0].size)
    floor = values.max(initial=0.0) * size * float(np.finfo(part.a.dtype).eps)
    return int((values > floor).sum())


def norm(part: LowRank, algebra: Algebra = NUMPY) -> float:
    """‖Δ‖ (Frobenius)."""
    return float(np.linalg.norm(core(part, algebra)))


def inner(left: LowRank, right: LowRank) -> float:
    """⟨Δ₁, Δ₂⟩."""
    return float(inner_of_all([left, right])[0, 1])


def inner_of_all(parts: Sequence[LowRank], algebra: Algebra = NUMPY) -> Matrix:
    """⟨Δᵢ, Δⱼ⟩ of all pairs, from the cores of all over common bases; pair by pair where those
    would be larger than the factors.

    Σ (BᵢᵀBⱼ) ∘ (AᵢAⱼᵀ) is cheaper, and squares what is lost where the terms of a Δ cancel.
    """
    pairs = [flat(part) for part in parts]
    rows, columns, ranks = len(pairs[0][0]), pairs[0][1].shape[1], sum(len(a) for _, a in pairs)
    core_size = min(rows, ranks) * min(columns, ranks)
    if len(parts) > 2 and len(parts) * core_size > (rows + columns) * ranks:
        return _pair_by_pair(parts, algebra)
    r_b = triangle(np.hstack([b for b, _ in pairs]), algebra).r
    r_a = triangle(np.vstack([a for _, a in pairs]).T, algebra).r
    ends = np.cumsum([len(a) for _, a in pairs])[:-1]
    cores: Matrix = np.empty((len(parts), len(r_b), len(r_a)))
    sides = zip(np.split(r_b, ends, axis=1), np.split(r_a, ends, axis=1), strict=True)
    for core_of, part, (b, a) in zip(cores, parts, sides, strict=True):
        np.multiply(b @ a.T, part.scale, out=core_of)
    whole = cores.reshape(len(parts), -1)
    return whole @ whole.T


def _pair_by_pair(parts: Sequence[LowRank], algebra: Algebra) -> Matrix:
    gram: Matrix = np.empty((len(parts), len(parts)))
    for i, part in enumerate(parts):
        gram[i, i] = norm(part, algebra) ** 2
        for j, other in enumerate(parts[:i]):
            gram[i, j] = gram[j, i] = inner_of_all([part, other], algebra)[0, 1]
    return gram


def difference(old: LowRank, new: LowRank) -> tuple[Matrix, Matrix, Matrix]:
    """Cores of Δ₁, Δ₂ and Δ₂ − Δ₁ over common orthonormal bases.

    With s in B and both of one rank, by zeros, Δ₂ − Δ₁ = (B₂ − B₁)·A₂ + B₁·(A₂ − A₁). Subtracting
    factors first leaves a small difference its digits, and none at all exactly 0; Householder QR,
    unlike a Gram matrix, keeps the digits of each column, however small beside the others.
    """
    (b1, a1), (b2, a2) = (matrices(part) for part in (old, new))
    rank = max(len(a1), len(a2))
    b1, b2, b_change = _over_one_basis(_wide(b1 * old.scale, rank), _wide(b2 * new.scale, rank))
    a1, a2, a_change = _over_one_basis(_wide(a1.T, rank), _wide(a2.T, rank))
    change = b_change @ a2.T + b1 @ a_change.T
    before = b1 @ a1.T
    return before, b2 @ a2.T if change.any() else before, change


def _over_one_basis(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """x, y and y − x, tall, as coordinates over orthonormal columns that span them."""
    r = np.asarray(np.linalg.qr(np.hstack([x, y, y - x]), mode="r"), dtype=np.float64)
    first, second, third = np.hsplit(r, 3)
    return first, second, third


def _wide(x: Matrix, rank: int) -> Matrix:
    """x with columns of zeros up to a rank."""
    return np.hstack([x, np.zeros((len(x), rank - x.shape[1]))])


def overlap(left: Array, right: Array) -> float:
    """How alike the row spaces of two A are: ‖Q₁ᵀQ₂‖²/min(r₁, r₂), 1 for one inside the other.

    Q₁ᵀQ₂ = R₁⁻ᵀ·(A₁A₂ᵀ)·R₂⁻¹ needs no Q where both R are well conditioned.
    """
    rows = [a.reshape(a.shape[0], -1).astype(np.float64) for a in (left, right)]
    first, second = (triangle(a.T) for a in rows)
    if first.inverse is not None and second.inverse is not None:
        shared = first.inverse.T @ (rows[0] @ rows[1].T) @ second.inverse
        return float(np.sum(shared**2) / min(len(a) for a in rows))
    bases = [_basis(qr) for qr in (first, second)]
    least = min(q.shape[1] for q in bases)
    if least == 0:
        return 0.0
    return float(np.sum((bases[0].T @ bases[1]) ** 2) / least)


def _basis(qr: Triangle) -> Matrix:
    """Orthonormal columns that span x: rows that depend on others add no direction."""
    u, sizes, _ = np.linalg.svd(qr.r)
    largest = max(1e-300, float(sizes.max(initial=0.0)))
    return qr.times(u[:, sizes > 1e-10 * largest])


def rank_for_energy(values: Matrix, energy: float) -> int:
    """The fewest singular values that keep a share of Σσ²; at least 1."""
    squares = values**2
    total = float(squares.sum())
    if total == 0:
        return 1
    kept = np.cumsum(squares) >= energy * total * (1 - 1e-12)
    return int(np.argmax(kept)) + 1 if kept.any() else len(values)


@finite()
def truncate(part: LowRank, rank: int, algebra: Algebra = NUMPY) -> tuple[Matrix, Matrix, Matrix]:
    """The best approximation of Δ of a rank: its A and B at the same scale, and what it costs, the
    Frobenius norms of what is cut off and of Δ.

    Optimal in the Frobenius norm (Eckart and Young 1936). The factors share the singular values
    evenly, B' = U√Σ/s and A' = √ΣVᵀ; the sign of each pair makes the largest entry of the
    column of U positive, so that the result does not depend on the solver.
    """
    b, a = flat(part)
    left_of, right_of = triangle(b, algebra), triangle(a.T, algebra)
    u, values, vt = np.linalg.svd(part.scale * (left_of.r @ right_of.r.T))
    rank = min(rank, len(values))
    left, right = left_of.times(u[:, :rank]), right_of.across(vt[:rank])
    root = column_signs(left) * np.sqrt(values[:rank])
    left *= root / part.scale if part.scale else 0.0 * root
    right *= root[:, None]
    cost = np.array([np.linalg.norm(values[rank:]), np.linalg.norm(values)])
    return (
        right.reshape(rank, *part.a.shape[1:]),
        left.reshape(part.b.shape[0], rank, *part.b.shape[2:]),
        cost,
    )


def column_signs(x: Matrix) -> Matrix:
    """The sign of the largest number of each column: 1 or −1."""
    return np.where(_down(np.max, x) >= -_down(np.min, x), 1.0, -1.0)


def _down(extreme: Callable[..., Matrix], x: Matrix) -> Matrix:
    """The extreme number of each column; many short rows at a time, which NumPy takes as one."""
    rows, columns = x.shape
    if rows == 0 or columns == 0:
        return np.zeros(columns)
    many = rows - rows % _ROWS
    blocks = extreme(x[:many].reshape(-1, _ROWS * columns), axis=0) if many else x[:0]
    return extreme(np.vstack([blocks.reshape(-1, columns), x[many:]]), axis=0)


_ROWS = 64
