"""The one layout: what it looks like, and that it changes neither meaning nor comments."""

from __future__ import annotations

import itertools
import os
import pty
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from pemlang.cli.main import cli
from pemlang.diagnostics import Fault, PemError, Report
from pemlang.source import Source
from pemlang.syntax import format as formatter
from pemlang.syntax.boxes import WIDTH
from pemlang.syntax.files import read_source
from pemlang.syntax.format import formatted, laid_out, same
from pemlang.syntax.parser import parse

ROOT = Path(__file__).parent.parent


def laid(text: str) -> str:
    """The layout of a text, held to what must be so of all."""
    report = Report()
    file = parse(Source("test.pem", text), report)
    report.raise_errors()
    found = laid_out(file.span.source, file)
    again = parse(Source("test.pem", found), report)
    report.raise_errors()
    assert same(file, again)
    assert remarks(found) == remarks(text)
    assert laid_out(again.span.source, again) == found
    assert found.endswith("\n")
    assert not re.search(r"[ \t]\n|\n\n\n|^\n|\n\n$", found)
    assert formatted(file.span.source) == found
    return found


def remarks(text: str) -> list[str]:
    """The comments of a text, found by reading past its strings."""
    found = re.findall(r'"(?:\\.|[^"\\\n])*"|(#[^\n]*)', text)
    return [comment.rstrip() for comment in found if comment]


# --- what it looks like --------------------------------------------------------------------


MESSY = """\


#! /usr/bin/env pem
#no space
language   1


import std.paper(merge,
   unlearn,)  # the paper's
import "lib/house.pem"   as house
##  Two names
##  of one model.
base b=["org/a",   "models/a" ]
adapter a:lora(rank = 8,targets=["q","v"])on b="adapters/a"   # the first
   adapter c on b = "adapters/c"
param w:number in 0 .. 1=0.60


let x=w .* a .+ (1-w).*c .- ((a))
let s=per{"*.q":1_000.50,else:1e-3}*a[ layers 0 .. 3 ]["*.q","*.v"][like  house . f(a,by = w)]
def g(x:adapter,y:[number]=[])->[adapter]=[x,]
assert not(norm(a)<0.5)or true else "it \\"says\\"  so"
save x   to "out/{w}"with rank=16,dtype=bf16
# the end


"""

NEAT = """\
#! /usr/bin/env pem
#no space
language 1

import std.paper (merge, unlearn)  # the paper's
import "lib/house.pem" as house
##  Two names
##  of one model.
base b = ["org/a", "models/a"]
adapter a: lora(rank=8, targets=["q", "v"]) on b = "adapters/a"  # the first
adapter c on b = "adapters/c"
param w: number in 0..1 = 0.60

let x = w ⊗ a ⊕ (1 - w) ⊗ c ⊖ a
let s = per { "*.q": 1_000.50, else: 1e-3 } * a[layers 0..3]["*.q", "*.v"][like house.f(a, by=w)]
def g(x: adapter, y: [number] = []) -> [adapter] = [x]
assert not norm(a) < 0.5 or true else "it \\"says\\"  so"
save x to "out/{w}" with rank=16, dtype=bf16
# the end
"""


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
    assert formatted(Source("test.pem", text)) == wanted


def test_all_mistakes_are_said() -> None:
    with pytest.raises(PemError) as caught:
        formatted(Source("test.pem", "let x = = 1\nlet y=2\nlte z = 1\n"))
    assert [d.code for d in caught.value.diagnostics] == ["PEM0108", "PEM0107"]


@pytest.mark.parametrize("wrong", ["let x = 2\n", "# c\nlet x = 1\n", "let x = (\n", "let y = 1\n"])
def test_text_of_another_meaning_is_never_given(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formatter, "laid_out", lambda *_: wrong)
    assert formatted(Source("test.pem", "let x=1")) == "let x=1"


def test_long_and_deep_recipes_are_laid_out() -> None:
    laid("let x = " + " + ".join(["a"] * 20_000))
    laid("let x = " + "(1 + " * 50 + "1" + ")" * 50)
    laid("let x = " + "f(a, " * 48 + "1" + ")" * 48)
    laid("let x = " + "-" * 90 + "a")


# --- every recipe there is, and drawn ones -------------------------------------------------


def recipes() -> Iterator[tuple[str, str]]:
    for path in sorted(ROOT.glob("*/**/*.pem")):
        try:
            yield str(path.relative_to(ROOT)), read_source(path).text
        except Fault:  # too large, empty, a certificate: tests of messages
            continue
    for path in (
        ROOT / "README.md",
        *sorted(ROOT.glob("*/**/*.md")),
        *ROOT.glob("pemlang/**/*.toml"),
    ):
        for i, block in enumerate(re.findall(r"```pem\b.*\n([^`]*)```", path.read_text())):
            yield f"{path.relative_to(ROOT)}-{i}", block


RECIPES = [(name, text) for name, text in recipes() if not name.startswith(".")]


@pytest.mark.parametrize(("name", "text"), RECIPES, ids=[name for name, _ in RECIPES])
def test_every_recipe_keeps_its_meaning_and_comments(name: str, text: str) -> None:
    try:
        laid(text)
    except PemError:
        assert name.startswith(("tests/messages", "pemlang/show/codes", "docs/errors"))


def test_the_recipes_are_found() -> None:
    starts = {name.split("/")[0] for name, _ in RECIPES}
    assert {"README.md-0", "docs", "examples", "stdlib", "tests", "pemlang"} <= starts


@pytest.mark.parametrize("folder", ["stdlib", "examples"])
def test_our_own_recipes_are_laid_out(folder: str) -> None:
    assert CliRunner().invoke(cli, ["fmt", "--check", str(ROOT / folder)]).output == ""


def test_the_page_shows_the_layout() -> None:
    text = (ROOT / "docs/language.md").read_text()
    [block] = re.findall(r"^## Layout$.*?^```pem\n(.*?)^```$.*?^## ", text, re.M | re.S)
    assert laid(block) == block


LEAVES = ["a", "λ", "long_name_of_an_adapter", "house.f", "0.60", "1_0e-3", "true", '"*.q # {w}"']
KINDS = "leaf sum product unary compare logic not call list per globs layers like group".split()
NEEDS = {"logic": 0, "not": 2, "compare": 3, "sum": 4, "product": 5, "unary": 6}


@st.composite
def expressions(draw: DrawFn, need: int = 0, depth: int = 4) -> list[str]:  # noqa: PLR0912
    """The tokens of an expression that binds at least as tightly as `need`."""

    def inner(need: int = 0) -> list[str]:
        return draw(expressions(need, depth - 1))

    def several(need: int, between: list[str], least: int = 2) -> list[str]:
        found = inner(need)
        for _ in range(draw(st.integers(least - 1, 4))):
            found += [draw(st.sampled_from(between)), *inner(need)]
        return found

    kind = draw(st.sampled_from(KINDS)) if depth else "leaf"
    binds = NEEDS.get(kind, 7)
    match kind:
        case "sum":
            found = several(5, ["+", "-", "⊕", "⊖", ".+", ".-"])
        case "product":
            found = several(6, ["*", "/", "⊗", ".*"])
        case "unary":
            found = [draw(st.sampled_from(["-", "⊖", ".-", "+"])), *inner(6)]
        case "compare":
            found = [*inner(4), draw(st.sampled_from(["<", ">=", "=="])), *inner(4)]
        case "logic":
            word = draw(st.sampled_from(["and", "or"]))
            binds = 1 if word == "and" else 0
            found = several(binds + 1, [word])
        case "not":
            found = ["not", *inner(2)]
        case "call":
            args = [
                *several(0, [","], 1),
                *draw(st.sampled_from([[], [","], [",", "by", "=", "a"]])),
            ]
            found = [draw(st.sampled_from(["f", "ties"])), "(", *args, ")"]
        case "list":
            found = ["[", *several(0, [","], 1), *draw(st.sampled_from([[], [","]])), "]"]
        case "per":
            found = ["per", "{", '"*.q"', ":", *inner(), ",", "else", ":", *inner(), "}"]
        case "globs":
            found = [*inner(7), "[", '"*.q"', ",", '"*.v"', "]"]
        case "layers":
            found = [*inner(7), "[", "layers", *inner(4), "..", *inner(4), "]"]
        case "like":
            found = [*inner(7), "[", "like", *inner(), "]"]
        case "group":
            found = ["(", *inner(), ")"]
        case _:
            found = [draw(st.sampled_from(LEAVES))]
    return ["(", *found, ")"] if binds < need else found


@st.composite
def statements(draw: DrawFn) -> list[str]:
    """The tokens of a statement."""
    value = draw(expressions())
    tail = draw(expressions(need=7, depth=1))
    kinds = [
        ["let", "x", "=", *value],
        ["let", "x", ":", "[", "number", "]", "=", *value],
        ["assert", *value, "else", '"why # not"'],
        ["save", *value, "to", '"out/x"', "with", "rank", "=", *tail, ",", "by", "=", "1"],
        ["def", "f", "(", "x", ":", "number", "=", *tail, ",", "y", ":", "lora", ")", "=", *value],
        ["def", "f", "(", ")", "->", "[", "adapter", "]", "=", *value],
        ["base", "b", "=", *value],
        ["param", "w", ":", "number", "in", *tail, "..", *tail, "=", *value],
        ["adapter", "a", ":", "lora", "(", "rank", "=", *value, ")", "=", '"a"'],
        ["import", "std.paper", "(", "merge", ",", "unlearn", ",", ")"],
    ]
    return draw(st.sampled_from(kinds))


SPACES = ["", " ", "  ", "\t", "\n", "\n\n  "]
WITH_COMMENTS = [*SPACES, "#{}\n", "  # {} \n", "\n    ## {}\n  "]
BETWEEN = ["\n", "  # {}\n", "\n\n \n", "\n## {}\n", "\n# {}\n\n", "\n \t\n## {}\n# {}\n"]


@st.composite
def texts(draw: DrawFn, comments: bool = True) -> str:
    """A recipe with space of every kind between its tokens, and comments inside brackets."""
    out: list[str] = [draw(st.sampled_from(["", "\n", "# {}\n", "## {}\n"]))]
    for tokens in draw(st.lists(statements(), min_size=1, max_size=3)):
        anywhere, open_brackets = draw(st.booleans()), 0
        for i, token in enumerate(tokens):
            out.append(token)
            open_brackets += (token in "([{") - (token in ")]}")
            if i + 1 == len(tokens):
                break
            noted = comments and (anywhere or token in ("(", "[", "{", ",", "+", "*", "and"))
            spaces = WITH_COMMENTS if noted else SPACES
            space = draw(st.sampled_from(spaces if open_brackets else SPACES[:4]))
            bare = token[-1] in '([{,")]}' or tokens[i + 1][0] in '([{,")]}'
            out.append(space if space or bare else " ")
        out.append(draw(st.sampled_from(BETWEEN)))
    numbers = itertools.count()
    return re.sub(r"(#+ ?)\{\}", lambda found: f"{found[1]}{next(numbers)}", "".join(out))


MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(texts())
def test_drawn_recipes_keep_their_meaning_and_comments(text: str) -> None:
    laid(text)


@MANY
@given(texts(comments=False))
def test_drawn_recipes_fit_on_the_page(text: str) -> None:
    for line in laid(text).splitlines():
        assert len(line.partition("  #")[0]) <= WIDTH


@MANY
@given(st.data(), statements())
def test_layout_does_not_depend_on_space(data: st.DataObject, tokens: list[str]) -> None:
    """However the tokens are spaced, there is one text."""
    spaced, depth = "", 0
    for token in tokens:
        depth += (token in "([{") - (token in ")]}")
        spaced += token + data.draw(st.sampled_from([" ", "\n ", "\t"] if depth else [" "]))
    assert laid(spaced) == laid(" ".join(tokens))


# --- the command ---------------------------------------------------------------------------


WRONG = "let x = = 1\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a recipe to change, one that is neat, one that is wrong, and what
    is not meant."""
    monkeypatch.chdir(tmp_path)
    for name in ("sub/deep", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("messy.pem", "sub/deep/messy.pem", ".hidden/messy.pem", "sub/.messy.pem"):
        (tmp_path / name).write_text(MESSY)
    (tmp_path / "sub/messy.txt").write_text(MESSY)
    (tmp_path / "neat.pem").write_text(NEAT)
    (tmp_path / "sub/key.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (tmp_path / "sub/loop").symlink_to(tmp_path)
    (tmp_path / "sub/self.pem").symlink_to("self.pem")
    os.mkfifo(tmp_path / "sub/pipe.pem")
    return tmp_path


def fmt(*args: str, input: bytes | None = None) -> Result:
    result = CliRunner().invoke(cli, ["fmt", *args], input=input, standalone_mode=False)
    assert (
        result.exception is None
        or result.exit_code == 0
        or isinstance(result.exception, SystemExit)
    ), result.exception
    return result


def test_files_are_rewritten_and_others_left_alone(folder: Path) -> None:
    (folder / "messy.pem").chmod(0o640)
    os.utime(folder / "neat.pem", ns=(1, 1))
    assert (fmt("messy.pem", "neat.pem").return_value, fmt("neat.pem").output) == (0, "")
    assert (folder / "messy.pem").read_text() == NEAT
    assert stat.S_IMODE((folder / "messy.pem").stat().st_mode) == 0o640
    assert (folder / "neat.pem").stat().st_mtime_ns == 1


def test_a_directory_stands_for_the_recipes_in_it(folder: Path) -> None:
    left = [".hidden/messy.pem", "sub/.messy.pem", "sub/messy.txt"]
    before = set(folder.rglob("*"))
    assert fmt(".", "messy.pem").return_value == 0
    assert [(folder / name).read_text() for name in left] == [MESSY] * 3
    assert [(folder / n).read_text() for n in ("messy.pem", "sub/deep/messy.pem")] == [NEAT] * 2
    assert set(folder.rglob("*")) == before


def test_check_names_what_would_change_and_writes_nothing(folder: Path) -> None:
    result = fmt("--check", ".", "messy.pem", str(folder / "messy.pem"))
    assert result.stdout == "./messy.pem\n./sub/deep/messy.pem\n"
    assert result.return_value == 1
    assert (folder / "messy.pem").read_text() == MESSY
    assert (fmt("--check", "neat.pem").return_value, fmt("--check", "neat.pem").stdout) == (0, "")


def test_a_diff_is_a_patch(folder: Path) -> None:
    text = MESSY.rstrip()  # without a newline at its end
    (folder / "messy.pem").write_text(text)
    result = fmt("--diff", "messy.pem", "neat.pem")
    assert result.return_value == 1
    assert (folder / "messy.pem").read_text() == text
    subprocess.run(
        ["patch", "-p0"], input=result.stdout, text=True, check=True, capture_output=True
    )
    assert (folder / "messy.pem").read_text() == NEAT
    assert (fmt("--diff", ".").return_value, fmt("--diff", "messy.pem").stdout) == (1, "")


def test_an_editor_gives_and_gets_text(folder: Path) -> None:
    assert (fmt("-", input=MESSY.encode()).stdout, fmt("-", input=b"let x=1").return_value) == (
        NEAT,
        0,
    )
    wrong = fmt("-", input=WRONG.encode())
    assert (wrong.stdout, wrong.return_value) == ("", 1)
    assert "standard input:1:9" in wrong.stderr
    assert fmt("--check", "-", input=b"let x=1").stdout == "standard input\n"
    assert "+let x = 1\n" in fmt("--diff", "-", input=b"let x=1").stdout
    assert fmt("--check", "-", input=b"let x = 1\n").return_value == 0


def test_dos_newlines_and_a_byte_order_mark_go(folder: Path) -> None:
    (folder / "dos.pem").write_bytes(b"\xef\xbb\xbf" + NEAT.replace("\n", "\r\n").encode())
    assert fmt("--check", "dos.pem").return_value == 1
    assert fmt("dos.pem").return_value == 0
    assert (folder / "dos.pem").read_bytes() == NEAT.encode()


def test_a_link_stays_a_link(folder: Path) -> None:
    (folder / "link.pem").symlink_to("sub/deep/messy.pem")
    assert fmt("link.pem").return_value == 0
    assert (folder / "link.pem").is_symlink()
    assert (folder / "sub/deep/messy.pem").read_text() == NEAT


def test_a_mistake_in_one_file_leaves_it_and_hides_no_other(folder: Path) -> None:
    (folder / "a.pem").write_text(WRONG)
    result = fmt("a.pem", "nowhere.pem", "sub/pipe.pem", "sub/self.pem", "messy.pem")
    assert result.return_value == 1
    assert result.stderr.count("PEM0100") == 3
    assert "PEM0108" in result.stderr
    assert (folder / "a.pem").read_text() == WRONG
    assert (folder / "messy.pem").read_text() == NEAT


@pytest.mark.parametrize(
    "name", ["a\nb.pem", "\udcff.pem", "-x.pem", "a\u202eb.pem", "ø" * 100 + ".pem"]
)
def test_names_of_any_kind(folder: Path, name: str) -> None:
    (folder / "odd").mkdir()
    (folder / "odd" / name).write_text(MESSY)
    result = fmt("--check", "odd")
    assert (result.return_value, result.stdout.count("\n")) == (1, 1)
    assert "\u202e" not in fmt("--diff", "odd").stdout
    assert fmt("odd").return_value == 0
    assert (folder / "odd" / name).read_text() == NEAT
    assert fmt("x" * 5000).return_value == 1


def test_what_cannot_be_written_is_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = set(folder.rglob("*"))
    result = fmt("messy.pem")
    assert (result.return_value, "PEM0512" in result.stderr) == (1, True)
    assert "No space left" in result.stderr
    assert (folder / "messy.pem").read_text() == MESSY
    assert set(folder.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write anything")
def test_permissions_are_respected(folder: Path) -> None:
    (folder / "sub/deep").chmod(0o500)
    (folder / "messy.pem").chmod(0o400)
    (folder / "locked").mkdir(mode=0)
    result = fmt("sub", "messy.pem", "locked")
    (folder / "sub/deep").chmod(0o700)
    assert (result.return_value, result.stderr.count("PEM0512")) == (1, 2)
    assert result.stderr.count("PEM0100") == 1
    assert (folder / "messy.pem").read_text() == MESSY


@pytest.mark.parametrize("args", [[], ["--chek", "a.pem"], ["-", "a.pem"]])
def test_what_is_no_use_of_it(folder: Path, args: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pemlang", "fmt", *args], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage" in done.stderr


def test_a_summary_is_for_terminals(folder: Path) -> None:
    assert fmt("--check", ".").stderr == ""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pemlang", "fmt", "."]
    subprocess.run(command, stdout=theirs, stderr=theirs, check=True)
    os.close(theirs)
    assert os.read(ours, 1000) == b"2 files reformatted.\r\n"
    os.close(ours)


def test_fmt_imports_no_more_than_the_parser(folder: Path) -> None:
    code = (
        "import sys, atexit\n"
        "heavy = {'torch', 'numpy', 'peft', 'networkx', 'llvmlite'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules))))\n"
        "from pemlang.cli.main import main\n"
        "main(['fmt', 'messy.pem'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
