"""Exact numbers: 0.1 + 0.2 is 0.3, so that a refactored recipe stays the same recipe.

A number is a Fraction until a measure enters it; then it is a node of the graph, and its value
is known at build time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction

from pemlang.diagnostics import Fault
from pemlang.graph.node import Graph, Node, Num, NumberType

MAX_BITS = 1024

ARITHMETIC: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def combine(graph: Graph, symbol: str, left: Num, right: Num) -> Num:
    """left symbol right, for one of + - * /.

    Raises:
        Fault: PEM0330 division by zero, PEM0331 a result that no float holds.
    """
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return exact(symbol, left, right)
    # The laws that keep measured coefficients small: 0·m = 0, 1·m = m, m + 0 = m.
    if symbol == "*":
        for one, other in ((left, right), (right, left)):
            if one == 0:
                return Fraction(0)
            if one == 1:
                return other
    if symbol == "+":
        for one, other in ((left, right), (right, left)):
            if one == 0:
                return other
    # x − y = x + (−1)·y, and x / c = (1/c)·x.
    if symbol == "-":
        return combine(graph, "+", left, combine(graph, "*", Fraction(-1), right))
    if symbol == "/" and isinstance(right, Fraction):
        return combine(graph, "*", left, exact("/", Fraction(1), right))
    # The law x·y = y·x, and so for +: an exact number first, then by key.
    swap = isinstance(left, Node) and (isinstance(right, Fraction) or right.key < left.key)
    if symbol in "*+" and swap:
        left, right = right, left
    args = tuple(n for n in (left, right) if isinstance(n, Node))
    shape = tuple(None if isinstance(n, Node) else n for n in (left, right))
    return graph.add("number", args, (symbol, shape), NumberType())


def exact(symbol: str, left: Fraction, right: Fraction) -> Fraction:
    """The exact result, rounded to a float64 when it would need more than MAX_BITS bits."""
    if symbol == "/" and right == 0:
        raise Fault("PEM0330", "this divides by zero", "check the divisor")
    value = ARITHMETIC[symbol](left, right)
    if value.numerator.bit_length() + value.denominator.bit_length() <= MAX_BITS:
        return value
    try:
        rounded = Fraction(float(value))
    except OverflowError:
        raise Fault("PEM0331", "this number is too large for any weight", None) from None
    if rounded == 0 != value:
        raise Fault("PEM0331", "this number is too small for any weight", None)
    return rounded


def operands(node: Node) -> tuple[Num, Num]:
    """The two operands of a `number` node, exact ones in their places."""
    args = iter(node.args)
    left, right = (next(args) if n is None else n for n in node.attrs[1])
    return left, right


def shown(value: Num) -> str:
    """A number as a reader writes it: 3/5 is 0.6; what no decimal is, as a float."""
    if isinstance(value, Node):
        return "…"
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest == 1 and value.denominator < 10**12:
        digits = 0
        while (value * 10**digits).denominator != 1:
            digits += 1
        scaled = abs(int(value * 10**digits))
        whole, part = divmod(scaled, 10**digits)
        text = f"{whole}.{part:0{digits}d}" if digits else str(whole)
        return ("-" if value < 0 else "") + text
    return repr(float(value))
