"""The places of numbers in their rows by size: as LLVM IR.

Short rows are compared each with each; of long ones the bits of the numbers are counted, digit by
digit (radix sort). Numbers are not negative, so that their bits, which are what is sorted, order as
they do; of equal ones the first comes first.
"""

from __future__ import annotations

from pemlang.kernels.llvm_text import WIDTH, LlvmText, function, vector

SHORT = 4 * WIDTH
"""Columns of a row that is compared."""

_LAST, _DIGIT = 12, 11
"""The most bits of the last digit, and of those before."""


def places(word: str) -> list[str]:
    """Functions `@places_i32` or `@places_i64`: the places of the numbers of some rows.

    They take the bits of the numbers, which are lost, and working memory for those of a row and
    twice for an order of it; where to write, as i32; how many numbers there are; and the columns.
    """
    text = LlvmText()
    short = text.add(f"icmp sle i64 %columns, {SHORT}")
    with text.loop("%count", step="%columns") as rows:
        keys, out = text.at("%keys", word, rows.index), text.at("%out", "i32", rows.index)
        with text.where(short):
            text.do(f"call void @compare_{word}(ptr {keys}, ptr {out}, i64 %columns)")
        with text.where(text.add(f"xor i1 {short}, true")):
            memory = ", ".join(f"ptr {x}" for x in (keys, "%other", "%order", "%second", out))
            text.do(f"call void @sort_{word}({memory}, i64 %columns)")
    pointers = "ptr %keys, ptr %other, ptr %order, ptr %second, ptr %out"
    return [
        *function(f"internal void @places_{word}({pointers}, i64 %count, i64 %columns)", text),
        *function(
            f"internal void @compare_{word}(ptr %keys, ptr %out, i64 %columns)", _compare(word)
        ),
        *function(f"internal void @sort_{word}({pointers}, i64 %columns)", _sort(word)),
    ]


# --- short rows ------------------------------------------------------------------------------


def _compare(word: str) -> LlvmText:
    """How many come before each: those that are less, and equal ones that stand before it."""
    text, many, i32 = LlvmText(), vector(word), vector("i32")
    with text.loop("%columns", step=WIDTH) as loop:
        here = text.add(f"load {many}, ptr {text.at('%keys', word, loop.index)}, align 4")
        ones = f"<{', '.join([f'{word} 1'] * WIDTH)}>"
        next_ = text.add(f"add {many} {here}, {ones}")  # what is under it is no more than `here`
        total = "zeroinitializer"
        total = _fewer(text, word, "0", loop.index, next_, total)
        for lane in range(WIDTH):
            at = text.add(f"add i64 {loop.index}, {lane}")
            later = ", ".join(f"{word} {int(other > lane)}" for other in range(WIDTH))
            bound = text.add(f"add {many} {here}, <{later}>")
            one = _before(text, word, at, bound)
            there = text.add(f"icmp slt i64 {at}, %columns")
            one = text.add(f"select i1 {there}, {i32} {one}, {i32} zeroinitializer")
            total = text.add(f"add {i32} {total}, {one}")
        after = text.add(f"add i64 {loop.index}, {WIDTH}")
        total = _fewer(text, word, after, "%columns", here, total)
        text.do(f"store {i32} {total}, ptr {text.at('%out', 'i32', loop.index)}, align 4")
    return text


def _fewer(text: LlvmText, word: str, first: str, end: str, bound: str, total: str) -> str:
    """A count, and those of some numbers that are under a bound."""
    i32 = vector("i32")
    with text.loop(end, first) as loop:
        so_far = loop.carry(i32, total)
        one = _before(text, word, loop.index, bound)
        loop.next(so_far, text.add(f"add {i32} {so_far}, {one}"))
    return so_far


def _before(text: LlvmText, word: str, at: str, bound: str) -> str:
    """1 where a number is under a bound."""
    number = text.add(f"load {word}, ptr {text.at('%keys', word, at)}")
    less = text.add(f"icmp slt {vector(word)} {text.spread(word, number)}, {bound}")
    return text.add(f"zext {vector('i1')} {less} to {vector('i32')}")


# --- long rows -------------------------------------------------------------------------------


def _sort(word: str) -> LlvmText:
    """Each row as numbers from 0 on, without bits that are 0 in all; then digit by digit."""
    text = LlvmText()
    text.do(f"%counts = alloca [{1 << _LAST} x i32], align 64")
    shift, least, bits = _range(text, word)
    _start(text, word, shift, least)
    # Digits but for the last are as many as it takes.
    number = text.name()
    before = text.block
    text.do(f"br label %digit{number}")
    text.start_block(f"digit{number}")
    state = (
        ("at", "i64", "0"),
        ("from", "ptr", "%other"),
        ("to", "ptr", "%keys"),
        ("by", "ptr", "%order"),
        ("next", "ptr", "%second"),
    )
    names = {name: f"%{name}{number}" for name, _, _ in state}
    swapped = {"from": "to", "to": "from", "by": "next", "next": "by"}
    head = len(text.lines)
    left = text.add(f"sub i64 {bits}, {names['at']}")
    more = text.add(f"icmp sgt i64 {left}, {_LAST}")
    text.do(f"br i1 {more}, label %scatter{number}, label %last{number}")
    text.start_block(f"scatter{number}")
    _scatter(text, word, names)
    following = text.add(f"add i64 {names['at']}, {_DIGIT}")
    text.do(f"br label %digit{number}")
    text.lines[head:head] = [
        f"  {names[name]} = phi {type_} [{start}, %{before}], "
        f"[{following if name == 'at' else names[swapped[name]]}, %{text.block}]"
        for name, type_, start in state
    ]
    text.start_block(f"last{number}")
    _place(text, word, names, left)
    return text


def _range(text: LlvmText, word: str) -> tuple[str, str, str]:
    """How many lowest bits are 0 in all of a row; the least number without them; and the bits of
    the largest without that."""
    width, many = int(word[1:]), vector(word)
    last = text.add(f"sub i64 %columns, {WIDTH}")
    with text.loop("%columns", step=WIDTH) as loop:
        kept = {
            "or": loop.carry(many, "zeroinitializer"),
            "umax": loop.carry(many, "zeroinitializer"),
            "umin": loop.carry(many, f"<{', '.join([f'{word} -1'] * WIDTH)}>"),
        }
        at = text.add(f"call i64 @llvm.smin.i64(i64 {loop.index}, i64 {last})")
        numbers = text.add(f"load {many}, ptr {text.at('%keys', word, at)}, align 4")
        for how, so_far in kept.items():
            both = f"{many} {so_far}, {numbers}"
            if how != "or":
                both = f"({many} {so_far}, {many} {numbers})"
                both = f"call {many} @llvm.{how}.v{WIDTH}{word}{both}"
            loop.next(so_far, text.add(both if how != "or" else f"or {both}"))
    ends = {
        how: text.add(f"call {word} @llvm.vector.reduce.{how}.v{WIDTH}{word}({many} {so_far})")
        for how, so_far in kept.items()
    }
    some = text.add(f"or {word} {ends['or']}, {1 << (width - 2)}")  # never all of its bits
    shift = text.add(f"call {word} @llvm.cttz.{word}({word} {some}, i1 false)")
    least = text.add(f"lshr {word} {ends['umin']}, {shift}")
    most = text.add(f"lshr {word} {ends['umax']}, {shift}")
    most = text.add(f"sub {word} {most}, {least}")
    zeros = text.add(f"call {word} @llvm.ctlz.{word}({word} {most}, i1 false)")
    bits = text.add(f"sub {word} {width}, {zeros}")
    return shift, least, bits if word == "i64" else text.add(f"zext {word} {bits} to i64")


def _start(text: LlvmText, word: str, shift: str, least: str) -> None:
    """The numbers without what all have, and the order in which they stand."""
    with text.loop("%columns") as loop:
        number = text.add(f"load {word}, ptr {text.at('%keys', word, loop.index)}")
        number = text.add(f"sub {word} {text.add(f'lshr {word} {number}, {shift}')}, {least}")
        text.do(f"store {word} {number}, ptr {text.at('%other', word, loop.index)}")
        index = text.add(f"trunc i64 {loop.index} to i32")
        text.do(f"store i32 {index}, ptr {text.at('%order', 'i32', loop.index)}")


def _digit_of(text: LlvmText, word: str, names: dict[str, str], index: str, mask: int) -> str:
    number = text.add(f"load {word}, ptr {text.at(names['from'], word, index)}")
    if word == "i32":
        number = text.add(f"zext i32 {number} to i64")
    number = text.add(f"lshr i64 {number}, {names['at']}")
    return text.add(f"and i64 {number}, {mask}")


def _count(text: LlvmText, word: str, names: dict[str, str], buckets: str, mask: int) -> None:
    """Where the numbers of each digit begin."""
    size = text.add(f"mul i64 {buckets}, 4")
    text.do(f"call void @llvm.memset.p0.i64(ptr %counts, i8 0, i64 {size}, i1 false)")
    with text.loop("%columns") as loop:
        digit = text.at("%counts", "i32", _digit_of(text, word, names, loop.index, mask))
        more = text.add(f"add i32 {text.add(f'load i32, ptr {digit}')}, 1")
        text.do(f"store i32 {more}, ptr {digit}")
    with text.loop(buckets) as loop:
        total = loop.carry("i32", "0")
        bucket = text.at("%counts", "i32", loop.index)
        count = text.add(f"load i32, ptr {bucket}")
        text.do(f"store i32 {total}, ptr {bucket}")
        loop.next(total, text.add(f"add i32 {total}, {count}"))


def _next_place(text: LlvmText, word: str, names: dict[str, str], index: str, mask: int) -> str:
    bucket = text.at("%counts", "i32", _digit_of(text, word, names, index, mask))
    place = text.add(f"load i32, ptr {bucket}")
    text.do(f"store i32 {text.add(f'add i32 {place}, 1')}, ptr {bucket}")
    return place


def _scatter(text: LlvmText, word: str, names: dict[str, str]) -> None:
    """Sort a row by one digit."""
    mask = (1 << _DIGIT) - 1
    _count(text, word, names, str(mask + 1), mask)
    with text.loop("%columns") as loop:
        place = text.add(f"zext i32 {_next_place(text, word, names, loop.index, mask)} to i64")
        number = text.add(f"load {word}, ptr {text.at(names['from'], word, loop.index)}")
        text.do(f"store {word} {number}, ptr {text.at(names['to'], word, place)}")
        origin = text.add(f"load i32, ptr {text.at(names['by'], 'i32', loop.index)}")
        text.do(f"store i32 {origin}, ptr {text.at(names['next'], 'i32', place)}")


def _place(text: LlvmText, word: str, names: dict[str, str], left: str) -> None:
    """The places by the last digit."""
    mask = (1 << _LAST) - 1
    _count(text, word, names, text.add(f"shl i64 1, {left}"), mask)
    with text.loop("%columns") as loop:
        place = _next_place(text, word, names, loop.index, mask)
        origin = text.add(f"load i32, ptr {text.at(names['by'], 'i32', loop.index)}")
        at = text.at("%out", "i32", text.add(f"zext i32 {origin} to i64"))
        text.do(f"store i32 {place}, ptr {at}")
