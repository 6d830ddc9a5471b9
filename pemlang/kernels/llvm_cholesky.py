"""The Cholesky factor of a small Gram matrix and its inverse, in float64: as LLVM IR.

All loops run along rows, each number is made in one order, and its bits are the same on every
processor.
"""

from __future__ import annotations

from pemlang.kernels.llvm_tall import COLUMNS, SUMS, spread
from pemlang.kernels.llvm_text import LlvmText, function


def cholesky_source() -> str:
    """A module with `@cholesky`.

    It takes the size of a symmetric matrix with ones on its diagonal, and how many numbers its rows
    are filled up to with zeros; the matrix, of which it makes R with RᵀR that matrix, with zeros
    under the diagonal; and room for R⁻¹, which is zero. Gives 0 where the matrix is not positive
    definite as far as float64 can tell, else 1.
    """
    text = LlvmText()
    text.do("%positive = alloca i64")
    text.do("store i64 1, ptr %positive")
    with text.loop("%size") as row:
        _factor_row(text, row.index)
    going = text.add(f"icmp ne i64 {text.add('load i64, ptr %positive')}, 0")
    with text.where(going), text.loop("%size") as turn:
        last = text.add("sub i64 %size, 1")
        _inverse_row(text, text.add(f"sub i64 {last}, {turn.index}"))
    result = text.add("load i64, ptr %positive")
    head = "i64 @cholesky(i64 %size, i64 %wide, ptr %r, ptr %inverse)"
    lines = function(head, text, f"i64 {result}")
    return "\n".join(
        [
            *lines,
            f"declare {SUMS} @llvm.fma.v{COLUMNS}f64({SUMS}, {SUMS}, {SUMS})",
            "declare double @llvm.sqrt.f64(double)",
        ]
    )


def _line(text: LlvmText, table: str, row: str) -> str:
    return text.at(table, "double", text.add(f"mul i64 {row}, %wide"))


def _block(text: LlvmText, number: str) -> str:
    """The first of the numbers of a row that are done together with one."""
    return text.add(f"and i64 {number}, {-COLUMNS}")


def _factor_row(text: LlvmText, row: str) -> None:
    """Divide a row by the root of its pivot, and take its square from those below."""
    own = _line(text, "%r", row)
    pivot = text.add(f"load double, ptr {text.at(own, 'double', row)}")
    with text.where(text.add(f"fcmp ule double {pivot}, 0.0")):
        text.do("store i64 0, ptr %positive")
    root = text.add(f"call double @llvm.sqrt.f64(double {pivot})")
    with text.loop(row) as before:
        text.do(f"store double 0.0, ptr {text.at(own, 'double', before.index)}")
    roots = spread(text, root)
    with text.loop("%wide", first=_block(text, row), step=COLUMNS) as column:
        at = text.at(own, "double", column.index)
        number = text.add(f"load {SUMS}, ptr {at}, align 8")
        number = text.add(f"fdiv {SUMS} {number}, {roots}")
        text.do(f"store {SUMS} {number}, ptr {at}, align 8")
    with text.loop("%size", first=text.add(f"add i64 {row}, 1")) as below:
        factor = text.add(f"load double, ptr {text.at(own, 'double', below.index)}")
        start = _block(text, below.index)
        _less(text, _line(text, "%r", below.index), factor, own, start)


def _inverse_row(text: LlvmText, row: str) -> None:
    """A row of the inverse, from those below: what R times them leaves of the unit's, divided."""
    own, line = _line(text, "%inverse", row), _line(text, "%r", row)
    text.do(f"store double 1.0, ptr {text.at(own, 'double', row)}")
    with text.loop("%size", first=text.add(f"add i64 {row}, 1")) as below:
        factor = text.add(f"load double, ptr {text.at(line, 'double', below.index)}")
        start = _block(text, below.index)
        _less(text, own, factor, _line(text, "%inverse", below.index), start)
    pivots = spread(text, text.add(f"load double, ptr {text.at(line, 'double', row)}"))
    with text.loop("%wide", first=_block(text, row), step=COLUMNS) as column:
        at = text.at(own, "double", column.index)
        number = text.add(f"load {SUMS}, ptr {at}, align 8")
        number = text.add(f"fdiv {SUMS} {number}, {pivots}")
        text.do(f"store {SUMS} {number}, ptr {at}, align 8")


def _less(text: LlvmText, target: str, factor: str, source: str, start: str) -> None:
    """Take a multiple of a row from another, from a place on."""
    factors = spread(text, text.add(f"fneg double {factor}"))
    with text.loop("%wide", first=start, step=COLUMNS) as column:
        at = text.at(target, "double", column.index)
        before = text.add(f"load {SUMS}, ptr {at}, align 8")
        more = text.add(f"load {SUMS}, ptr {text.at(source, 'double', column.index)}, align 8")
        fma = f"@llvm.fma.v{COLUMNS}f64({SUMS} {factors}, {SUMS} {more}, {SUMS} {before})"
        text.do(f"store {SUMS} {text.add(f'call {SUMS} {fma}')}, ptr {at}, align 8")
