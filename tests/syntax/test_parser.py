"""Text to tree: precedence, spellings, places, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from lark import Lark
from support.syntax import parsed

from pemlang.syntax import tables
from pemlang.syntax import tree as t

TABLES = Path(__file__).parents[2] / "grammar" / "pem.tables.json"


def shown(node: t.Tree) -> str:  # noqa: PLR0912
    """An expression with every grouping written out."""
    match node:
        case t.Number():
            return str(node.value)
        case t.String():
            parts = (p if isinstance(p, str) else f"{{{p.name}}}" for p in node.parts)
            return '"' + "".join(parts) + '"'
        case t.Bool():
            return str(node.value).lower()
        case t.Name():
            return f"{node.module}.{node.name}" if node.module else node.name
        case t.Chain():
            text = shown(node.operands[0])
            for operator, operand in zip(node.operators, node.operands[1:], strict=True):
                text = f"({text} {operator.symbol} {shown(operand)})"
            return text
        case t.Unary():
            return f"({node.operator.symbol}{shown(node.operand)})"
        case t.Compare():
            return f"({shown(node.left)} {node.operator.symbol} {shown(node.right)})"
        case t.Logic():
            return f"({node.word} {' '.join(map(shown, node.operands))})"
        case t.Selection():
            return f"{shown(node.operand)}[{shown(node.selector)}]"
        case t.Globs():
            return " ".join(map(shown, node.patterns))
        case t.Layers():
            return f"layers {shown(node.first)}..{shown(node.last)}"
        case t.Like():
            return f"like {shown(node.other)}"
        case t.Call():
            return f"{shown(node.function)}({' '.join(map(shown, node.args))})"
        case t.NamedArg():
            return f"{node.name}={shown(node.value)}"
        case t.ListOf():
            return f"[{' '.join(map(shown, node.items))}]"
        case t.Per():
            return f"per({' '.join(map(shown, node.items))})"
        case t.PerItem():
            return f"{shown(node.pattern) if node.pattern else 'else'}:{shown(node.value)}"
    raise AssertionError(node)


def expression(text: str) -> str:
    file, codes = parsed(f"let x = {text}")
    assert codes == []
    [let] = file.statements
    assert isinstance(let, t.Let)
    return shown(let.value)


ROWS = [
    ("a + b - c", "((a + b) - c)"),
    ("a - b * c", "(a - (b * c))"),
    ("a ⊕ b ⊖ c", "((a ⊕ b) ⊖ c)"),
    ("w ⊗ a ⊕ (1 - w) ⊗ b", "((w ⊗ a) ⊕ ((1 - w) ⊗ b))"),
    ("w .* a .+ (1 - w) .* b .- c", "(((w ⊗ a) ⊕ ((1 - w) ⊗ b)) ⊖ c)"),
    ("-a * b", "((-a) * b)"),
    ("2 * -a", "(2 * (-a))"),
    ("- - a", "(-(-a))"),
    ("⊖a ⊕ .-b", "((⊖a) ⊕ (⊖b))"),
    ("a / 2 / 4", "((a / 2) / 4)"),
    ("(a + b) * 2", "((a + b) * 2)"),
    ("-x[layers 0..15]", "(-x[layers 0..15])"),
    ("x[layers 3]", "x[layers 3..3]"),
    ('x["*.q_proj", "*.v_proj"][like y + z]', 'x["*.q_proj" "*.v_proj"][like (y + z)]'),
    ("f(a, b, by=weight)[like a]", "f(a b by=weight)[like a]"),
    ("house.f(a,)", "house.f(a)"),
    ("f()", "f()"),
    ("[a, b,]", "[a b]"),
    ("[]", "[]"),
    ('per { "*.q_proj": 0.5, else: 0 } * x', '(per("*.q_proj":1/2 else:0) * x)'),
    ("f(a) < 0.9 and not g >= 1e3", "(and (f(a) < 9/10) (not (g >= 1000)))"),
    ("a < 1 or b < 2 and c < 3", "(or (a < 1) (and (b < 2) (c < 3)))"),
    ("true", "true"),
    ("λ ⊗ модуль", "(λ ⊗ модуль)"),
    ("1_000 + 1.5e-3", "(1000 + 3/2000)"),
    ('"out/w{weight}"', '"out/w{weight}"'),
    (r'"a \"b\" \\ {{c}}"', r'"a "b" \ {c}"'),
    ("rescale(x, like=y)", "rescale(x like=y)"),
    ("layers + like", "(layers + like)"),
    ("(a +\n   b  # why\n   + c)", "((a + b) + c)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "tree"), ROWS)
def test_an_expression_is_read_as(text: str, tree: str) -> None:
    assert expression(text) == tree


def test_every_node_knows_where_it_stands() -> None:
    text = "# first\nlet x = 0.5 * f(a, by=b[like c])  # last\n"
    file, _ = parsed(text)
    stack: list[t.Tree] = list(file.statements)
    seen = set()
    while stack:
        node = stack.pop()
        seen.add(node.span.text)
        stack.extend(node.children())
    wanted = {
        "0.5 * f(a, by=b[like c])",
        "f(a, by=b[like c])",
        "by=b[like c]",
        "b[like c]",
        "like c",
    }
    assert wanted | {"a", "b", "c", "0.5", "x", "*", "f"} <= seen


def test_two_hash_signs_document_the_next_declaration() -> None:
    file, _ = parsed("## One.\n## Two.\nlet x = 1\n\n## Lost, a blank line follows.\n\nlet y = 2\n")
    assert [s.doc for s in file.statements] == ["One.\nTwo.", ""]


def test_a_number_is_exactly_what_is_written() -> None:
    file, _ = parsed("let x = 0.1")
    [let] = file.statements
    assert isinstance(let, t.Let)
    assert isinstance(let.value, t.Number)
    assert let.value.value == Fraction(1, 10)


def test_statements_after_a_mistake_are_still_read() -> None:
    file, codes = parsed('let x = = 1\nlet y = 2\nlte z = 3\nlet s = "open\nlet w = (1,\n')
    assert [s.name.name for s in file.statements if isinstance(s, t.Let)] == ["y"]
    assert codes == ["PEM0108", "PEM0107", "PEM0106", "PEM0106"]


REFUSED = [
    ("let x = (" + "(" * 200 + "1" + ")" * 200 + ")", "PEM0109"),
    ("let x = " + "-" * 300 + "a", "PEM0109"),
    ("let x = " + "not " * 300 + "a", "PEM0109"),
    ("let x = a" + "[like a]" * 300, "PEM0109"),
    ("let x = 1e999", "PEM0110"),
    ("let x = " + "9" * 100, "PEM0110"),
    ("let x = 1e" + "9" * 100, "PEM0110"),
    ('let x = "{not a name}"', "PEM0111"),
    (r'let x = "\q"', "PEM0111"),
    ("let x = a\u202eb", "PEM0105"),
    ("let x = a\x00", "PEM0105"),
    ("let x = 1 # a\rlet y = 2", "PEM0105"),
    ("let x = ٣", "PEM0108"),
    ("let x = a)", "PEM0106"),
    ("test x", "PEM0108"),
]


@pytest.mark.parametrize(("text", "code"), REFUSED, ids=[text[:20] for text, _ in REFUSED])
def test_what_is_no_recipe_is_refused(text: str, code: str) -> None:
    assert parsed(text)[1] == [code]


def test_a_long_sum_is_not_a_deep_one() -> None:
    file, codes = parsed("let x = " + " + ".join(["a"] * 20_000))
    assert codes == []
    assert len(file.statements[0].value.operands) == 20_000  # type: ignore[attr-defined]


# --- the parser's tables -------------------------------------------------------------------


def trees(parser: Lark) -> list[str]:
    texts = (
        'let x = a.b(c, d=[1, 2])["*.q"] ⊕ -0.5 ⊗ y[layers 0..3]',
        "param w: number in 0..1 = 1",
    )
    return [parser.parse(text).pretty() for text in texts]


def test_the_tables_belong_to_the_grammar() -> None:
    """`make grammar` writes them anew."""
    assert tables.kept_parser() is not None


def test_the_tables_are_the_same_in_every_process() -> None:
    """Whatever the order of sets is there: a change of them is one of the grammar."""
    program = "import sys\nfrom pemlang.syntax import tables\nsys.stdout.write(tables.worked_out())"
    kept = TABLES.read_text(encoding="utf-8")
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, env=env
        )
        assert done.stdout.decode() == kept


def test_the_tables_parse_as_the_grammar_does() -> None:
    parser = tables.kept_parser()
    assert parser is not None
    assert trees(parser) == trees(tables._made(tables._grammar()))


@pytest.mark.parametrize("kept", ["", "{}", "[]", '{"for": ["0.1", "other"], "tables": {}}', None])
def test_tables_that_are_lost_or_of_another_grammar_are_worked_out(
    kept: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pem.lark").write_text(tables._grammar(), encoding="utf-8")
    if kept is not None:
        (tmp_path / "pem.tables.json").write_text(kept, encoding="utf-8")
    wanted = trees(tables.load_parser())
    monkeypatch.setattr(tables, "resource", lambda _: tmp_path)
    assert tables.kept_parser() is None
    assert trees(tables.load_parser()) == wanted
