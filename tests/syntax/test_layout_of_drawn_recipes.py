"""The layout of drawn recipes, with space and comments wherever they may stand."""

from __future__ import annotations

import itertools
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from support.syntax import laid

from pemlang.syntax import WIDTH

LEAVES = ["a", "λ", "long_name_of_an_adapter", "house.f", "0.60", "1_0e-3", "true", '"*.q # {w}"']
KINDS = (
    "leaf sum product unary compare logic not call list per globs layers like group index for if"
).split()
NEEDS = {"if": -1, "logic": 0, "not": 2, "compare": 3, "sum": 4, "product": 5, "unary": 6}


@st.composite
def expressions(draw: DrawFn, need: int = -1, depth: int = 4) -> list[str]:  # noqa: PLR0912
    """The tokens of an expression that binds at least as tightly as `need`."""

    def inner(need: int = -1) -> list[str]:
        return draw(expressions(need, depth - 1))

    def several(need: int, between: list[str], least: int = 2) -> list[str]:
        tokens = inner(need)
        for _ in range(draw(st.integers(least - 1, 4))):
            tokens += [draw(st.sampled_from(between)), *inner(need)]
        return tokens

    kind = draw(st.sampled_from(KINDS)) if depth else "leaf"
    binds = NEEDS.get(kind, 7)
    match kind:
        case "sum":
            tokens = several(5, ["+", "-", "⊕", "⊖", ".+", ".-"])
        case "product":
            tokens = several(6, ["*", "/", "⊗", ".*"])
        case "unary":
            tokens = [draw(st.sampled_from(["-", "⊖", ".-", "+"])), *inner(6)]
        case "compare":
            tokens = [*inner(4), draw(st.sampled_from(["<", ">=", "=="])), *inner(4)]
        case "logic":
            word = draw(st.sampled_from(["and", "or"]))
            binds = 1 if word == "and" else 0
            tokens = several(binds + 1, [word])
        case "not":
            tokens = ["not", *inner(2)]
        case "call":
            args = [
                *several(0, [","], 1),
                *draw(st.sampled_from([[], [","], [",", "by", "=", "a"]])),
            ]
            tokens = [draw(st.sampled_from(["f", "ties"])), "(", *args, ")"]
        case "list":
            tokens = ["[", *several(0, [","], 1), *draw(st.sampled_from([[], [","]])), "]"]
        case "per":
            tokens = ["per", "{", '"*.q"', ":", *inner(), ",", "else", ":", *inner(), "}"]
        case "globs":
            tokens = [*inner(7), "[", '"*.q"', ",", '"*.v"', "]"]
        case "layers":
            tokens = [*inner(7), "[", "layers", *inner(4), "..", *inner(4), "]"]
        case "like":
            tokens = [*inner(7), "[", "like", *inner(), "]"]
        case "index":
            tokens = [*inner(7), "[", draw(st.sampled_from(["0", "n", "house.n"])), "]"]
        case "for":
            names, lists = ["x"], inner()
            if draw(st.booleans()):
                names, lists = ["x", ",", "w"], ["zip", "(", *inner(), ",", *inner(), ")"]
            tokens = ["[", *inner(), "for", *names, "in", *lists, "]"]
        case "if":
            tokens = ["if", *inner(), "then", *inner(), "else", *inner()]
        case "group":
            tokens = ["(", *inner(), ")"]
        case _:
            tokens = [draw(st.sampled_from(LEAVES))]
    return ["(", *tokens, ")"] if binds < need else tokens


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
        ["def", "f", "(", "x", ":", "number", "in", *tail, "..", *tail, ")", "=", *value],
        ["def", "f", "(", ")", "->", "[", "adapter", "]", "=", *value],
        ["base", "b", "=", *value],
        ["param", "w", ":", "number", "in", *tail, "..", *tail, "=", *value],
        ["adapter", "a", ":", "lora", "(", "rank", "=", *value, ")", "=", '"a"'],
        ["import", "std.paper", "(", "merge", ",", "unlearn", ",", ")"],
        ["export", "import", "house.parts", "as", "parts"],
        ["print", *value],
        ["test", '"t # 1"', "{", "let", "x", "=", *value, "assert", *tail, "print", *value, "}"],
        ["test", '"t"', "{", "}"],
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
    return re.sub(r"(#+ ?)\{\}", lambda mark: f"{mark[1]}{next(numbers)}", "".join(out))


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
