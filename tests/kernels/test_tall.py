"""Native arithmetic on whole arrays: products of tall matrices, held to NumPy's in any layout, and
bit by bit to one order; and narrow floats taken to wide ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from pemlang.execute import NATIVE
from pemlang.kernels import NUMPY, NotFinite
from pemlang.tensorfiles import decoded, stored_dtype

SHAPES = [
    (1, 1, 1),
    (5, 3, 2),
    (8, 8, 8),
    (33, 17, 5),
    (1000, 37, 11),
    (4099, 64, 64),
    (70, 700, 9),
]
Any2D = NDArray[np.floating]


def laid_out(x: Any2D) -> dict[str, Any2D]:
    """The same matrix as it may lie in memory."""
    rows, columns = x.shape
    wide = np.full((rows + 2, columns + 3), np.nan, x.dtype)
    wide[1:-1, 2:-1] = x
    tall = np.full((columns + 2, rows + 3), np.nan, x.dtype)
    tall[1:-1, 2:-1] = x.T
    return {
        "rows": np.ascontiguousarray(x),
        "columns": np.asfortranarray(x),
        "part of rows": wide[1:-1, 2:-1],
        "part of columns": tall[1:-1, 2:-1].T,
        "every other": np.repeat(x, 2, axis=1)[:, ::2],
        "backwards": np.ascontiguousarray(x[::-1])[::-1],
    }


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_numpys(shape: tuple[int, int, int], dtype: str) -> None:
    n, r, k = shape
    random = np.random.default_rng(n)
    dense = random.standard_normal((n, r)).astype(dtype)
    wide, y = dense.astype("f8"), random.standard_normal((r, k))
    size = 1e-13 * n * r
    for name, x in laid_out(dense).items():
        np.testing.assert_allclose(NATIVE.gram(x), wide.T @ wide, atol=size, err_msg=name)
        np.testing.assert_allclose(NATIVE.times(x, y), wide @ y, atol=size, err_msg=name)
        across = NATIVE.across(y.T, x)
        np.testing.assert_allclose(across, (wide @ y).T, atol=size, err_msg=name)
        assert n == 1 or across.strides[1] == 8


def summed(terms: list[tuple[float, float]]) -> float:
    """A sum of products in their order, each rounded once."""
    total = 0.0
    for x, y in terms:
        exact = [x * y, total]  # whole numbers, which a float holds exactly until they are added
        total = math.fsum(exact)
    return total


def test_every_number_is_summed_up_in_order() -> None:
    """On numbers whose products are exact, with one rounding a term; Dekker's halves would differ
    in any other order."""
    random = np.random.default_rng(2)
    n, r = 300, 6
    x = random.integers(-(1 << 26), 1 << 26, (n, r)) * 2.0 ** random.integers(0, 40, (n, 1))
    gram = NATIVE.gram(x)
    for i in range(r):
        for j in range(r):
            assert gram[i, j] == summed([(float(a), float(b)) for a, b in x[:, [i, j]]])
    y = random.integers(-(1 << 26), 1 << 26, (r, 2)).astype("f8")
    product = NATIVE.times(x, y)
    turned = NATIVE.across(y.T, np.asfortranarray(x))
    for i in range(n):
        terms = [(float(a), float(b)) for a, b in zip(x[i], y[:, 0], strict=True)]
        assert product[i, 0] == turned[0, i] == summed(terms)


def test_nothing_is_a_matrix_too() -> None:
    empty = np.zeros((0, 3))
    assert np.array_equal(NATIVE.gram(empty), np.zeros((3, 3)))
    assert NATIVE.times(empty, np.zeros((3, 2))).shape == (0, 2)
    assert NATIVE.gram(np.zeros((4, 0))).shape == (0, 0)
    assert np.array_equal(NATIVE.times(np.zeros((4, 0)), np.zeros((0, 2))), np.zeros((4, 2)))
    assert NATIVE.across(np.zeros((2, 3)), empty).shape == (2, 0)


def test_what_is_not_finite_shows() -> None:
    x = np.ones((20, 3))
    x[7, 1] = np.inf
    assert not np.isfinite(NATIVE.gram(x)[1]).any()
    assert not np.isfinite(NATIVE.times(x, np.ones((3, 1)))[7]).any()


@pytest.mark.parametrize("work", ["F32", "F64"])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F8_E4M3", "F8_E5M2"])
def test_narrow_floats_are_widened_as_numpy_does(dtype: str, work: str) -> None:
    kind = stored_dtype(dtype)
    every = np.arange(1 << 8 * kind.itemsize).astype(f"u{kind.itemsize}").view(kind)
    with np.errstate(invalid="ignore"):
        finite = every[np.isfinite(decoded(every, dtype, "F64"))]
    for count in (0, 1, 15, 16, 17, finite.size):
        numbers = NATIVE.widened(finite[:count], dtype, work)
        assert numbers.tobytes() == decoded(finite[:count], dtype, work).tobytes()
    for bad in np.setdiff1d(every.view(f"u{kind.itemsize}"), finite.view(f"u{kind.itemsize}")):
        for place in (0, 20, 32):
            bits = np.resize(finite, 33)
            bits.view(f"u{kind.itemsize}")[place] = bad
            with pytest.raises(NotFinite):
                NATIVE.widened(bits, dtype, work)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 33, 96, 200])
def test_a_triangle_and_its_inverse_are_numpys(size: int) -> None:
    x = np.random.default_rng(size).standard_normal((3 * size + 5, size))
    gram = np.corrcoef(x, rowvar=False).reshape(size, size)
    made, wanted = NATIVE.cholesky(gram), NUMPY.cholesky(gram)
    assert made is not None and wanted is not None
    for ours, theirs in zip(made, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-13 * size)
        assert not np.tril(ours, -1).any()


NOT_POSITIVE = {
    "twice": np.ones((3, 3)),
    "indefinite": np.array([[1.0, 2.0], [2.0, 1.0]]),
    "NaN": np.full((1, 1), np.nan),
}


@pytest.mark.parametrize("bad", NOT_POSITIVE.values(), ids=NOT_POSITIVE)
def test_a_matrix_that_is_not_positive_has_no_triangle(bad: NDArray[np.float64]) -> None:
    assert NATIVE.cholesky(bad) is None
