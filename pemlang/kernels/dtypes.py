"""Bytes of the file dtypes to arrays and back. Rounding is to nearest, ties to even, once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pemlang.diagnostics import Fault

Array = NDArray[np.floating]

_NUMPY: dict[str, np.dtype[np.floating]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
}


def work_dtype(dtypes: frozenset[str]) -> np.dtype[np.floating]:
    """What to compute in: float32, and float64 where an input is float64."""
    return np.dtype(np.float64 if "F64" in dtypes else np.float32)


def decode(
    raw: memoryview, dtype: str, shape: tuple[int, ...], work: np.dtype[np.floating]
) -> Array:
    """An array of dtype `work` from little-endian bytes of `dtype`. Exact."""
    if dtype == "BF16":
        wide = np.frombuffer(raw, "<u2").astype("<u4")
        wide <<= 16
        found: Array = wide.view("<f4").astype(work, copy=False)
    else:
        found = np.frombuffer(raw, _NUMPY[dtype]).astype(work)
    return found.reshape(shape)


def encode(array: Array, dtype: str) -> bytes:
    """Little-endian bytes of `dtype`.

    Raises:
        Fault: PEM0503 when a finite number is too large for the dtype, or all are too small.
    """
    with np.errstate(over="ignore"):
        if dtype == "BF16":
            bits = _odd_float32(array).view("<u4")
            bits = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
            rounded = bits.astype("<u2")
            finite = bool(((rounded & 0x7F80) != 0x7F80).all())
            data: bytes = rounded.tobytes()
        else:
            narrow = np.ascontiguousarray(array, _NUMPY[dtype])
            finite = bool(np.isfinite(narrow).all())
            _not_lost(array, narrow, dtype)
            data = narrow.tobytes()
    if not finite:
        wider = "f32" if dtype == "F16" else "f64"
        raise Fault(
            "PEM0503",
            f"a result is too large for {dtype.lower()}",
            f"save with dtype={wider}, or scale it down",
        )
    return data


def _not_lost(array: Array, narrow: Array, dtype: str) -> None:
    """Raise PEM0503 where a dtype's smallest steps leave next to nothing of the numbers."""
    step = np.finfo(narrow.dtype).smallest_subnormal
    if np.abs(narrow).max(initial=0) < 16 * step and array.any():
        raise Fault(
            "PEM0503",
            f"a result is too small for {dtype.lower()}, which would lose most of its digits",
            f"save with dtype={'bf16' if dtype == 'F16' else 'f64'}, or scale it up",
        )


def _odd_float32(array: Array) -> Array:
    """float32, and from float64 rounded to odd: a later rounding to fewer bits is then right."""
    narrow = np.ascontiguousarray(array, "<f4")
    if array.dtype != np.float64:
        return narrow
    back = narrow.astype(np.float64)
    bits = narrow.view("<u4")
    bits = np.where(np.abs(back) > np.abs(array), bits - 1, bits)
    bits = np.where(back != array, bits | 1, bits)
    return bits.astype("<u4").view("<f4")
