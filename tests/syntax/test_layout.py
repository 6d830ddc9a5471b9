"""The one layout: what it looks like, and that it changes neither meaning nor comments."""

from __future__ import annotations

import pytest
from support.syntax import MESSY, NEAT, laid, source

import pemlang
from pemlang.syntax import WIDTH, formatted


def test_a_messy_recipe() -> None:
    assert laid(MESSY) == NEAT


COMMENTED = [
    (
        "let y = f(a,# one\n\n  # before b\n  b # two\n  , # three\n  # at the end\n)  # after\n",
        "let y = f(\n    a,  # one\n    # before b\n    b,  # two\n    # three\n"
        "    # at the end\n)  # after\n",
    ),
    (
        "let y = ( # why\n  a + # first\n  # about b\n b * (c - d # inner\n ) # last\n)\n",
        "let y = (  # why\n    a  # first\n    # about b\n    + b * (\n        c - d  # inner\n"
        "    )  # last\n)\n",
    ),
    ("let y = (\n# why\nf(a))\n", "let y = (\n    # why\n    f(a)\n)\n"),
    ("let y = (a\n# why\n)\n", "let y = (\n    a\n    # why\n)\n"),
    ("let y = f((a # why\n), b)\n", "let y = f(\n    a,  # why\n    b,\n)\n"),
    ("let y = [ # none\n]\n", "let y = [  # none\n]\n"),
    (
        'let y = per { # q\n "*.q": 1, ## v\n "*.v": 2, else: 0 } * a\n',
        'let y = (\n    per {  # q\n        "*.q": 1,  ## v\n        "*.v": 2,\n'
        "        else: 0,\n    }\n    * a\n)\n",
    ),
    (
        "def f(x: adapter, # in\n n: number = 1) -> adapter = n * x\n",
        "def f(\n    x: adapter,  # in\n    n: number = 1,\n) -> adapter = n * x\n",
    ),
    (
        "adapter a: lora(rank=8, # r\n dtype=bf16) = 'a'\n".replace("'", '"'),
        'adapter a: lora(\n    rank=8,  # r\n    dtype=bf16\n) = "a"\n',
    ),
    (
        "import std.paper ( # paper\n merge)\n",
        "import std.paper (  # paper\n    merge,\n)\n",
    ),
    (
        "let y = a and ( # b\n not b) + -(c + d)\n",
        "let y = (\n    a\n    and (  # b\n        not b\n    )\n        + -(c + d)\n)\n",
    ),
    # Where no line can end, a statement stays as it is.
    ("let  y = f(by # why  \n   =  3)  # so\n", "let  y = f(by # why\n   =  3)  # so\n"),
    ("let  y = (a)+( - # why\n  b)\n", "let  y = (a)+( - # why\n  b)\n"),
]


@pytest.mark.parametrize(("text", "wanted"), COMMENTED, ids=[text for text, _ in COMMENTED])
def test_comments_inside_brackets_stay_with_what_they_are_about(text: str, wanted: str) -> None:
    assert laid(text) == wanted


LONG = "adapter_of_a_long_name"
TOO_LONG = [
    # A call, a list, the rows of a schedule: an item a line.
    (
        f'save ties([{LONG}, {LONG}], weights=[0.5, 0.5], density=0.25) to "out/of_a_long_name"',
        f"save ties(\n    [{LONG}, {LONG}],\n    weights=[0.5, 0.5],\n    density=0.25,\n"
        ') to "out/of_a_long_name"',
    ),
    (
        f"let x = 2 * ties([{LONG}, {LONG}, y], density=0.25, seed=7) # but two",
        f"let x = 2 * ties([{LONG}, {LONG}, y], density=0.25, seed=7)  # but two",
    ),
    (
        f"let x = {LONG} - 2 * ties([{LONG}, {LONG}, {LONG}], density=0.25)",
        f"let x = {LONG} - 2 * ties(\n    [{LONG}, {LONG}, {LONG}],\n    density=0.25,\n)",
    ),
    # A chain of mixed precedence: on a line of its own, or else an operand a line.
    (
        f"let blend = w * {LONG} + v * {LONG} - 0.5 * ({LONG} - b)",
        f"let blend = (\n    w * {LONG} + v * {LONG} - 0.5 * ({LONG} - b)\n)",
    ),
    (
        f"let x = w * {LONG} + f({LONG}) * {LONG} - ({LONG} - ({LONG} - base))",
        f"let x = (\n    w * {LONG}\n    + f({LONG}) * {LONG}\n    - ({LONG} - ({LONG} - base))\n)",
    ),
    (
        f"let x = {LONG} * ({LONG} + 0.5 * ({LONG} + {LONG} * y))",
        f"let x = {LONG} * (\n    {LONG} + 0.5 * ({LONG} + {LONG} * y)\n)",
    ),
    (
        f"let x = f({LONG} * {LONG} * {LONG} * y, {LONG})",
        f"let x = f(\n    {LONG} * {LONG} * {LONG} * y,\n    {LONG},\n)",
    ),
    (
        f"let x = f({LONG} * {LONG} * {LONG} * y + {LONG})",
        f"let x = f(\n    {LONG} * {LONG} * {LONG} * y\n        + {LONG},\n)",
    ),
    (
        f'assert norm({LONG}) < 1 and norm(a) < 1 and not {LONG} < 9 else "too much"',
        f'assert (\n    norm({LONG}) < 1 and norm(a) < 1 and not {LONG} < 9\n) else "too much"',
    ),
    # The body of a function before its parameters.
    (
        f"def f(x: adapter, y: adapter, weight: number = 0.5) -> adapter = x * {LONG} + {LONG}",
        "def f(x: adapter, y: adapter, weight: number = 0.5) -> adapter = (\n"
        f"    x * {LONG} + {LONG}\n)",
    ),
    (
        f"def f({LONG}: adapter, y: adapter, weight: number = 0.5) -> adapter = {LONG}_again",
        f"def f(\n    {LONG}: adapter,\n    y: adapter,\n    weight: number = 0.5,\n"
        f") -> adapter = {LONG}_again",
    ),
    # A selection after what it selects from.
    (
        f"let x = ties([{LONG}, {LONG}], density=0.25, weights=[1, 2])[layers 0..15]",
        f"let x = ties(\n    [{LONG}, {LONG}],\n    density=0.25,\n    weights=[1, 2],\n"
        ")[layers 0..15]",
    ),
    (
        f"let x = {LONG}[like {LONG} + {LONG} + {LONG}]",
        f"let x = {LONG}[\n    like {LONG} + {LONG} + {LONG}\n]",
    ),
    # No brackets make these any shorter.
    (f'assert a < 1 else "{LONG * 5}"', f'assert a < 1 else "{LONG * 5}"'),
    (f'let x = "{LONG * 5}"', f'let x = "{LONG * 5}"'),
]


@pytest.mark.parametrize(("text", "wanted"), TOO_LONG, ids=range(len(TOO_LONG)))
def test_what_is_too_long_for_a_line(text: str, wanted: str) -> None:
    assert laid(text) == wanted + "\n"


def test_a_line_is_as_long_as_may_be() -> None:
    fits = f"let x = {'a' * (WIDTH - 12)} + b"
    assert laid(fits) == fits + "\n"
    assert laid(fits + "b") == f"let x = (\n    {'a' * (WIDTH - 12)} + bb\n)\n"


MINIMAL = [
    ("(a * b) + (c / d)", "a * b + c / d"),
    ("(a + b) + c", "(a + b) + c"),  # another tree: two sums
    ("a - (b - c)", "a - (b - c)"),
    ("a / (b * c)", "a / (b * c)"),
    ("(a + b) * (- c)", "(a + b) * -c"),
    ("(-a) * b", "-a * b"),
    ("-(a * b)", "-(a * b)"),
    ("-(-a) - (-(b))", "--a - -b"),
    (".- ( x [like y] )", "⊖x[like y]"),
    ("(-a)[layers 3]", "(-a)[layers 3]"),
    ("(f(a))[layers (1+2)..(3)]", "f(a)[layers 1 + 2..3]"),
    ("(a < b) and (c or d)", "a < b and (c or d)"),
    ("(a and b) or (c and d)", "a and b or c and d"),
    ("(a or b) or c", "(a or b) or c"),
    ("not (not (a))", "not not a"),
    ("not (a < b)", "not a < b"),
    ("(not a) < b", "(not a) < b"),
    ("not (a and b)", "not (a and b)"),
    ("(a + b) < (c)", "a + b < c"),
    ("(a < b) == c", "(a < b) == c"),
    ("f((a or b), by=(c))", "f(a or b, by=c)"),
    ("a + not", "a + not"),  # a name, where no `not` can stand
]


@pytest.mark.parametrize(("text", "wanted"), MINIMAL)
def test_brackets_that_are_needed_and_no_others(text: str, wanted: str) -> None:
    assert laid(f"let x = {text}") == f"let x = {wanted}\n"


def test_a_document_comment_stays_one_or_stays_none() -> None:
    assert laid("## Of x.\nlet x=1\n## Of none.\n  \t\n\nlet y=1 ## nor this\n") == (
        "## Of x.\nlet x = 1\n## Of none.\n\nlet y = 1  ## nor this\n"
    )


@pytest.mark.parametrize(
    ("text", "wanted"), [("", ""), ("\n \n", ""), ("\n# only\n\n\n#this", "# only\n\n#this\n")]
)
def test_text_without_a_statement(text: str, wanted: str) -> None:
    assert formatted(source(text)) == wanted


def test_all_mistakes_are_said() -> None:
    with pytest.raises(pemlang.PemError) as caught:
        formatted(source("let x = = 1\nlet y=2\nlte z = 1\n"))
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["PEM0108", "PEM0107"]


@pytest.mark.parametrize("wrong", ["let x = 2\n", "# c\nlet x = 1\n", "let x = (\n", "let y = 1\n"])
def test_text_of_another_meaning_is_never_given(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pemlang.syntax.format.laid_out", lambda *_: wrong)
    assert formatted(source("let x=1")) == "let x=1"


def test_long_and_deep_recipes_are_laid_out() -> None:
    laid("let x = " + " + ".join(["a"] * 20_000))
    laid("let x = " + "(1 + " * 50 + "1" + ")" * 50)
    laid("let x = " + "f(a, " * 48 + "1" + ")" * 48)
    laid("let x = " + "-" * 90 + "a")
