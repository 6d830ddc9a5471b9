"""What the watch over rounding settles by one dot product is so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.kernels.loops import encoded

from pemlang.failures import TooLarge, TooSmall
from pemlang.kernels import WORTH_SAYING, ResultNotFinite, Seen, look
from pemlang.pipeline import fault_of
from pemlang.tensorfiles import FLOATS, decoded

DRAWN = settings(deadline=None, max_examples=300)


def seen(numbers: NDArray[np.floating], dtype: str, around: float = 0.0) -> Seen:
    with np.errstate(all="ignore"):
        exact = numbers + numbers.dtype.type(around) if around else numbers
        return look(numbers, encoded(exact, dtype), dtype, around)


@DRAWN
@given(
    st.sampled_from(list(FLOATS)),
    st.sampled_from(["f4", "f8"]),
    st.integers(-48, 40),
    st.integers(0, 6),
    st.integers(1, 400),
    st.integers(0, 2**32 - 1),
)
def test_what_is_certain_is_true(
    dtype: str, work: str, size: int, spread: int, count: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    numbers = random.standard_normal(count) * 10.0 ** random.uniform(-spread, 0, count)
    with np.errstate(over="ignore"):
        numbers = (numbers * 10.0**size).astype(work)
    wide = numbers.astype("f8")
    with np.errstate(all="ignore"):
        read = decoded(encoded(numbers, dtype), dtype, "F64").astype("f8")
    try:
        told = seen(numbers, dtype)
    except (TooLarge, ResultNotFinite):
        assert not np.isfinite(read).all() or not np.isfinite(wide).all()
        return
    assert np.isfinite(read).all()
    with np.errstate(all="ignore"):
        lost, norm = float(np.sum((read - wide) ** 2)), float(np.sum(wide**2))
    if told.rounding.lost:
        assert told.rounding.lost == pytest.approx(lost, rel=1e-6)
    elif norm > 1e-300:
        assert lost <= WORTH_SAYING**2 * norm
    assert told.rounding.kept == bool(read.any())
    if norm > 1e-30:
        assert told.rounding.norm == pytest.approx(norm, rel=1e-3)
    tiny = np.abs(read).max() < 16 * FLOATS[dtype].step and numbers.any()
    assert (told.size.failure(dtype) is not None) == bool(tiny)


@pytest.mark.parametrize("dtype", list(FLOATS))
@pytest.mark.parametrize("work", ["f4", "f8"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found(dtype: str, work: str, wrong: float) -> None:
    for place in (0, 500, 999):
        numbers = np.ones(1000, work)
        numbers[place] = wrong
        with pytest.raises(ResultNotFinite):
            seen(numbers, dtype)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_one_number_too_large_is_found(dtype: str) -> None:
    numbers = np.ones(1000, "f8")
    numbers[500] = FLOATS[dtype].largest * 1.5
    with pytest.raises(TooLarge) as wrong:
        seen(numbers, dtype)
    assert wrong.value.dtype == dtype
    assert fault_of(wrong.value).code == "PEM0503"


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3"])
def test_gains_are_judged_by_what_they_change(dtype: str) -> None:
    """l = 1.001 is 1 in bf16: next to nothing of l, and all of l − 1."""
    gains = seen(np.full(10, 0.001), dtype, around=1.0)
    assert gains.rounding.share == pytest.approx(1.0)
    assert not gains.rounding.kept


def test_zeros_are_zeros() -> None:
    zeros = seen(np.zeros(10, "f4"), "BF16")
    assert not zeros.rounding.kept
    assert zeros.size.failure("BF16") is None


def test_parts_of_a_tensor_are_put_together() -> None:
    """A tensor of which one part is large enough has not lost its digits."""
    tiny, fine = seen(np.full(8, 2.0**-24, "f4"), "F16"), seen(np.ones(8, "f4"), "F16")
    failure = tiny.size.failure("F16")
    assert isinstance(failure, TooSmall)
    assert fault_of(failure).code == "PEM0503"
    tiny.size.add(fine.size)
    assert tiny.size.failure("F16") is None
