"""What help shows for a statement that does not parse: the statement as it was meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import lora, recipe

import pemlang
from pemlang.show import is_sentence

DECLARED = 'adapter a = "a"\nadapter b = "b"\n'
ROWS = [
    ('save a + to "x"', 'save a to "x"'),
    ('save a "x"', 'save a to "x"'),
    ('save a as "x"', 'save a to "x"'),
    ("save a to x/y with rank=2", 'save a to "x/y" with rank=2'),
    ('save a to "x" rank=2', 'save a to "x" with rank=2'),
    ('save a to "x", rank=2', 'save a to "x" with rank=2'),
    ('save a to "x" with rank 2', 'save a to "x" with rank=2'),
    ('save a to "x" with rank: 2', 'save a to "x" with rank=2'),
    ('save a to "x" with rank=2 dtype=bf16', 'save a to "x" with rank=2, dtype=bf16'),
    ("param w = 0.5", "param w: number = 0.5"),
    ('param w = "s"', 'param w: string = "s"'),
    ("param w = true", "param w: bool = true"),
    ("/* words */", "# words"),
    ("// words", "# words"),
    ("let x = 1 // words", "let x = 1  # words"),
    ("let x = 1 /* words */", "let x = 1  # words"),
    ("x = 2 * a", "let x = 2 * a"),
    ("let x := 2 * a", "let x = 2 * a"),
    ("let x 2 * a", "let x = 2 * a"),
    ("let x = .5 * a", "let x = 0.5 * a"),
    ("let x = 2a + 0.5 * b", "let x = 2 * a + 0.5 * b"),
    ("let x = 2 * a;", "let x = 2 * a"),
    ("let x = ties([a b], density=0.5)", "let x = ties([a, b], density=0.5)"),
    ("let x = compress(a rank=2)", "let x = compress(a, rank=2)"),
    ("let x = compress(a, rank 2)", "let x = compress(a, rank=2)"),
    ('let x = per { "*.q" 1, else: 0 }', 'let x = per { "*.q": 1, else: 0 }'),
    ('let x = a["*.query" "*.value"]', 'let x = a["*.query", "*.value"]'),
    ('assert norm(a) > 0 "zero"', 'assert norm(a) > 0 else "zero"'),
    ("assert 1 = 1", "assert 1 == 1"),
    ("assert 1 < 2 && 2 < 3", "assert 1 < 2 and 2 < 3"),
    ("let x = 'word'", 'let x = "word"'),
    ('adapter c from "a"', 'adapter c = "a"'),
    ('adapter c: lora(rank 4) = "a"', 'adapter c: lora(rank=4) = "a"'),
    ("let x = a[layer 0]", "let x = a[layers 0]"),
    ("let x = a[0..1]", "let x = a[layers 0..1]"),
    ("let x = 2 * a[0..1]", "let x = 2 * a[layers 0..1]"),
    ("let x = a[0:1]", "let x = a[layers 0..1]"),
    ("let x = a[layers 0:1]", "let x = a[layers 0..1]"),
    ("let x = a[layers 0 to 1]", "let x = a[layers 0..1]"),
    ("let x = a[*.query]", 'let x = a["*.query"]'),
    ("let x = a[likes b]", "let x = a[like b]"),
    ("param w: number in [0, 1] = 0.5", "param w: number in 0..1 = 0.5"),
    ("param w: number in (0, 1) = 0.5", "param w: number in 0..1 = 0.5"),
    ("param w: number in [-0.5, 1] = 0", "param w: number in -0.5..1 = 0"),
    ("param w: number in [0..1] = 0.5", "param w: number in 0..1 = 0.5"),
    ("param w: number in 0 to 1 = 0.5", "param w: number in 0..1 = 0.5"),
    ("param w: number in 0-1 = 0.5", "param w: number in 0..1 = 0.5"),
    ("param w in 0..1 = 0.5", "param w: number in 0..1 = 0.5"),
    ("param w in [0, 1] = 0.5", "param w: number in 0..1 = 0.5"),
    ("import std.paper", "import std.paper as paper"),
    ('import "lib/house.pem"', 'import "lib/house.pem" as house'),
    ("from std.paper import merge, unlearn", "import std.paper (merge, unlearn)"),
    ("import std.paper (*)", "import std.paper as paper"),
    ("from std.paper import *", "import std.paper as paper"),
    ('import "lib/house.pem" (*)', 'import "lib/house.pem" as house'),
    ('import "lib/house.pem" (half as h)', 'import "lib/house.pem" as house'),
    ("import std.paper (merge as m, unlearn)", "import std.paper as paper"),
    ("import lib/house (half)", 'import "lib/house.pem" (half)'),
    ("import ./lib/house.pem as h", 'import "./lib/house.pem" as h'),
    ("import lib.house (half)", 'import "lib/house.pem" (half)'),
    ("import lib.house.pem as h", 'import "lib/house.pem" as h'),
    ('print f"half"', 'print "half"'),
    ('print "norm {norm(a)}"', "print norm(a)"),
    ('print "norm {norm(a):.3f}, {cosine(a, b)=}"', "print norm(a)\nprint cosine(a, b)"),
    ('save a to f"half"', 'save a to "half"'),
    ("export let x = 2 * a", "let x = 2 * a"),
    ("def f(xs: list[adapter]) -> adapter = xs[0]", "def f(xs: [adapter]) -> adapter = xs[0]"),
    ("def f(x: adapter) -> List[adapter] = [x]", "def f(x: adapter) -> [adapter] = [x]"),
    (
        'test "x" {\n    c = 2 * a\n    d = c\n    assert same(c, d)\n}',
        'test "x" {\n    let c = 2 * a\n    let d = c\n    assert same(c, d)\n}',
    ),
    ("let x = a if true else b", "let x = if true then a else b"),
    ("let x = join(a, b if true else a)", "let x = join(a, if true then b else a)"),
    ("let x = 2 * a - b if 1 < 2 else b", "let x = if 1 < 2 then 2 * a - b else b"),
    ("let x = sum(w * a for w in [1, 2])", "let x = sum([w * a for w in [1, 2]])"),
    (
        "let x = sum(w * join(a, b) for w in [1, 2])",
        "let x = sum([w * join(a, b) for w in [1, 2]])",
    ),
    (
        "let x = sum([w * y for (w, y) in zip([1, 2], [a, b])])",
        "let x = sum([w * y for w, y in zip([1, 2], [a, b])])",
    ),
]
"""What was written, and what was meant."""

RIGHT = [
    *dict.fromkeys(meant for _, meant in ROWS if not meant.startswith("#")),
    "let x = ties([0.5 * a, b], weights=[1, 0.5], density=0.25, over=factors)",
    'let x = join(a[layers 0..1], b["*.query", "*.value"]) - 0.5 * a',
    "def f(x: adapter, by: number = 2) -> adapter = by * x + (1 - by) * b",
    'base m = ["org/name", "other/name"]',
    "param w: number in 0..1 = 0.5",
]
"""Statements of which a sign is left out, or written twice."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corrections")
    lora(folder / "a", 1)
    lora(folder / "b", 2)
    (folder / "lib").mkdir()
    (folder / "lib" / "house.pem").write_text("def half(x: adapter) -> adapter = 0.5 * x\n")
    return folder


def said(folder: Path, statement: str) -> tuple[pemlang.Diagnostic, ...]:
    text = f"{DECLARED}{statement}\n"
    found = pemlang.load(recipe(folder, text)).check()
    return tuple(d for d in found if d.code not in ("PEM0114", "PEM0320"))


@pytest.mark.parametrize(("wrong", "meant"), ROWS)
def test_help_is_the_statement_that_was_meant(folder: Path, wrong: str, meant: str) -> None:
    [only] = said(folder, wrong)
    assert only.help == meant
    assert only.span is not None and only.span.text == wrong
    assert said(folder, meant) == ()


WORDS = [
    (
        'test "x" {\n    save a to "x"\n}',
        "move it out of the test, in which let, assert and print alone stand",
    ),
    ("param number in [0, 1] = 0.5", "give it a name before its type, as in param weight: number"),
    (
        "let x = a[layers 0, 5]",
        "put layers that are apart together with join(x[layers 0], x[layers 5])",
    ),
    (
        "let x = sum([y for y in [a, b] if norm(y) > 1])",
        "write the list of what you want: a loop leaves none out",
    ),
    (
        "let x = [w * y for y in [a, b] for w in [1, 2]]",
        "a list has one loop: for x, w in zip(xs, ws) goes through several side by side",
    ),
    ("let x = [a, b][-1]", "items are counted from 0, the first is [0]"),
    ("let xs = [a, b][1:]", "one item stands at a number, xs[0]; layers are x[layers 0..15]"),
    ('print "{norm(a}"', 'interpolate a param as "{weight}"; write {{ and }} for plain braces'),
    ('print "{1 + 1} }"', 'interpolate a param as "{weight}"; write {{ and }} for plain braces'),
    ("print a, b", "write a `print` for each, one a line"),
    ("for x in [a, b]: x", "choose and loop within an expression: [2 * x for x in xs]"),
    ("if 1 < 2: a", "choose and loop within an expression: if c then x else y"),
    ("assert a == b", "compare numbers, cosine(a, b) < 0.9, or meanings: same(a, b)"),
]


@pytest.mark.parametrize(("wrong", "advice"), WORDS)
def test_what_cannot_be_known_is_asked_for_in_words(folder: Path, wrong: str, advice: str) -> None:
    """A range without the name of its param, layers that lie apart."""
    [only] = said(folder, wrong)
    assert only.help == advice


def words(text: str) -> list[str]:
    return re.findall(r'"[^"]*"|[\w.]+', text)


@pytest.mark.parametrize("right", RIGHT)
def test_a_sign_left_out_or_too_many(folder: Path, right: str) -> None:
    """Help says in words what to do, or shows a statement that parses and has every name, number
    and string in its order."""
    signs = [match.span() for match in re.finditer(r'[^\w\s"]| (?:to|with|else|in) ', right)]
    for start, end in signs:
        for wrong in (right[:start] + " " + right[end:], right[:end] + right[start:]):
            for diagnostic in said(folder, wrong):
                help, span = diagnostic.help, diagnostic.span
                assert help is not None and span is not None
                if is_sentence(help) or span.text != wrong:
                    continue
                kept = [word for word in words(wrong) if word not in ("to", "with", "else", "in")]
                assert [word for word in words(help) if word in kept] == kept, (wrong, help)
                again = {other.code for other in said(folder, help)}
                assert again.isdisjoint({"PEM0106", "PEM0107", "PEM0108"}), (wrong, help)


def test_a_file_of_mistakes_is_told_soon(folder: Path) -> None:
    """What was meant is tried for so many statements of a file, and no longer."""
    recipe(folder, "".join(f"let x{number} 1 + 2\n" for number in range(5000)))
    helps = [d.help or "" for d in pemlang.load(folder / "recipe.pem").check()]
    assert helps[0] == "let x0 = 1 + 2"
    assert 0 < sum(help.startswith("let") for help in helps) <= 50
