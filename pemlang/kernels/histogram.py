"""Finding the k-th largest of numbers by counting: as LLVM IR.

The bits of numbers that are not negative order as the numbers do. A pass counts how often each
value of one digit of them, 16 bits, occurs among the numbers whose higher digits are those that are
known; from the counts comes the digit of the k-th. What is counted is exact, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pemlang.kernels.llvm_text import REAL, WIDTH, LlvmText, function, splat, vector
from pemlang.tensorfiles.dtypes import FLOATS, Array

if TYPE_CHECKING:
    from pemlang.kernels.llvm import LlvmPass, LlvmSettle
    from pemlang.kernels.steps.scans import Kth

HISTOGRAM = 0
"""Which of the pointers to working memory is that to the histograms."""

BUCKETS = 1 << 16
LANES = 4
"""Histograms side by side: one that is counted in twice in a row would wait for itself."""

HEAD, STRIDE = 64, 4 * (BUCKETS + 16)
"""Bytes before the histograms, for the largest and the least bucket in use, and of each: 32-bit
counts, one bucket more than there are for what is not to be counted."""

DIGITS = {"F32": ((15, 16), (0, 15)), "F64": ((47, 16), (31, 16), (15, 16), (0, 15))}
"""The lowest bit of each digit, and how many bits it has."""

_NOWHERE = BUCKETS
"""The bucket of elements that are not there."""


def digits_needed(stored: str, work: str) -> int:
    """How many digits tell all of the magnitude of a number of a dtype.

    Args:
        stored: the dtype that the number was stored in.
        work: the one it is counted in.
    """
    lowest = (24 if work == "F32" else 53) - FLOATS[stored].bits  # the bits under it are zero
    return sum(1 for shift, size in DIGITS[work] if shift + size > lowest)


def prefix_of(loop: LlvmPass, step: Kth, known: str) -> str:
    """The higher digits that an earlier pass found, as a vector of whole numbers."""
    shift, size = DIGITS[step.dtype][step.digit]

    def write() -> str:
        bits = loop.bits(known, step.dtype)
        return loop.whole_numbers("lshr", step.dtype, bits, shift + size)

    return loop.once(("prefix", known), write)


def count(loop: LlvmPass, step: Kth, value: str, prefix: str | None, index: int) -> None:
    """Count one digit of a vector of numbers, and tell how many have larger higher digits."""
    shift, size = DIGITS[step.dtype][step.digit]
    bits = loop.bits(value, step.dtype)
    digits = loop.whole_numbers("lshr", step.dtype, bits, shift)
    digits = loop.whole_numbers("and", step.dtype, digits, (1 << size) - 1)
    if step.dtype == "F64":
        digits = loop.add(f"trunc {vector('i64')} {digits} to {vector('i32')}")
    counted = loop.here
    if prefix is not None:
        high = loop.whole_numbers("lshr", step.dtype, bits, shift + size)
        counted = _count_above(loop, step.dtype, high, prefix, index)
    else:
        loop.after.append(lambda: loop.tell(index, "0.0"))
    _keep_range(loop, counted, digits)
    if prefix is None:
        digits = _chosen(loop, counted, digits, _NOWHERE)
        for lane in range(WIDTH):
            _increase(loop, _lane(loop, lane % LANES), digits, lane)
        return
    some = loop.add(f"bitcast {vector('i1')} {counted} to i{WIDTH}")
    with loop.where(loop.add(f"icmp ne i{WIDTH} {some}, 0")):  # rarely
        arguments = f"ptr {_lane(loop, 0)}, {vector('i32')} {digits}, i{WIDTH} {some}"
        loop.do(f"call void @count_some({arguments})")


def _count_above(loop: LlvmPass, dtype: str, high: str, prefix: str, index: int) -> str:
    """Count the numbers whose higher digits are larger; where they are those that are known."""
    word, i32 = vector(f"i{dtype[1:]}"), vector("i32")
    above = loop.add(f"icmp ugt {word} {high}, {prefix}")
    above = loop.add(f"and {vector('i1')} {above}, {loop.here}")
    total = loop.loop_here.carry(i32, "zeroinitializer")
    one = loop.add(f"zext {vector('i1')} {above} to {i32}")
    loop.loop_here.next(total, loop.add(f"add {i32} {total}, {one}"))

    def tell() -> None:
        number = loop.add(f"call i32 @llvm.vector.reduce.add.v{WIDTH}i32({i32} {total})")
        number = loop.add(f"uitofp i32 {number} to double")
        loop.tell(index, number)

    loop.after.append(tell)
    equal = loop.add(f"icmp eq {word} {high}, {prefix}")
    return loop.add(f"and {vector('i1')} {equal}, {loop.here}")


def _keep_range(loop: LlvmPass, counted: str, digits: str) -> None:
    """Keep which are the largest and the least bucket in use."""
    i32 = vector("i32")
    for at, (which, start) in enumerate((("umax", 0), ("umin", BUCKETS - 1))):
        extreme = loop.loop_here.carry(i32, splat("i32", start))
        value = _chosen(loop, counted, digits, start)
        intrinsic = f"@llvm.{which}.v{WIDTH}i32"
        loop.loop_here.next(
            extreme, loop.add(f"call {i32} {intrinsic}({i32} {extreme}, {i32} {value})")
        )
        loop.after.append(_merge_range(loop, which, at, extreme))


def _merge_range(loop: LlvmPass, which: str, at: int, extreme: str) -> Callable[[], None]:
    def merge() -> None:
        pointer = loop.at(loop.array("%scratch", HISTOGRAM), "i32", at)
        reduce = f"@llvm.vector.reduce.{which}.v{WIDTH}i32"
        number = loop.add(f"call i32 {reduce}({vector('i32')} {extreme})")
        before = loop.add(f"load i32, ptr {pointer}")
        number = loop.add(f"call i32 @llvm.{which}.i32(i32 {number}, i32 {before})")
        loop.do(f"store i32 {number}, ptr {pointer}")

    return merge


def _chosen(loop: LlvmPass, where: str, digits: str, otherwise: int) -> str:
    i32 = vector("i32")
    return loop.add(
        f"select {vector('i1')} {where}, {i32} {digits}, {i32} {splat('i32', otherwise)}"
    )


def _lane(text: LlvmPass, lane: int) -> str:
    """The first bucket of one of the histograms."""
    return text.once(
        ("histogram", lane),
        lambda: text.at(text.array("%scratch", HISTOGRAM), "i8", HEAD + lane * STRIDE),
    )


def _increase(text: LlvmText, base: str, digits: str, lane: int | str) -> None:
    digit = text.add(f"extractelement {vector('i32')} {digits}, i32 {lane}")
    bucket = text.at(base, "i32", text.add(f"zext i32 {digit} to i64"))
    more = text.add(f"add i32 {text.add(f'load i32, ptr {bucket}')}, 1")
    text.do(f"store i32 {more}, ptr {bucket}")


def _count_some() -> list[str]:
    """A function that counts the digits of some lanes, given as a mask that is not 0."""
    text, mask = LlvmText(), f"i{WIDTH}"
    text.do("br label %lanes")
    text.start_block("lanes")
    text.do(f"%left = phi {mask} [%some, %entry], [%others, %lanes]")
    lane = text.add(f"call {mask} @llvm.cttz.{mask}({mask} %left, i1 true)")
    _increase(text, "%base", "%digits", text.add(f"zext {mask} {lane} to i32"))
    text.do(f"%others = and {mask} %left, {text.add(f'sub {mask} %left, 1')}")
    text.do(f"br i1 {text.add(f'icmp eq {mask} %others, 0')}, label %done, label %lanes")
    text.start_block("done")
    arguments = f"ptr %base, {vector('i32')} %digits, {mask} %some"
    return function(f"internal void @count_some({arguments})", text)


def gather(whole: Array, part: Array) -> None:
    """Add the counts of one thread to those of another, and empty them. Both are bytes of working
    memory."""
    if not part.size:
        return
    (most, least), first = part[:8].view("u4").tolist(), whole[:8].view("u4")
    if most < least:
        return
    first[:] = max(first[0], most), min(first[1], least)
    counts, more = (
        x[HEAD:].view("u4").reshape(LANES, -1)[:, least : most + 1] for x in (whole, part)
    )
    counts += more
    more[...] = 0
    part[:8].view("u4")[:] = 0, BUCKETS - 1


# --- when the pass is done -------------------------------------------------------------------


def settle(text: LlvmSettle, step: Kth, known: Sequence[str], index: int) -> str:
    """The k-th largest as far as the digits tell; the histograms are empty again then."""
    share = text.add(f"load double, ptr {text.at('%c', 'double', step.constant)}")
    count = text.add(f"extractelement {vector('double')} {known[1]}, i32 0")
    k = text.add(f"fptosi double {text.add(f'fmul double {count}, {share}')} to i64")
    above = text.add(f"fptosi double {text.number_found(index)} to i64")
    real = REAL[step.dtype]
    before = text.add(f"extractelement {vector(real)} {known[2]}, i32 0") if step.digit else "0.0"
    histogram = text.array("%scratch", HISTOGRAM)
    arguments = f"ptr {histogram}, i64 {k}, i64 {above}, {real} {before}"
    return text.add(f"call double @kth_{step.dtype}_{step.digit}({arguments})")


def functions(steps: Iterable[Kth]) -> Iterator[str]:
    """What passes with some steps call."""
    kinds = sorted({(step.dtype, step.digit) for step in steps})
    for dtype, digit in kinds:
        yield from _kth(dtype, digit)
    if any(digit for _, digit in kinds):
        yield from _count_some()


def _kth(dtype: str, digit: int) -> list[str]:
    """The k-th largest, given how many numbers have larger higher digits, and a number that has
    the higher digits of the k-th."""
    shift, size = DIGITS[dtype][digit]
    text, word, real = LlvmText(), f"i{dtype[1:]}", REAL[dtype]
    found = _digit(text, text.add("sub i64 %k, %above"))
    if word == "i32":
        found = text.add(f"trunc i64 {found} to i32")
    bits = text.add(f"shl {word} {found}, {shift}")
    if digit:
        before = text.add(f"bitcast {real} %before to {word}")
        before = text.add(f"lshr {word} {before}, {shift + size}")
        bits = text.add(f"or {word} {text.add(f'shl {word} {before}, {shift + size}')}, {bits}")
    number = text.add(f"bitcast {word} {bits} to {real}")
    if dtype == "F32":
        number = text.add(f"fpext float {number} to double")
    none = text.add("icmp sle i64 %k, 0")
    number = text.add(f"select i1 {none}, double 0x7FF0000000000000, double {number}")
    arguments = f"ptr %histogram, i64 %k, i64 %above, {real} %before"
    return function(f"internal double @kth_{dtype}_{digit}({arguments})", text, f"double {number}")


def _digit(text: LlvmText, rest: str) -> str:
    """The bucket with a number that has so many from it on; an i64. The histograms are emptied."""
    ends = [
        text.add(f"zext i32 {text.add(f'load i32, ptr {pointer}')} to i64")
        for pointer in ("%histogram", text.at("%histogram", "i32", 1))
    ]
    bases = [text.at("%histogram", "i8", HEAD + lane * STRIDE) for lane in range(LANES)]
    text.do("br label %scan")
    text.start_block("scan")
    text.do(f"%bucket = phi i64 [{ends[0]}, %entry], [%lower, %scan]")
    text.do("%total = phi i64 [0, %entry], [%more, %scan]")
    so_far = "%total"
    for base in bases:
        count = text.add(f"load i32, ptr {text.at(base, 'i32', '%bucket')}")
        so_far = text.add(f"add i64 {so_far}, {text.add(f'zext i32 {count} to i64')}")
    text.do(f"%more = add i64 {so_far}, 0")
    text.do("%lower = sub i64 %bucket, 1")
    enough = text.add(f"icmp sge i64 %more, {rest}")
    last = text.add(f"icmp sle i64 %bucket, {ends[1]}")
    stop = text.add(f"or i1 {enough}, {last}")
    text.do(f"br i1 {stop}, label %scanned, label %scan")
    text.start_block("scanned")
    _empty(text, bases, *ends)
    return "%bucket"


def _empty(text: LlvmText, bases: Sequence[str], most: str, least: str) -> None:
    size = text.add(f"add i64 {text.add(f'sub i64 {most}, {least}')}, 1")
    size = text.add(f"call i64 @llvm.smax.i64(i64 {size}, i64 0)")
    size = text.add(f"mul i64 {size}, 4")
    for base in bases:
        first = text.at(base, "i32", least)
        text.do(f"call void @llvm.memset.p0.i64(ptr {first}, i8 0, i64 {size}, i1 false)")
    text.do("store i32 0, ptr %histogram")
    text.do(f"store i32 {BUCKETS - 1}, ptr {text.at('%histogram', 'i32', 1)}")
