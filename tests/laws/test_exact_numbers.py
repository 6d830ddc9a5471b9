"""Numbers are exact: as written, through arithmetic, and into coefficients."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.laws.drawing import LORA, measured, numbers, schedules
from support.laws.expressions import PRODUCT, Tree, Writer
from support.laws.pool import ALL, LATE, LAWS, Pool, declared
from support.laws.reference import Reference

from pemlang.graph import MAX_BITS, Sum, at, exact

TRUE = [
    "0.1 + 0.2 == 0.3",
    "0.1 * 3 == 0.3",
    "1 / 3 * 3 == 1",
    "1 / 3 + 1 / 6 == 0.5",
    "1e-260 * 1e260 == 1",
    "1e-260 > 0",
    "1e260 + 1 > 1e260",
    "1 - 0.9 == 0.1",
    "-0.5 == 0.5 - 1",
    "- - 2 == 2",
    "2 - 3 - 4 == -5",
    "12 / 3 / 2 == 2",
    "2 + 3 * 4 == 14",
    "(2 + 3) * 4 == 20",
    "-2 * -3 == 6",
    "1_000.5 == 1000.5",
    "1e2 == 100 and 1E-2 == 0.01",
    "0.1 != 0.1 + 1e-30",
    "0.30000000000000004 != 0.3",
    "0 * 1e260 == 0",
]
FALSE = [
    "0.1 + 0.2 == 0.30000000000000004",
    "1 / 3 == 0.3333333333333333",
    "1e-260 == 0",
    "1e16 + 1 == 1e16",
]


def codes(pool: Pool, text: str) -> list[str]:
    return [d.code for d in pool.recipe(text).check()]


@pytest.mark.parametrize("statement", TRUE)
def test_it_holds_that(pool: Pool, statement: str) -> None:
    assert codes(pool, f"assert {statement}") == []


@pytest.mark.parametrize("statement", FALSE)
def test_it_does_not_hold_that(pool: Pool, statement: str) -> None:
    assert codes(pool, f"assert {statement}") == ["PEM0501"]


@settings(LAWS, max_examples=150)
@given(numbers(depth=4))
def test_arithmetic_is_that_of_fractions(pool: Pool, dense: Reference, tree: Tree) -> None:
    value = dense.number(tree, "", {})
    text = f"let x = {Writer().text(tree)}"
    assert pool.checked(text).names["x"] == value


@pytest.mark.parametrize(("x", "sites"), [("a", ALL), ("a[layers 1..2]", LATE)])
@settings(LAWS, max_examples=50)
@given(st.data(), numbers())
def test_a_coefficient_is_exact_at_every_site(
    pool: Pool, dense: Reference, x: str, sites: frozenset[str], data: st.DataObject, number: Tree
) -> None:
    schedule, all_ = data.draw(schedules(sites, depth=2)), dict.fromkeys(sites)
    wanted = {s: dense.number(schedule, s, all_) * dense.number(number, s, all_) for s in sites}
    assume(any(wanted.values()) and set(wanted.values()) != {1})
    write = Writer()
    factors = f"{write.text(schedule, PRODUCT + 1)} * ({write.text(number, PRODUCT + 1)} * {x})"
    node = pool.node(f"{declared('a')}let x = {factors}")
    assert isinstance(node, Sum)
    [coef] = node.coefficients
    assert {site: at(coef, site) for site in sites} == wanted


@settings(LAWS, max_examples=200)
@given(st.sampled_from("+-*/"), st.fractions(), st.fractions())
def test_small_numbers_stay_fractions(symbol: str, x: Fraction, y: Fraction) -> None:
    assume(symbol != "/" or y)
    wanted = {"+": x + y, "-": x - y, "*": x * y, "/": x / (y or 1)}[symbol]
    assert exact(symbol, x, y) == wanted


@settings(LAWS, max_examples=50)
@given(st.integers(1, 4), st.integers(200, 1500))
def test_numbers_stay_bounded_and_right_to_a_float(pool: Pool, root: int, steps: int) -> None:
    """(1 + root/2¹⁰)ⁿ needs 10·n bits: past the bound it is a float's, each step right to one."""
    value, factor, steps = Fraction(1), 1 + Fraction(root, 1024), min(steps, 1000)
    for _ in range(steps):
        value = exact("*", value, factor)
    assert value.numerator.bit_length() + value.denominator.bit_length() <= MAX_BITS + 64
    assert abs(float(value) / float(factor) ** steps - 1) < 1e-12


# Over measured k, m, n and an exact s: the laws of a ring, and division by what is exact.
MEASURED = [
    ("k + m", "m + k"),
    ("k * m", "m * k"),
    ("k + (m + n)", "k + m + n"),
    ("k * (m * n)", "k * m * n"),
    ("k * (m + n)", "k * m + k * n"),
    ("k - k", "0"),
    ("k + k", "2 * k"),
    ("k - (m - k)", "2 * k - m"),
    ("k + m - m", "k"),
    ("0 * k", "0"),
    ("k / s", "(1 / s) * k"),
    ("s * (2 * k)", "(2 * s) * k"),
    ("m / k", "(1 / k) * m"),
    ("(m + n) / k", "m / k + n / k"),
]


@pytest.mark.parametrize(("left", "right"), MEASURED)
@settings(LAWS, max_examples=12)
@given(st.tuples(*[measured(LORA)] * 3), numbers(zero=False))
def test_measured_numbers_have_one_form(
    pool: Pool, left: str, right: str, trees: tuple[Tree, ...], s: Tree
) -> None:
    write = Writer()
    named = zip("kmns", (*trees, s), strict=True)
    lets = "".join(f"let {name} = {write.text(tree)}\n" for name, tree in named)
    text = f"{write.recipe()}{lets}let left = {left}\nlet right = {right}\n"
    names = pool.checked(text).names
    assert names["left"] == names["right"]


ZERO_DIVISIONS = {
    "a number": "let x = 1 / 0 * a",
    "a number that comes to zero": "let x = 1 / (0.1 + 0.2 - 0.3) * a",
    "an adapter": "let x = a / 0",
    "a schedule": 'let x = a / per { "*.q": 0, else: 1 }',
    "a ramp that crosses zero": "let x = a / ramp(-1, 1)",
    "a schedule by a number": "let x = (ramp(1, 2) / 0) * a",
    "a measured number": "let x = a / distance(a, a)",
    "a measured number by itself": "let x = (distance(a, a) / distance(a, a)) * a",
    "a measured number, below": "let x = (1 / norm(0 * a)) * a",
    "a function": "def f(n: number) -> number = 1 / n\nlet x = f(0) * a",
}


@pytest.mark.parametrize("where", ZERO_DIVISIONS)
def test_division_by_zero_is_an_error(pool: Pool, where: str) -> None:
    text = ZERO_DIVISIONS[where]
    assert pool.error(f'{declared("a")}{text}\nsave x to "out"') == "PEM0330"


def repeated(first: str, step: str, last: int) -> str:
    """Definitions that each use the one before: `{0}` is the number, `{1}` the one before."""
    return first + "".join(step.format(i, i - 1) for i in range(1, last + 1))


SQUARES = repeated("let n0 = 2\n", "let n{0} = n{1} * n{1}\n", 11)
DOUBLE = "def f{0}(y: adapter) -> adapter = f{1}(y) + f{1}(y)\n"
LONG = "0.1234567890123456789012345678901234567890123"
BOUNDS = {
    "too large": ("let x = 1e260 * 1e260 * a", "PEM0331"),
    "too large by squares": (f"{SQUARES}let x = n11 * a", "PEM0331"),
    "too small": ("let x = 1e-260 * 1e-260 * a", "PEM0331"),
    "too large for float32": ("let x = 1e39 * a", "PEM0503"),
    "too large for float64": ("let x = 1e260 * (1e60 * d)", "PEM0331"),
    "too many digits": (f"let x = {LONG} * a", "PEM0110"),
    "too large an exponent": ("let x = 1e301 * a", "PEM0110"),
    "functions that double": (
        repeated("def f0(y: adapter) -> adapter = y + y\n", DOUBLE, 20) + "let x = f20(a)",
        "PEM0333",
    ),
    "steps on steps": (
        repeated("let n0 = cosine(a, b)\n", "let n{0} = 1 / (n{1} + 1)\n", 250)
        + "let x = n250 * a",
        "PEM0332",
    ),
    "a high power of a measure": (
        repeated("let n0 = cosine(a, b)\n", "let n{0} = n{1} * n{1}\n", 9) + "let x = n9 * a",
        "PEM0333",
    ),
    "squares of a measure": (
        repeated("let n0 = cosine(a, b)\n", "let n{0} = n{1} * n{1} + 1\n", 9) + "let x = n9 * a",
        "PEM0333",
    ),
    "a product of many measures": (
        "let n = " + " * ".join(f"(norm({x} * a) + 1)" for x in range(1, 12)) + "\nlet x = n * a",
        "PEM0333",
    ),
    "measures of measures": (
        repeated("let y0 = b\n", "let y{0} = cosine(a, y{1}) * b\n", 150) + "let x = y150",
        "PEM0332",
    ),
}


@pytest.mark.parametrize("what", BOUNDS)
def test_what_is_out_of_bounds_is_an_error(pool: Pool, what: str) -> None:
    text, code = BOUNDS[what]
    assert pool.error(f'{declared("abd")}{text}\nsave x to "out"') == code


def test_a_long_recipe_is_not_out_of_bounds(pool: Pool) -> None:
    chain = " + ".join(["a", "0.5 * b", "-c"] * 400)
    lets = repeated("let y0 = a\n", "let y{0} = y{1} + 0.5 * b\n", 300)
    doubled = repeated("let z0 = a\n", "let z{0} = z{1} + z{1}\n", 300)
    names = pool.checked(f"{declared('abc')}{lets}{doubled}let x = {chain}\n").names
    a, b, c = (names[name] for name in "abc")
    assert names["x"].as_sum() == {a: 400, b: 200, c: -400}
    assert names["y300"].as_sum() == {a: 1, b: 150}
    assert names["z300"].as_sum() == {a: 2**300}
