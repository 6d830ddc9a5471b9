"""Exact numbers: 0.1 + 0.2 is 0.3, so that a refactored recipe stays the same recipe.

A number is a Fraction until a measure enters it. Then it is a polynomial over what is measured, a
node of the graph whose value is known at build time.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault
from pemlang.graph.dag import Graph
from pemlang.graph.node import Node, Num, NumberNode, Part

if TYPE_CHECKING:
    from pemlang.graph.formula import Formula
    from pemlang.graph.rebuild import Rebuilding

MAX_BITS = 1024
MAX_TERMS = 200
MAX_DEGREE = 64

ARITHMETIC: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}

Monomial = frozenset[tuple[NumberNode, int]]
MonomialSum = dict[Monomial, Fraction]

_ONE: Monomial = frozenset()

_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}  # fmt: skip
_AMOUNT = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([A-Za-z]*)", re.ASCII)


@dataclass(frozen=True, eq=False, repr=False)
class Reciprocal(NumberNode):
    """1/x. It cancels nothing, since x may turn out to be zero.

    Attributes:
        of: x.
    """

    kind = "reciprocal"
    compound = True

    of: NumberNode

    @property
    def args(self) -> tuple[NumberNode, ...]:
        return (self.of,)

    def rebuilt(self, new: Rebuilding) -> Node:
        return new.graph.add(Reciprocal(new.node(self.of)))

    def value(self, value_of: Callable[[Num], Fraction]) -> Fraction:
        return exact("/", Fraction(1), value_of(self.of))

    def formula(self, write: Formula) -> str:
        return f"1/{write.inner(self.of)}"

    def invariant(self) -> None:
        assert isinstance(self.of, NumberNode), "an exact number has an exact reciprocal"


@dataclass(frozen=True, eq=False, repr=False)
class Polynomial(NumberNode):
    """Σ cᵢ·Π xⱼ^eᵢⱼ over distinct measures and reciprocals in key order.

    Attributes:
        variables: the xⱼ.
        terms: the (cᵢ, (eᵢ₁, …)), by the powers; no cᵢ is zero.
    """

    kind = "polynomial"
    compound = True

    variables: tuple[NumberNode, ...]
    terms: tuple[tuple[Fraction, tuple[int, ...]], ...]

    @property
    def args(self) -> tuple[NumberNode, ...]:
        return self.variables

    def parts(self) -> tuple[Part, ...]:
        return self.terms

    def rebuilt(self, new: Rebuilding) -> Node:
        number = _number(
            new.graph,
            {
                frozenset((new.node(x), e) for x, e in monomial): c
                for monomial, c in self.monomials()
            },
        )
        assert isinstance(number, Node)
        return number

    def monomials(self) -> list[tuple[Monomial, Fraction]]:
        """Its terms, each by the variables in it."""
        return [
            (frozenset((x, e) for x, e in zip(self.variables, powers, strict=True) if e), c)
            for c, powers in self.terms
        ]

    def value(self, value_of: Callable[[Num], Fraction]) -> Fraction:
        values = [value_of(x) for x in self.variables]
        total = Fraction(0)
        for coefficient, powers in self.terms:
            term = coefficient
            for value, power in zip(values, powers, strict=True):
                for _ in range(power):
                    term = exact("*", term, value)
            total = exact("+", total, term)
        return total

    def formula(self, write: Formula) -> str:
        terms = []
        for by, powers in self.terms:
            factors = [
                write.inner(x) + (f"^{power}" if power > 1 else "")
                for x, power in zip(self.variables, powers, strict=True)
                if power
            ]
            lead = [write.number(by)] if by != 1 or not factors else []
            terms.append("·".join([*lead, *factors]))
        return " + ".join(terms).replace("+ −", "− ")

    @property
    def title(self) -> str:
        return "arithmetic"

    def invariant(self) -> None:
        assert self.variables, "an exact number is no node"
        assert all(isinstance(x, NumberNode) for x in self.variables)
        assert not any(isinstance(x, Polynomial) for x in self.variables)
        assert [x.key for x in self.variables] == sorted({x.key for x in self.variables})
        powers = [e for _, e in self.terms]
        assert powers == sorted(set(powers)), "one term for each monomial, in order"
        assert all(c != 0 and len(e) == len(self.variables) for c, e in self.terms)
        assert all(any(e[i] for e in powers) for i in range(len(self.variables))), "nothing unused"
        assert self.terms != ((Fraction(1), (1,)),), "1·x, which is x"


def combine(graph: Graph, symbol: str, left: Num, right: Num) -> Num:
    """left symbol right, for one of + - * /.

    Raises:
        Fault: PEM0330 division by zero, PEM0331 a result that no float holds, PEM0333 a polynomial
            that is too large.
    """
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return exact(symbol, left, right)
    if symbol == "/":
        # x / c = (1/c)·x
        if isinstance(right, Fraction):
            right = exact("/", Fraction(1), right)
        else:
            right = graph.add(Reciprocal(right))
        symbol = "*"
    terms = _polynomial(left), _polynomial(right)
    return _number(graph, _product(*terms) if symbol == "*" else _sum(symbol, *terms))


def _polynomial(number: Num) -> MonomialSum:
    if isinstance(number, Fraction):
        return {_ONE: number}
    if isinstance(number, Polynomial):
        return dict(number.monomials())
    return {frozenset({(number, 1)}): Fraction(1)}


def _sum(symbol: str, left: MonomialSum, right: MonomialSum) -> MonomialSum:
    total = dict(left)
    for monomial, number in right.items():
        total[monomial] = exact(symbol, total.get(monomial, Fraction(0)), number)
    return total


def _product(left: MonomialSum, right: MonomialSum) -> MonomialSum:
    total: MonomialSum = {}
    _bound(len(left) * len(right) <= MAX_TERMS**2)
    for monomial_left, c in left.items():
        for monomial_right, d in right.items():
            powers = dict(monomial_left)
            for x, e in monomial_right:
                powers[x] = powers.get(x, 0) + e
            _bound(sum(powers.values()) <= MAX_DEGREE)
            monomial = frozenset(powers.items())
            product = exact("*", c, d)
            total[monomial] = exact("+", total.get(monomial, Fraction(0)), product)
    return total


def _bound(holds: bool) -> None:
    if not holds:
        raise Fault(
            "PEM0333",
            f"this number has more than {MAX_TERMS} terms, or one of a degree above {MAX_DEGREE}",
            "combine fewer measures in one number",
        )


def _number(graph: Graph, polynomial: MonomialSum) -> Num:
    """The one number or node that a polynomial is. Laws: 0·x = 0, 1·x = x, x + 0 = x."""
    kept = {monomial: number for monomial, number in polynomial.items() if number != 0}
    _bound(len(kept) <= MAX_TERMS)
    if not kept:
        return Fraction(0)
    if len(kept) == 1:
        [(monomial, number)] = kept.items()
        if not monomial:
            return number
        [(x, e), *more] = monomial
        if number == 1 and e == 1 and not more:
            return x
    args = sorted({x for monomial in kept for x, _ in monomial}, key=lambda x: x.key)
    powers = {monomial: dict(monomial) for monomial in kept}
    terms = sorted((tuple(powers[m].get(x, 0) for x in args), c) for m, c in kept.items())
    return graph.add(Polynomial(tuple(args), tuple((c, e) for e, c in terms)))


def exact(symbol: str, left: Fraction, right: Fraction) -> Fraction:
    """The exact result, rounded to a float64 when it would need more than MAX_BITS bits."""
    if symbol == "/" and right == 0:
        raise Fault("PEM0330", "this divides by zero", "divide by a number that is not zero")
    value = ARITHMETIC[symbol](left, right)
    if value.numerator.bit_length() + value.denominator.bit_length() <= MAX_BITS:
        return value
    try:
        rounded = Fraction(float(value))
    except OverflowError:
        raise Fault(
            "PEM0331", "this number is too large for any weight", "write one below 1e300"
        ) from None
    if rounded == 0 != value:
        raise Fault(
            "PEM0331", "this number is too small for any weight", "write 0, or one above 1e-300"
        )
    return rounded


def shown(value: Num) -> str:
    """A number as a reader writes it: 3/5 is 0.6; what no decimal is, as a float."""
    if isinstance(value, NumberNode):
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


def amount_of(text: str) -> int | None:
    """Bytes, as 512MB or 2GiB; None for a text that is no amount of them."""
    amount = _AMOUNT.fullmatch(text.strip())
    units = {unit.lower(): size for unit, size in _UNITS.items()}
    size = units.get(amount[2].lower()) if amount else None
    return None if amount is None or size is None else int(Fraction(amount[1]) * size)
