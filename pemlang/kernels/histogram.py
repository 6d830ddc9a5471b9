"""Finding the k-th largest of numbers by counting: as LLVM IR.

The bits of numbers that are not negative order as the numbers do. What is known of the k-th is a
range that it lies in. A pass counts the numbers above that range, a vector at a time, and those of
each part of it, a bucket; the bucket of the k-th is the next range, until all numbers in it are
equal. A sample says where to begin, so that few numbers are ever counted one by one; where it was
wrong, which the counts show, all begins anew without it. What is found is exact, in any order
(Floyd and Rivest 1975, *Expected time bounds for selection*, with counts in place of copies).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pemlang.kernels.llvm_text import REAL, WIDTH, LlvmText, function, vector
from pemlang.tensorfiles.dtypes import Array

if TYPE_CHECKING:
    from pemlang.kernels.llvm import LlvmPass, LlvmSettle
    from pemlang.kernels.program import Program
    from pemlang.kernels.steps.scans import Kth

HISTOGRAMS = 0
"""Which of the pointers to working memory is that to the histograms, one for each `kth`."""

_BITS = 13
BUCKETS = 1 << _BITS
_ROW, _APART = 8, 4
"""After 2⁸ buckets four are left free: numbers of a narrow dtype are so far apart, and would all
take the same places in a cache."""

_PLACES = BUCKETS + _APART * (BUCKETS >> _ROW)

_ENTRY = 4
"""Words of a bucket: how many numbers it has, the bits that any of them has, and those that any of
them has not. All are equal where no bit is in both."""

ASIDE = 1 << 12
"""Numbers that are put aside before they are counted."""

SIZE = (_PLACES * _ENTRY + ASIDE + WIDTH) * 8
"""Bytes of a histogram, and of what is put aside; one of float32 takes half of them."""

STATE = 3
"""Whole numbers that are kept of a `kth` after the numbers of the steps: where its range begins,
the bits that a bucket leaves open, and whether it rests on counts alone."""

_LOW, _SHIFT, _SURE = range(STATE)

PIECE, APART = 256, 65 * 256
"""A sample of a file is so many elements out of so many; their places in rows go on."""

PIECE_NEAR, APART_NEAR = 64, 33 * 64
"""The same in memory."""

LEAST = 1 << 14
"""Elements of which a sample is taken."""


def _whole_range(dtype: str) -> int:
    """The bits that a bucket leaves open where the range is all numbers of a work dtype."""
    return int(dtype[1:]) - 1 - _BITS


def _word(step: Kth) -> str:
    return f"i{step.dtype[1:]}"


# --- in a pass -------------------------------------------------------------------------------


def count(loop: LlvmPass, step: Kth, value: str, index: int) -> None:
    """Count a vector of numbers."""
    word, place = _word(step), loop.ordinal(index)
    many = vector(word)

    def known() -> tuple[str, str, str]:
        low, shift = (
            loop.add(f"load i64, ptr {state_at(loop, place, which)}") for which in (_LOW, _SHIFT)
        )
        size = loop.add(f"shl i64 {BUCKETS}, {shift}")
        numbers = [low, size, loop.add(f"add i64 {low}, {size}")]
        if word == "i32":
            numbers = [loop.add(f"trunc i64 {x} to i32") for x in numbers]
        low, size, end = (loop.spread(word, x) for x in numbers)
        return low, size, end

    low, size, end = loop.once(("range", index), known)
    bits = loop.bits(value, step.dtype)
    above = loop.add(f"icmp uge {many} {bits}, {end}")
    above = loop.add(f"and {vector('i1')} {above}, {loop.here}")
    _total(loop, above, index)
    apart = loop.add(f"sub {many} {bits}, {low}")
    inside = loop.add(f"icmp ult {many} {apart}, {size}")
    inside = loop.add(f"and {vector('i1')} {inside}, {loop.here}")
    _put_aside(loop, word, bits, inside, index)


def _put_aside(loop: LlvmPass, word: str, bits: str, inside: str, index: int) -> None:
    """Keep the numbers of a vector that are in the range, to be counted one by one when there are
    many: a loop that took turns would guess wrong at each."""
    place = loop.ordinal(index)

    def known() -> tuple[str, str, str, str]:
        histogram = histogram_at(loop, place)
        kept = loop.add("alloca i64")
        loop.do(f"store i64 0, ptr {kept}")
        aside = loop.at(histogram, "i8", _PLACES * _ENTRY * 8)
        return histogram, aside, kept, state_at(loop, place)

    pointers = loop.once(("aside", index), known)
    _, aside, kept, _ = pointers
    some = loop.add(f"bitcast {vector('i1')} {inside} to i{WIDTH}")
    some = loop.add(f"zext i{WIDTH} {some} to i64")
    count = loop.add(f"load i64, ptr {kept}")
    # Vectors that a processor has to take apart are compressed wrongly by LLVM 22: no processor
    # has shorter ones than these.
    lanes = 128 // int(word[1:])
    for first in range(0, WIDTH, lanes):
        numbers, where = (
            loop.lanes(element, x, first, lanes) for element, x in ((word, bits), ("i1", inside))
        )
        few = f"<{lanes} x {word}>"
        compress = f"@llvm.experimental.vector.compress.v{lanes}{word}"
        arguments = f"{few} {numbers}, <{lanes} x i1> {where}, {few} poison"
        numbers = loop.add(f"call {few} {compress}({arguments})")
        loop.do(f"store {few} {numbers}, ptr {loop.at(aside, word, count)}, align 4")
        here = loop.add(f"lshr i64 {some}, {first}")
        here = loop.add(f"and i64 {here}, {(1 << lanes) - 1}")
        more = loop.add(f"call i64 @llvm.ctpop.i64(i64 {here})")
        count = loop.add(f"add i64 {count}, {more}")
    loop.do(f"store i64 {count}, ptr {kept}")
    arguments = ", ".join(f"ptr {pointer}" for pointer in pointers)
    with loop.where(loop.add(f"icmp sge i64 {count}, {ASIDE}"), rare=True):
        loop.do(f"call void @count_{word}({arguments})")
    loop.after.append(lambda: loop.do(f"call void @count_{word}({arguments})"))


def _total(loop: LlvmPass, where: str, index: int) -> None:
    """Count where something holds, and tell it after the loop."""
    i32 = vector("i32")
    total = loop.loop_here.carry(i32, "zeroinitializer")
    one = loop.add(f"zext {vector('i1')} {where} to {i32}")
    loop.loop_here.next(total, loop.add(f"add {i32} {total}, {one}"))

    def tell() -> None:
        number = loop.add(f"call i32 @llvm.vector.reduce.add.v{WIDTH}i32({i32} {total})")
        loop.tell(index, loop.add(f"uitofp i32 {number} to double"))

    loop.after.append(tell)


def state_at(text: LlvmPass | LlvmSettle, place: int, which: int = 0) -> str:
    """Where one of the numbers is that are kept of a `kth`, by its place among those."""
    return text.at("%s", "i64", len(text.program.steps) + STATE * place + which)


def histogram_at(text: LlvmPass | LlvmSettle, place: int) -> str:
    """The histogram of a `kth`."""
    return text.at(text.array("%scratch", HISTOGRAMS), "i8", SIZE * place)


def gather(program: Program, whole: Array, part: Array) -> None:
    """Add the counts of one thread to those of another, and empty them. Both are bytes of working
    memory."""
    kinds = [f"u{int(step.dtype[1:]) // 8}" for step in program.steps if step.repeats]
    for place, kind in enumerate(kinds):
        histogram = slice(SIZE * place, SIZE * (place + 1))
        mine, other = (x[histogram].view(kind).reshape(-1, _ENTRY)[:_PLACES] for x in (whole, part))
        mine[:, 0] += other[:, 0]
        mine[:, 1:] |= other[:, 1:]
        other[...] = 0


# --- when the pass is done -------------------------------------------------------------------


def settle(text: LlvmSettle, step: Kth, count: str, index: int) -> str:
    """The k-th largest, as far as it is known; whether the pass has to be done again is kept."""
    place = text.ordinal(index)
    k = _k(text, step, count)
    above = text.add(f"fptosi double {text.number_found(index)} to i64")
    pointers = f"ptr {histogram_at(text, place)}, ptr {state_at(text, place)}"
    text.do("%value" + str(index) + " = alloca double")
    arguments = f"{pointers}, i64 {k}, i64 {above}, ptr %value{index}"
    text.again.append(text.add(f"call i64 @kth_{_word(step)}({arguments})"))
    return text.add(f"load double, ptr %value{index}")


def start(text: LlvmSettle, step: Kth, index: int) -> None:
    """Begin with all numbers."""
    place = text.ordinal(index)
    for which, number in ((_LOW, 0), (_SHIFT, _whole_range(step.dtype)), (_SURE, 1)):
        text.do(f"store i64 {number}, ptr {state_at(text, place, which)}")


def bracket(text: LlvmSettle, step: Kth, count: str, index: int) -> None:
    """Begin with what a sample of `%taken` numbers among `%size` says."""
    place = text.ordinal(index)
    pointers = f"ptr {histogram_at(text, place)}, ptr {state_at(text, place)}"
    arguments = f"{pointers}, i64 {_k(text, step, count)}, i64 %taken, i64 %size"
    text.do(f"call void @bracket_{_word(step)}({arguments})")


def _k(text: LlvmSettle, step: Kth, count: str) -> str:
    share = text.add(f"load double, ptr {text.at('%c', 'double', step.constant)}")
    count = text.add(f"extractelement {vector('double')} {count}, i32 0")
    return text.add(f"fptosi double {text.add(f'fmul double {count}, {share}')} to i64")


def functions(steps: Iterable[Kth]) -> Iterator[str]:
    """What passes with some steps, and what ends them, call."""
    for dtype in sorted({step.dtype for step in steps}):
        yield from _count(f"i{dtype[1:]}")
        yield from _bucket(f"i{dtype[1:]}")
        yield from _kth(dtype)
        yield from _bracket(dtype)


def _count(word: str) -> list[str]:
    """Count the numbers that were put aside; there are none after it."""
    text, entry = LlvmText(), f"<{_ENTRY} x {word}>"
    count = text.add("load i64, ptr %kept")
    low, shift = (_kept(text, which) for which in (_LOW, _SHIFT))
    with text.loop(count) as loop:
        bits = text.add(f"load {word}, ptr {text.at('%aside', word, loop.index)}")
        wide = bits if word == "i64" else text.add(f"zext {word} {bits} to i64")
        bucket = text.add(f"lshr i64 {text.add(f'sub i64 {wide}, {low}')}, {shift}")
        at = text.at("%histogram", entry, _place(text, bucket))
        more = text.add(f"add {word} {text.add(f'load {word}, ptr {at}')}, 1")
        text.do(f"store {word} {more}, ptr {at}")
        # What is stored and read at once by turns is slow: most numbers change nothing here.
        places = [text.at(at, word, place) for place in (1, 2)]
        before = [text.add(f"load {word}, ptr {place}") for place in places]
        lacked = text.add(f"xor {word} {bits}, -1")
        after = [
            text.add(f"or {word} {x}, {y}") for x, y in zip(before, (bits, lacked), strict=True)
        ]
        new = [text.add(f"xor {word} {x}, {y}") for x, y in zip(before, after, strict=True)]
        changed = text.add(f"icmp ne {word} {text.add(f'or {word} {new[0]}, {new[1]}')}, 0")
        with text.where(changed, rare=True):
            for place, bits_seen in zip(places, after, strict=True):
                text.do(f"store {word} {bits_seen}, ptr {place}")
    text.do("store i64 0, ptr %kept")
    arguments = "ptr %histogram, ptr %aside, ptr %kept, ptr %state"
    return function(f"internal void @count_{word}({arguments})", text)


def _place(text: LlvmText, bucket: str) -> str:
    """Where a bucket is."""
    free = text.add(f"mul i64 {text.add(f'lshr i64 {bucket}, {_ROW}')}, {_APART}")
    return text.add(f"add i64 {bucket}, {free}")


def _bucket(word: str) -> list[str]:
    """The bucket with a number that has so many from it on, or the last; and in `%total` how many
    those are."""
    text, entry = LlvmText(), f"<{_ENTRY} x {word}>"
    text.do("br label %scan")
    text.start_block("scan")
    text.do(f"%bucket = phi i64 [{BUCKETS - 1}, %entry], [%lower, %scan]")
    text.do("%so_far = phi i64 [0, %entry], [%more, %scan]")
    at = text.at("%histogram", entry, _place(text, "%bucket"))
    count = text.add(f"load {word}, ptr {at}")
    wide = count if word == "i64" else text.add(f"zext {word} {count} to i64")
    text.do(f"%more = add i64 %so_far, {wide}")
    text.do("%lower = sub i64 %bucket, 1")
    enough = text.add("icmp sge i64 %more, %rank")
    last = text.add("icmp eq i64 %bucket, 0")
    text.do(f"br i1 {text.add(f'or i1 {enough}, {last}')}, label %scanned, label %scan")
    text.start_block("scanned")
    text.do("store i64 %more, ptr %total")
    arguments = "ptr %histogram, i64 %rank, ptr %total"
    return function(f"internal i64 @bucket_{word}({arguments})", text, "i64 %bucket")


def _kth(dtype: str) -> list[str]:
    """The k-th largest, where so many are above its range; 1 where the pass is to be done again."""
    word, real = f"i{dtype[1:]}", REAL[dtype]
    text, entry = LlvmText(), f"<{_ENTRY} x {word}>"
    text.do("%total = alloca i64")
    text.do("%again = alloca i64")
    text.do("store i64 0, ptr %again")
    rank = text.add("sub i64 %k, %above")
    bucket = text.add(f"call i64 @bucket_{word}(ptr %histogram, i64 {rank}, ptr %total)")
    counted = text.add("load i64, ptr %total")
    [numbers] = text.read(entry, "%histogram", [_place(text, bucket)])
    any_, lacked = (text.add(f"extractelement {entry} {numbers}, i32 {i}") for i in (1, 2))
    _empty(text, word)
    inside = text.add(f"icmp sge i64 {counted}, {rank}")
    inside = text.add(f"and i1 {inside}, {text.add(f'icmp sge i64 {rank}, 1')}")
    low, shift, sure = (_kept(text, which) for which in range(STATE))
    differ = text.add(f"icmp ne {word} {text.add(f'and {word} {any_}, {lacked}')}, 0")
    with text.where(text.add(f"and i1 {inside}, {differ}")):
        first = text.add(f"add i64 {low}, {text.add(f'shl i64 {bucket}, {shift}')}")
        fewer = text.add(f"sub i64 {shift}, {_BITS}")
        fewer = text.add(f"call i64 @llvm.smax.i64(i64 {fewer}, i64 0)")
        _keep(text, first, fewer, "1")
    lost = text.add(f"xor i1 {inside}, true")
    lost = text.add(f"and i1 {lost}, {text.add(f'icmp eq i64 {sure}, 0')}")
    with text.where(text.add(f"and i1 {lost}, {text.add('icmp sgt i64 %k, 0')}")):
        _keep(text, "0", str(_whole_range(dtype)), "1")
    number = text.add(f"bitcast {word} {any_} to {real}")
    if dtype == "F32":
        number = text.add(f"fpext float {number} to double")
    none = text.add("icmp sle i64 %k, 0")
    number = text.add(f"select i1 {none}, double 0x7FF0000000000000, double {number}")
    text.do(f"store double {number}, ptr %value")
    again = text.add("load i64, ptr %again")
    arguments = "ptr %histogram, ptr %state, i64 %k, i64 %above, ptr %value"
    return function(f"internal i64 @kth_{word}({arguments})", text, f"i64 {again}")


def _kept(text: LlvmText, which: int) -> str:
    return text.add(f"load i64, ptr {text.at('%state', 'i64', which)}")


def _keep(text: LlvmText, *numbers: str) -> None:
    """Keep another range, and do the pass again."""
    for which, number in enumerate(numbers):
        text.do(f"store i64 {number}, ptr {text.at('%state', 'i64', which)}")
    text.do("store i64 1, ptr %again")


def _empty(text: LlvmText, word: str) -> None:
    size = _PLACES * _ENTRY * int(word[1:]) // 8
    text.do(f"call void @llvm.memset.p0.i64(ptr %histogram, i8 0, i64 {size}, i1 false)")


def _bracket(dtype: str) -> list[str]:
    """The range of the k-th by a sample: its buckets around the same share of it, by three times
    what chance does there, and a 64th of the variance more, as numbers that stand together are
    alike."""
    word, text = f"i{dtype[1:]}", LlvmText()
    text.do("%total = alloca i64")
    text.do("%again = alloca i64")
    k, taken, size = (text.add(f"sitofp i64 %{x} to double") for x in ("k", "taken", "size"))
    share = text.add(f"fdiv double {k}, {size}")
    rank = text.add(f"fmul double {share}, {taken}")
    rest = text.add(f"fsub double 1.0, {share}")
    variance = text.add(f"fmul double {rank}, {rest}")
    variance = text.add(f"call double @llvm.maximum.f64(double {variance}, double 1.0)")
    chance = text.add(f"call double @llvm.sqrt.f64(double {variance})")
    off = text.add(f"fmul double {chance}, 3.0")
    off = text.add(f"fadd double {off}, {text.add(f'fmul double {variance}, 0.015625')}")
    ends = []
    for how in ("fsub", "fadd"):
        number = text.add(f"fptosi double {text.add(f'{how} double {rank}, {off}')} to i64")
        ends.append((number, how))
    first = text.add(f"icmp slt i64 {ends[0][0]}, 1")
    last = text.add(f"icmp sge i64 {ends[1][0]}, %taken")
    upper, lower = (
        text.add(f"call i64 @bucket_{word}(ptr %histogram, i64 {number}, ptr %total)")
        for number, _ in ends
    )
    upper = text.add(f"select i1 {first}, i64 {BUCKETS - 1}, i64 {upper}")
    lower = text.add(f"select i1 {last}, i64 0, i64 {lower}")
    _empty(text, word)
    whole = _whole_range(dtype)
    many = text.add(f"sub i64 {upper}, {lower}")
    zeros = text.add(f"call i64 @llvm.ctlz.i64(i64 {many}, i1 false)")
    open_ = text.add(f"sub i64 {64 + whole - _BITS}, {zeros}")
    _keep(text, text.add(f"shl i64 {lower}, {whole}"), open_, "0")
    arguments = "ptr %histogram, ptr %state, i64 %k, i64 %taken, i64 %size"
    return function(f"internal void @bracket_{word}({arguments})", text)
