"""Draws: numbers that depend on a key and a place alone, so that they are the same whatever the
order, the threads and the tiles.

The generator is Philox 4×64 of ten rounds (Salmon et al. 2011, *Parallel random numbers: as easy as
1, 2, 3*), with NumPy's counters: one step of it gives eight draws of 32 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from pemlang.kernels.llvm_text import WIDTH, LlvmText, function, vector
from pemlang.lazy import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_ONCE = 8
"""Draws that one step gives: places are counted in so many."""

Draws: TypeAlias = "NDArray[np.uint32]"

WRITTEN_OUT = 8
"""The most draws of a program that are written out where they stand; a call takes a tenth more."""

_ROUNDS = 10
_FACTORS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


def drawn(key: tuple[int, int], first: int, count: int) -> Draws:
    """Numbers from 0 to 2³² − 1 of the stream of a key, from a place in it on that is a multiple
    of 8."""
    generator = np.random.Philox(key=np.array(key, np.uint64))
    generator.advance(first // AT_ONCE)
    return generator.random_raw(-(-count // 2)).view(np.uint32)[:count]


def round_keys(text: LlvmText, *key: str) -> list[tuple[str, str]]:
    """The keys of all rounds, from that of a stream: i64 values, written once for many draws."""
    first, second = key
    keys = [(first, second)]
    while len(keys) < _ROUNDS:
        keys.append(
            (
                text.add(f"add i64 {keys[-1][0]}, {_signed(_STEPS[0])}"),
                text.add(f"add i64 {keys[-1][1]}, {_signed(_STEPS[1])}"),
            )
        )
    return keys


def draws(text: LlvmText, keys: list[tuple[str, str]], place: str) -> str:
    """WIDTH draws from a place on, an i64 value that is a multiple of 8: a vector of i32."""
    step = text.add(f"lshr i64 {place}, 3")
    words: list[str] = []
    for number in range(WIDTH // AT_ONCE):
        words += _step(text, keys, text.add(f"add i64 {step}, {number + 1}"))
    many = f"<{len(words)} x i64>"
    whole = "poison"
    for lane, word in enumerate(words):
        whole = text.add(f"insertelement {many} {whole}, i64 {word}, i32 {lane}")
    return text.add(f"bitcast {many} {whole} to {vector('i32')}")


def draws_function() -> list[str]:
    """The same as a function `@draws` of a key and a place: to write out what it does a hundred
    times takes LLVM seconds."""
    text = LlvmText()
    drawn = draws(text, round_keys(text, "%first", "%second"), "%place")
    type_ = vector("i32")
    head = f"internal {type_} @draws(i64 %first, i64 %second, i64 %place)"
    return function(head, text, f"{type_} {drawn}")


def _step(text: LlvmText, keys: list[tuple[str, str]], counter: str) -> list[str]:
    """The four words of one step of the generator."""
    words = [counter, "0", "0", "0"]
    for first, second in keys:
        (high0, low0), (high1, low1) = (
            _product(text, word, factor)
            for word, factor in zip((words[0], words[2]), _FACTORS, strict=True)
        )
        words = [
            _mixed(text, high1, words[1], first), low1,
            _mixed(text, high0, words[3], second), low0,
        ]  # fmt: skip
    return words


def _product(text: LlvmText, word: str, factor: int) -> tuple[str, str]:
    """The upper and the lower half of a product."""
    if word == "0":
        return "0", "0"
    wide = text.add(f"mul i128 {text.add(f'zext i64 {word} to i128')}, {factor}")
    high = text.add(f"lshr i128 {wide}, 64")
    return text.add(f"trunc i128 {high} to i64"), text.add(f"trunc i128 {wide} to i64")


def _mixed(text: LlvmText, *words: str) -> str:
    first, *others = [word for word in words if word != "0"]
    for other in others:
        first = text.add(f"xor i64 {first}, {other}")
    return first


def _signed(number: int) -> int:
    """A number as LLVM writes one of 64 bits."""
    return number - (1 << 64) if number >> 63 else number
