"""Draws: numbers that depend on a key and a place alone, so that they are the same whatever the
order, the threads and the tiles.

The generator is Philox 4×64 of ten rounds (Salmon et al. 2011, *Parallel random numbers: as easy as
1, 2, 3*), with NumPy's counters: one step of it gives eight draws of 32 bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from pemlang.kernels.llvm_text import LlvmText, function
from pemlang.lazy import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_ONCE = 8
"""Draws that one step gives: places are counted in so many."""

Draws: TypeAlias = "NDArray[np.uint32]"

LANES = 16
"""Steps that a native loop takes at a time: two registers of the widest processors, which need not
wait for each other."""

TOGETHER = LANES * AT_ONCE
"""Draws that they give."""

_ROUNDS = 10
_FACTORS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


def drawn(key: tuple[int, int], first: int, count: int) -> Draws:
    """Numbers from 0 to 2³² − 1 of the stream of a key, from a place in it on that is a multiple
    of 8."""
    generator = np.random.Philox(key=np.array(key, np.uint64))
    generator.advance(first // AT_ONCE)
    return generator.random_raw(-(-count // 2)).view(np.uint32)[:count]


def draws_function() -> list[str]:
    """`@draws`: TOGETHER draws of the stream of a key, from a place on that is a multiple of 8."""
    text = LlvmText()
    step = text.add("lshr i64 %place, 3")
    counters = text.add(f"add {_MANY} {_spread(text, step)}, {_vector(range(1, LANES + 1))}")
    words = _step(text, [_spread(text, key) for key in ("%first", "%second")], counters)
    first, second, third, last = words
    pairs = (
        _interleaved(text, (first, second), LANES, 1),
        _interleaved(text, (third, last), LANES, 1),
    )
    whole = _interleaved(text, pairs, 2 * LANES, 2)
    text.do(f"store <{4 * LANES} x i64> {whole}, ptr %out, align 64")
    return function("internal void @draws(i64 %first, i64 %second, i64 %place, ptr %out)", text)


_MANY = f"<{LANES} x i64>"


def _vector(numbers: Iterable[int]) -> str:
    return f"<{', '.join(f'i64 {_signed(number)}' for number in numbers)}>"


def _splat(number: int) -> str:
    return _vector([number] * LANES)


def _spread(text: LlvmText, number: str) -> str:
    first = text.add(f"insertelement {_MANY} poison, i64 {number}, i32 0")
    zeros = f"<{LANES} x i32> zeroinitializer"
    return text.add(f"shufflevector {_MANY} {first}, {_MANY} poison, {zeros}")


def _interleaved(text: LlvmText, both: tuple[str, str], count: int, size: int) -> str:
    """So many words of one of two vectors, as many of the other, and so on.

    Args:
        text: the function.
        both: the vectors.
        count: the words of each.
        size: how many are taken at a time.
    """
    places = [
        start + at + word
        for at in range(0, count, size)
        for start in (0, count)
        for word in range(size)
    ]
    type_, which = f"<{count} x i64>", ", ".join(f"i32 {place}" for place in places)
    vectors = ", ".join(f"{type_} {words}" for words in both)
    return text.add(f"shufflevector {vectors}, <{2 * count} x i32> <{which}>")


def _step(text: LlvmText, keys: list[str], counters: str) -> list[str]:
    """The four words of each of some steps of the generator."""
    words = [counters, "0", "0", "0"]
    for number in range(_ROUNDS):
        if number:
            keys = [
                text.add(f"add {_MANY} {key}, {_splat(step)}")
                for key, step in zip(keys, _STEPS, strict=True)
            ]
        (high0, low0), (high1, low1) = (
            _product(text, word, factor)
            for word, factor in zip((words[0], words[2]), _FACTORS, strict=True)
        )
        words = [
            _mixed(text, high1, words[1], keys[0]), low1,
            _mixed(text, high0, words[3], keys[1]), low0,
        ]  # fmt: skip
    return words


def _product(text: LlvmText, word: str, factor: int) -> tuple[str, str]:
    """The upper and the lower half of a product: of halves, as no processor multiplies vectors of
    larger numbers."""
    if word == "0":
        return "0", "0"

    def each(op: str, x: str, y: str) -> str:
        return text.add(f"{op} {_MANY} {x}, {y}")

    half, low_bits = _splat(32), _splat((1 << 32) - 1)
    high, low = each("lshr", word, half), each("and", word, low_bits)
    factor_high, factor_low = _splat(factor >> 32), _splat(factor & ((1 << 32) - 1))
    lowest = each("mul", low, factor_low)
    middle = each("add", each("mul", high, factor_low), each("lshr", lowest, half))
    other = each("add", each("mul", low, factor_high), each("and", middle, low_bits))
    upper = each("add", each("mul", high, factor_high), each("lshr", middle, half))
    lower = each("or", each("shl", other, half), each("and", lowest, low_bits))
    return each("add", upper, each("lshr", other, half)), lower


def _mixed(text: LlvmText, *words: str) -> str:
    first, *others = [word for word in words if word != "0"]
    for other in others:
        first = text.add(f"xor {_MANY} {first}, {other}")
    return first


def _signed(number: int) -> int:
    """A number as LLVM writes one of 64 bits."""
    return number - (1 << 64) if number >> 63 else number
