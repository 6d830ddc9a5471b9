"""Products of tall matrices with small ones, in float64: as LLVM IR.

A panel of a few rows is taken to float64 and multiplied while it lies in the cache; no copy of the
whole matrix is made. Each number is summed up in the order of the rows, or of the columns, with one
rounding a term: its bits are the same on every processor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pemlang.kernels.llvm_text import LlvmText, function

ROWS = 4
"""Rows of a product that are summed up at once."""

COLUMNS = 8
"""Columns of it that are, and what numbers of columns are filled up to: with ROWS as many sums as
the registers of any processor have room for."""

SUMS = f"<{COLUMNS} x double>"
"""As many numbers side by side."""

_SQUARE = 8
"""The side of a square that is turned at once."""


def tall_source(real: str) -> str:
    """A module with `@gram`, `@columns` and `@rows`, of tall matrices of `float` or `double`."""
    lines = [
        *_pack(real),
        *_pack_turned(real),
        *_multiply(adds=False),
        *_multiply(adds=True),
        *_gram(real),
        *_columns(real),
        *_rows(real),
        f"declare {SUMS} @llvm.fma.v{COLUMNS}f64({', '.join([SUMS] * 3)})",
        "declare i64 @llvm.smin.i64(i64, i64)",
    ]
    return "\n".join(lines)


# --- panels in float64 -----------------------------------------------------------------------


def _pack(real: str) -> list[str]:
    """`@pack`: some rows in float64."""
    text = LlvmText()
    with text.loop("%rows") as row:
        source = text.at("%from", real, text.add(f"mul i64 {row.index}, %stride"))
        target = text.at("%to", "double", text.add(f"mul i64 {row.index}, %wide"))
        many = text.add(f"sub i64 %columns, {COLUMNS - 1}")
        with text.loop(many, step=COLUMNS) as column:
            _copied(text, real, source, column.index, target, column.index, COLUMNS)
        with text.loop("%columns", first=text.add(f"and i64 %columns, {-COLUMNS}")) as column:
            _copied(text, real, source, column.index, target, column.index, 1)
    return function(f"void @pack({_PACKED})", text)


_PACKED = "ptr %from, i64 %stride, i64 %rows, i64 %columns, ptr %to, i64 %wide"


def _copied(
    text: LlvmText, real: str, source: str, first: str, target: str, to: str, width: int
) -> None:
    """Some numbers that lie side by side, in float64."""
    narrow, wide = (f"<{width} x {x}>" if width > 1 else x for x in (real, "double"))
    number = text.add(f"load {narrow}, ptr {text.at(source, real, first)}, align 4")
    if real == "float":
        number = text.add(f"fpext {narrow} {number} to {wide}")
    text.do(f"store {wide} {number}, ptr {text.at(target, 'double', to)}, align 8")


def _pack_turned(real: str) -> list[str]:
    """`@pack_turned`: some columns in float64, each of which becomes a row."""
    text = LlvmText()
    squares = [text.add(f"and i64 %{name}, {-_SQUARE}") for name in ("rows", "columns")]
    with text.loop(squares[0], step=_SQUARE) as row:
        with text.loop(squares[1], step=_SQUARE) as column:
            _turned(text, real, row.index, column.index)
        with text.loop("%columns", first=squares[1]) as column, text.loop(str(_SQUARE)) as more:
            _one(text, real, text.add(f"add i64 {row.index}, {more.index}"), column.index)
    with text.loop("%rows", first=squares[0]) as row, text.loop("%columns") as column:
        _one(text, real, row.index, column.index)
    return function(f"void @pack_turned({_PACKED})", text)


def _one(text: LlvmText, real: str, row: str, column: str) -> None:
    """One number to its place."""
    source = text.add(f"add i64 {text.add(f'mul i64 {row}, %stride')}, {column}")
    target = text.add(f"add i64 {text.add(f'mul i64 {column}, %wide')}, {row}")
    _copied(text, real, "%from", source, "%to", target, 1)


def _turned(text: LlvmText, real: str, row: str, column: str) -> None:
    """A square of numbers: pairs, then fours, then all of a row change places."""
    narrow, wide = f"<{_SQUARE} x {real}>", f"<{_SQUARE} x double>"
    lines = []
    for number in range(_SQUARE):
        start = text.add(f"mul i64 {text.add(f'add i64 {row}, {number}')}, %stride")
        source = text.at("%from", real, text.add(f"add i64 {start}, {column}"))
        lines.append(text.add(f"load {narrow}, ptr {source}, align 4"))
    apart = 1
    while apart < _SQUARE:
        swapped = list(lines)
        for number in range(_SQUARE):
            if number & apart == 0:
                pair = [lines[number], lines[number + apart]]
                for second, place in enumerate((number, number + apart)):
                    swapped[place] = _shuffled(text, narrow, pair, _exchange(apart, second))
        lines, apart = swapped, 2 * apart
    for number, line in enumerate(lines):
        start = text.add(f"mul i64 {text.add(f'add i64 {column}, {number}')}, %wide")
        target = text.at("%to", "double", text.add(f"add i64 {start}, {row}"))
        if real == "float":
            line = text.add(f"fpext {narrow} {line} to {wide}")  # noqa: PLW2901
        text.do(f"store {wide} {line}, ptr {target}, align 8")


def _exchange(apart: int, second: int) -> Iterator[int]:
    """Which of the numbers of two rows make the first or the second of them, when those that lie
    `apart` from the diagonal of a square of twice that change places."""
    for number in range(_SQUARE):
        own = number & ~apart | (apart if second else 0)
        yield own + (_SQUARE if number & apart else 0)


def _shuffled(text: LlvmText, type_: str, pair: Sequence[str], picked: Iterator[int]) -> str:
    mask = ", ".join(f"i32 {number}" for number in picked)
    return text.add(
        f"shufflevector {type_} {pair[0]}, {type_} {pair[1]}, <{_SQUARE} x i32> <{mask}>"
    )


# --- products --------------------------------------------------------------------------------


def _multiply(adds: bool) -> list[str]:
    """`@multiply`: out = left·right; or `@multiply_add`, which adds to what is there, and leaves
    out what lies under the diagonal by so much as that no other number is left out.

    Takes how far the rows of left lie apart, and its columns; how far the rows of right do, and
    those of out; and how many rows and columns the product has, and terms each number.
    """
    text = LlvmText()
    with text.loop("%rows", step=ROWS) as row:
        first = text.add(f"and i64 {row.index}, {-COLUMNS}") if adds else "0"
        numbers = [text.add(f"add i64 {row.index}, {number}") for number in range(ROWS)]
        lefts = [
            text.at("%left", "double", text.add(f"mul i64 {number}, %left_row"))
            for number in numbers
        ]
        outs = [
            text.at("%out", "double", text.add(f"mul i64 {number}, %out_row")) for number in numbers
        ]
        with text.loop("%columns", first=first, step=COLUMNS) as column:
            places = [text.at(out, "double", column.index) for out in outs]
            starts = [
                text.add(f"load {SUMS}, ptr {place}, align 8") if adds else "zeroinitializer"
                for place in places
            ]
            right = text.at("%right", "double", column.index)
            with text.loop("%depth") as term:
                sums = [term.carry(SUMS, start) for start in starts]
                at = text.at(right, "double", text.add(f"mul i64 {term.index}, %right_row"))
                line = text.add(f"load {SUMS}, ptr {at}, align 8")
                step = text.add(f"mul i64 {term.index}, %left_column")
                for total, left in zip(sums, lefts, strict=True):
                    number = text.add(f"load double, ptr {text.at(left, 'double', step)}")
                    one = spread(text, number)
                    fma = f"@llvm.fma.v{COLUMNS}f64({SUMS} {one}, {SUMS} {line}, {SUMS} {total})"
                    term.next(total, text.add(f"call {SUMS} {fma}"))
            for total, place in zip(sums, places, strict=True):
                text.do(f"store {SUMS} {total}, ptr {place}, align 8")
    name = "multiply_add" if adds else "multiply"
    return function(
        f"void @{name}(ptr %left, i64 %left_row, i64 %left_column, ptr %right, i64 %right_row, "
        "ptr %out, i64 %out_row, i64 %rows, i64 %columns, i64 %depth)",
        text,
    )


def spread(text: LlvmText, number: str) -> str:
    """COLUMNS times a number."""
    one = text.add(f"insertelement {SUMS} poison, double {number}, i32 0")
    zeros = f"<{COLUMNS} x i32> zeroinitializer"
    return text.add(f"shufflevector {SUMS} {one}, {SUMS} poison, {zeros}")


def _gram(real: str) -> list[str]:
    """`@gram`: xᵀx, added to zeros.

    Takes x (n, r), or where it is turned its rows, r of n numbers; room for a panel, with zeros
    where rows are filled up; the rows of a panel; and the numbers that r is filled up to.
    """
    text = LlvmText()
    turned = text.add("icmp ne i64 %turned, 0")
    straight = text.add("icmp eq i64 %turned, 0")
    with text.loop("%n", step="%tile") as loop:
        left = text.add(f"sub i64 %n, {loop.index}")
        rows = text.add(f"call i64 @llvm.smin.i64(i64 {left}, i64 %tile)")
        with text.where(turned):
            source = text.at("%x", real, loop.index)
            text.do(
                f"call void @pack_turned(ptr {source}, i64 %stride, i64 %r, i64 {rows}, "
                "ptr %panel, i64 %wide)"
            )
        with text.where(straight):
            source = text.at("%x", real, text.add(f"mul i64 {loop.index}, %stride"))
            text.do(
                f"call void @pack(ptr {source}, i64 %stride, i64 {rows}, i64 %r, ptr %panel, "
                "i64 %wide)"
            )
        text.do(
            "call void @multiply_add(ptr %panel, i64 1, i64 %wide, ptr %panel, i64 %wide, "
            f"ptr %out, i64 %wide, i64 %wide, i64 %wide, i64 {rows})"
        )
    with text.loop("%r") as row, text.loop(row.index) as column:
        above, below = (
            text.at("%out", "double", text.add(f"add i64 {text.add(f'mul i64 {i}, %wide')}, {j}"))
            for i, j in ((column.index, row.index), (row.index, column.index))
        )
        text.do(f"store double {text.add(f'load double, ptr {above}')}, ptr {below}")
    return function(
        "void @gram(i64 %n, i64 %r, i64 %stride, i64 %turned, i64 %tile, i64 %wide, "
        "ptr %x, ptr %panel, ptr %out)",
        text,
    )


def _columns(real: str) -> list[str]:
    """`@columns`: x·y of x (n, r) and y (r, wide). Rows of the product are filled up to ROWS."""
    text = LlvmText()
    with text.loop("%n", step="%tile") as loop:
        left = text.add(f"sub i64 %n, {loop.index}")
        rows = text.add(f"call i64 @llvm.smin.i64(i64 {left}, i64 %tile)")
        source = text.at("%x", real, text.add(f"mul i64 {loop.index}, %stride"))
        text.do(
            f"call void @pack(ptr {source}, i64 %stride, i64 {rows}, i64 %r, ptr %panel, i64 %r)"
        )
        full = text.add(f"and i64 {text.add(f'add i64 {rows}, {ROWS - 1}')}, {-ROWS}")
        out = text.at("%out", "double", text.add(f"mul i64 {loop.index}, %wide"))
        text.do(
            f"call void @multiply(ptr %panel, i64 %r, i64 1, ptr %y, i64 %wide, ptr {out}, "
            f"i64 %wide, i64 {full}, i64 %wide, i64 %r)"
        )
    return function(
        "void @columns(i64 %n, i64 %r, i64 %stride, i64 %tile, i64 %wide, "
        "ptr %x, ptr %panel, ptr %y, ptr %out)",
        text,
    )


def _rows(real: str) -> list[str]:
    """`@rows`: y·xᵀ of y (k, r) and the rows of xᵀ, r of n numbers. Its k, a multiple of ROWS, rows
    lie `wide` numbers apart, which n is filled up to."""
    text = LlvmText()
    with text.loop("%n", step="%tile") as loop:
        left = text.add(f"sub i64 %n, {loop.index}")
        columns = text.add(f"call i64 @llvm.smin.i64(i64 {left}, i64 %tile)")
        source = text.at("%x", real, loop.index)
        text.do(
            f"call void @pack(ptr {source}, i64 %stride, i64 %r, i64 {columns}, ptr %panel, "
            "i64 %tile)"
        )
        full = text.add(f"and i64 {text.add(f'add i64 {columns}, {COLUMNS - 1}')}, {-COLUMNS}")
        text.do(
            f"call void @multiply(ptr %y, i64 %r, i64 1, ptr %panel, i64 %tile, "
            f"ptr {text.at('%out', 'double', loop.index)}, i64 %wide, i64 %k, i64 {full}, i64 %r)"
        )
    return function(
        "void @rows(i64 %n, i64 %r, i64 %stride, i64 %tile, i64 %wide, i64 %k, "
        "ptr %x, ptr %panel, ptr %y, ptr %out)",
        text,
    )
