"""The dtypes of files, a row each, and their bytes as arrays of numbers."""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING, TypeAlias

from pemlang.dataclass import dataclass
from pemlang.lazy import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[np.floating]"
"""Numbers to compute with: float32 or float64."""

Bits: TypeAlias = "NDArray[np.generic]"
"""Numbers as a file stores them."""


@dataclass(frozen=True, eq=False)
class FloatLayout:
    """How the bits of a floating-point number are laid out behind its sign.

    Attributes:
        exponent: bits of the exponent.
        bits: of the significand, the hidden one included; a rounding changes a number by at most
            a share 2⁻ᵇⁱᵗˢ of it.
        infinite: whether the largest exponent means infinity and NaN; else it holds numbers like
            any other, and its last code alone is NaN.
    """

    exponent: int
    bits: int
    infinite: bool = True

    @property
    def bias(self) -> int:
        """What is taken from a stored exponent."""
        return (1 << (self.exponent - 1)) - 1

    @property
    def step(self) -> float:
        """The smallest positive number."""
        return 2.0 ** (2 - self.bias - self.bits)

    @property
    def last(self) -> int:
        """The code of the largest finite number."""
        if self.infinite:
            return (((1 << self.exponent) - 1) << (self.bits - 1)) - 1
        return (1 << (self.exponent + self.bits - 1)) - 2

    @cached_property
    def largest(self) -> float:
        """The largest finite number."""
        fraction = self.last & ((1 << (self.bits - 1)) - 1)
        power = (self.last >> (self.bits - 1)) - self.bias
        return (1 + fraction * 2.0 ** (1 - self.bits)) * 2.0**power


@dataclass(frozen=True, eq=False)
class Dtype:
    """A dtype of files.

    Attributes:
        name: as safetensors spells it; a recipe writes it in small letters.
        size: bytes of an element.
        numpy: how NumPy holds its bits.
        torch: what torch calls it.
        storage: what a torch file calls an array of it; empty where it has no such name.
        layout: of its numbers; None for whole numbers and truths, which no factor is made of.
    """

    name: str
    size: int
    numpy: str
    torch: str
    storage: str = ""
    layout: FloatLayout | None = None


DTYPES: dict[str, Dtype] = {
    row.name: row
    for row in (
        Dtype("F64", 8, "<f8", "float64", "DoubleStorage", FloatLayout(11, 53)),
        Dtype("F32", 4, "<f4", "float32", "FloatStorage", FloatLayout(8, 24)),
        Dtype("F16", 2, "<f2", "float16", "HalfStorage", FloatLayout(5, 11)),
        Dtype("BF16", 2, "<u2", "bfloat16", "BFloat16Storage", FloatLayout(8, 8)),
        Dtype("F8_E4M3", 1, "u1", "float8_e4m3fn", "", FloatLayout(4, 4, infinite=False)),
        Dtype("F8_E5M2", 1, "u1", "float8_e5m2", "", FloatLayout(5, 3)),
        Dtype("I64", 8, "<i8", "int64", "LongStorage"),
        Dtype("I32", 4, "<i4", "int32", "IntStorage"),
        Dtype("I16", 2, "<i2", "int16", "ShortStorage"),
        Dtype("I8", 1, "i1", "int8", "CharStorage"),
        Dtype("U64", 8, "<u8", "uint64"),
        Dtype("U32", 4, "<u4", "uint32"),
        Dtype("U16", 2, "<u2", "uint16"),
        Dtype("U8", 1, "u1", "uint8", "ByteStorage"),
        Dtype("BOOL", 1, "?", "bool", "BoolStorage"),
    )
}

FLOATS: dict[str, FloatLayout] = {
    name: row.layout for name, row in DTYPES.items() if row.layout is not None
}
"""The dtypes that factors may have."""

NAMES = {name.lower(): name for name in FLOATS}
"""What recipes call them."""

NATIVE = ("F64", "F32")
"""Those that every processor computes in."""


def work_dtype(dtypes: frozenset[str]) -> str:
    """What to compute in: float32, and float64 where an input is float64."""
    return "F64" if "F64" in dtypes else "F32"


@cache
def stored_dtype(dtype: str) -> np.dtype[np.generic]:
    """How NumPy holds the bits of a dtype."""
    return np.dtype(DTYPES[dtype].numpy)


@cache
def _table(dtype: str) -> Array:
    """All 256 numbers of an 8-bit dtype, in the order of their bits."""
    layout = FLOATS[dtype]
    code = np.arange(128, dtype=np.float64)
    fraction = 2.0 ** (layout.bits - 1)
    # Below the first normal number the steps are even; above, each binade doubles them.
    binade = np.maximum(np.floor(code / fraction) - 1, 0)
    half = layout.step * (code - binade * fraction) * 2.0**binade
    half[layout.last + 1 :] = np.nan
    if layout.infinite:
        half[layout.last + 1] = np.inf
    return np.concatenate([half, -half]).astype(np.float32)


def decode(raw: Bits | memoryview | bytes, dtype: str, out: Array) -> None:
    """Write numbers of a file dtype into an array of float32 or float64. Exact.

    Args:
        raw: their little-endian bytes, or the array that holds them.
        dtype: their dtype.
        out: as many numbers, in one dimension.
    """
    bits = np.frombuffer(raw, stored_dtype(dtype)) if not isinstance(raw, np.ndarray) else raw
    layout, size = DTYPES[dtype].layout, DTYPES[dtype].size
    if layout is None or stored_dtype(dtype).kind == "f":
        np.copyto(out, bits, casting="unsafe")
    elif size == 1 and out.dtype == np.float32:
        _table(dtype).take(bits.view("u1"), out=out, mode="clip")
    elif size == 1:
        np.copyto(out, _table(dtype)[bits])
    else:
        assert (size, layout.exponent) == (2, FLOATS["F32"].exponent), "not half of a float32"
        if out.dtype == np.float32:
            wide = out.view("<u4")
            wide[...] = bits
            np.left_shift(wide, 16, out=wide)
        else:
            np.copyto(out, np.left_shift(bits, 16, dtype="<u4").view("<f4"))


def decoded(raw: Bits | memoryview | bytes, dtype: str, work: str) -> Array:
    """The numbers in a new array of a work dtype."""
    bits = raw if isinstance(raw, np.ndarray) else np.frombuffer(raw, stored_dtype(dtype))
    out: Array = np.empty(bits.shape, stored_dtype(work))
    with np.errstate(invalid="ignore"):  # a NaN that signals is NaN like any other
        decode(bits, dtype, out)
    return out
