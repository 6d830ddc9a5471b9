"""The dtypes of files, and their bytes as arrays of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pemlang.diagnostics import Fault

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Float:
    """A floating-point dtype of files.

    Attributes:
        stored: how NumPy holds its bits.
        bits: of its significand, the hidden one included; a rounding changes a number by at most
            a share 2⁻ᵇⁱᵗˢ of it.
        step: its smallest positive number.
        largest: its largest finite number.
    """

    stored: np.dtype[np.generic]
    bits: int
    step: float
    largest: float


F32, F64 = np.dtype("<f4"), np.dtype("<f8")

DTYPES: dict[str, Float] = {
    "F64": Float(F64, 53, 2.0**-1074, float(np.finfo("f8").max)),
    "F32": Float(F32, 24, 2.0**-149, float(np.finfo("f4").max)),
    "F16": Float(np.dtype("<f2"), 11, 2.0**-24, 65504.0),
    "BF16": Float(np.dtype("<u2"), 8, 2.0**-133, (2 - 2.0**-7) * 2.0**127),
    "F8_E5M2": Float(np.dtype("u1"), 3, 2.0**-16, 57344.0),
    "F8_E4M3": Float(np.dtype("u1"), 4, 2.0**-9, 448.0),
}


def work_dtype(dtypes: frozenset[str]) -> str:
    """What to compute in: float32, and float64 where an input is float64."""
    return "F64" if "F64" in dtypes else "F32"


def stored_dtype(dtype: str) -> np.dtype[np.generic]:
    """How NumPy holds the bits of a value of a program."""
    return np.dtype(bool) if dtype == "BOOL" else DTYPES[dtype].stored


def _table(dtype: str) -> Array:
    """All 256 numbers of an 8-bit dtype, in the order of their bits."""
    known = DTYPES[dtype]
    code = np.arange(128, dtype=np.float64)
    fraction = 2.0 ** (known.bits - 1)
    # Below the first normal number the steps are even; above, each binade doubles them.
    binade = np.maximum(np.floor(code / fraction) - 1, 0)
    half = known.step * (code - binade * fraction) * 2.0**binade
    half[half > known.largest] = np.nan
    half[127] = np.nan
    if dtype == "F8_E5M2":
        half[124] = np.inf
    return np.concatenate([half, -half]).astype(F32)


_TABLES = {dtype: _table(dtype) for dtype in ("F8_E5M2", "F8_E4M3")}


def decode(raw: NDArray[np.generic] | memoryview | bytes, dtype: str, out: Array) -> None:
    """Write numbers of a file dtype into an array of float32 or float64. Exact.

    Args:
        raw: their little-endian bytes, or the array that holds them.
        dtype: their dtype.
        out: as many numbers, in one dimension.
    """
    bits = np.frombuffer(raw, DTYPES[dtype].stored) if not isinstance(raw, np.ndarray) else raw
    if dtype == "BF16" and out.dtype == F32:
        wide = out.view("<u4")
        wide[...] = bits
        np.left_shift(wide, 16, out=wide)
    elif dtype == "BF16":
        np.copyto(out, np.left_shift(bits, 16, dtype="<u4").view(F32))
    elif dtype in _TABLES and out.dtype == F32:
        _TABLES[dtype].take(bits.view("u1"), out=out, mode="clip")
    elif dtype in _TABLES:
        np.copyto(out, _TABLES[dtype][bits])
    else:
        np.copyto(out, bits, casting="unsafe")


def decoded(raw: NDArray[np.generic] | memoryview | bytes, dtype: str, work: str) -> Array:
    """The numbers in a new array of a work dtype."""
    stored = DTYPES[dtype].stored
    bits = raw if isinstance(raw, np.ndarray) else np.frombuffer(raw, stored)
    out: Array = np.empty(bits.shape, DTYPES[work].stored)
    with np.errstate(invalid="ignore"):  # a NaN that signals is NaN like any other
        decode(bits, dtype, out)
    return out


def too_large(dtype: str) -> Fault:
    """PEM0503 for a result that a dtype has no finite number for."""
    wider = "f32" if dtype in ("F16", *_TABLES) else "f64"
    return Fault(
        "PEM0503",
        f"a result is too large for {dtype.lower()}",
        f"save with dtype={wider}, or scale it down",
    )


def too_small(dtype: str) -> Fault:
    """PEM0503 for a result whose digits a dtype's smallest steps would lose."""
    return Fault(
        "PEM0503",
        f"a result is too small for {dtype.lower()}, which would lose most of its digits",
        f"save with dtype={'bf16' if dtype in ('F16', *_TABLES) else 'f64'}, or scale it up",
    )
