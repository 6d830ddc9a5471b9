"""Bits of every dtype against torch, and rounding from float64 against exact fractions.

There are two ways to read: NumPy's, for whole matrices, and that of native loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.kernels import loops
from support.kernels.loops import encoded

from pemlang.execute import rounded
from pemlang.tensorfiles import FLOATS, decoded, stored_dtype

TORCH = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
# Casts of NaN, and of what is too large, are what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in (cast|multiply):RuntimeWarning")
NARROW = ("F16", "BF16", "F8_E4M3", "F8_E5M2")
Numbers = NDArray[np.floating]
Read = Callable[[NDArray[np.generic], str, str], Numbers]


def read_by_loop(bits: NDArray[np.generic], dtype: str, work: str) -> Numbers:
    return loops.cast(bits, dtype, work, work).view(stored_dtype(work))


reads = pytest.mark.parametrize("read", [decoded, read_by_loop])


def every(dtype: str) -> NDArray[np.generic]:
    """All bits of a narrow dtype."""
    bits = 8 * stored_dtype(dtype).itemsize
    return np.arange(1 << bits).astype(f"u{bits // 8}").view(stored_dtype(dtype))


def by_torch(bits: NDArray[np.generic], dtype: str) -> NDArray[np.float64]:
    raw = torch.from_numpy(bits.view("u1").copy())
    return raw.view(TORCH[dtype]).double().numpy()


@reads
@pytest.mark.parametrize("work", ["F32", "F64"])
@pytest.mark.parametrize("dtype", NARROW)
def test_all_bits_are_read_as_torch_reads_them(dtype: str, work: str, read: Read) -> None:
    numbers = read(every(dtype), dtype, work)
    np.testing.assert_array_equal(numbers.astype("f8"), by_torch(every(dtype), dtype))


@pytest.mark.parametrize("dtype", NARROW)
def test_all_numbers_come_back(dtype: str) -> None:
    numbers = decoded(every(dtype), dtype, "F32")
    numbers = numbers[np.isfinite(numbers)]
    again = decoded(encoded(numbers, dtype), dtype, "F32")
    np.testing.assert_array_equal(again, numbers)
    np.testing.assert_array_equal(np.signbit(again), np.signbit(numbers))


def near(dtype: str) -> NDArray[np.float32]:
    """Numbers of a dtype, halfway between them, and a float32 step to either side of that."""
    numbers = decoded(every(dtype), dtype, "F32").astype("f8")
    numbers = np.unique(numbers[np.isfinite(numbers)])
    halfway = ((numbers[1:] + numbers[:-1]) / 2).astype("f4")
    inf = np.float32(np.inf)
    sides = [halfway, np.nextafter(halfway, inf), np.nextafter(halfway, -inf)]
    return np.concatenate([numbers.astype("f4"), *sides])


@pytest.mark.parametrize("dtype", NARROW)
def test_float32_is_rounded_as_torch_rounds_it(dtype: str) -> None:
    numbers = near(dtype)
    wanted = torch.from_numpy(numbers).to(TORCH[dtype]).double().numpy()
    ours = decoded(encoded(numbers, dtype), dtype, "F64")
    np.testing.assert_array_equal(ours, wanted)
    np.testing.assert_array_equal(np.signbit(ours), np.signbit(wanted))


@pytest.mark.parametrize("dtype", ["F32", *NARROW])
@settings(deadline=None, max_examples=300)
@given(number=st.floats(allow_nan=False, allow_infinity=False, width=64), tie=st.booleans())
def test_float64_is_rounded_once(dtype: str, number: float, tie: bool) -> None:
    """To the nearest number of the dtype; of two, to the even one."""
    layout = FLOATS[dtype]
    if tie:  # next to halfway between two numbers of the dtype, where two roundings would err
        near_by = rounded_to(dtype, number)
        if not math.isfinite(near_by) or near_by == 0:
            return
        _, exponent = math.frexp(near_by)
        step = max(math.ldexp(1.0, exponent - layout.bits), layout.step)
        number = math.nextafter(near_by + step / 2, near_by if number > 0 else math.inf)
    if abs(number) > layout.largest:
        return
    with np.errstate(over="ignore"):
        ours = rounded_to(dtype, number)
    _, exponent = math.frexp(number)
    step = Fraction(max(math.ldexp(1.0, max(exponent - layout.bits, -1074)), layout.step))
    wanted = round(Fraction(number) / step) * step  # halves go to the even one
    assert Fraction(ours) == wanted if math.isfinite(ours) else abs(wanted) > layout.largest


def rounded_to(dtype: str, number: float) -> float:
    return float(decoded(encoded(np.array([number]), dtype), dtype, "F64")[0])


@pytest.mark.parametrize("work", ["f4", "f8"])
@pytest.mark.parametrize("dtype", NARROW)
def test_what_is_too_large_is_not_finite(dtype: str, work: str) -> None:
    numbers = np.array([4.0, -4.0]).astype(work) * work_type(work)(FLOATS[dtype].largest / 2)
    with np.errstate(over="ignore"):
        read = decoded(encoded(numbers, dtype), dtype, "F64")
    assert not np.isfinite(read).any()


def work_type(work: str) -> type[np.floating]:
    return np.float32 if work == "f4" else np.float64


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 33])
def test_sizes_that_are_no_whole_vector(size: int) -> None:
    numbers = np.linspace(-3, 5, size)
    bits, square = rounded(numbers, "BF16", 1.0)
    np.testing.assert_array_equal(bits, encoded(numbers + 1, "BF16"))
    assert bits.shape == (size,)
    assert square == pytest.approx(np.sum(numbers**2))


@pytest.mark.parametrize("dtype", list(FLOATS))
def test_no_numbers_at_all(dtype: str) -> None:
    assert decoded(encoded(np.empty(0, "f4"), dtype), dtype, "F32").shape == (0,)
