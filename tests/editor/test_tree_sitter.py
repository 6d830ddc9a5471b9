"""The grammar of tree-sitter: it finds in a recipe what the parser finds."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from support.editor_files import EDITORS, RECIPES, ROOT, make
from tree_sitter import Language, Parser, Query, QueryCursor

from pemlang.diagnostics import Report
from pemlang.source import Source
from pemlang.syntax import parse

FOLDER = EDITORS / "tree-sitter"
OF_TEXTS = {"PEM0110", "PEM0111"}
"""What is wrong within a number or a string, which is a token to a grammar."""


@pytest.fixture(scope="module")
def language(parser_library: Path) -> Language:
    symbol = ctypes.CDLL(str(parser_library)).tree_sitter_pem
    symbol.restype = ctypes.c_void_p
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype = ctypes.py_object
    capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return Language(capsule(symbol(), b"tree_sitter.Language", None))


def test_the_parser_is_that_of_the_grammar() -> None:
    parser = (FOLDER / "src" / "parser.c").read_text(encoding="utf-8")
    assert parser.startswith(make.mark_of_parser()), "make editors writes it, with tree-sitter"


def test_it_finds_mistakes_where_the_parser_does(language: Language) -> None:
    parser, right, wrong = Parser(language), 0, 0
    for path in [*RECIPES, *sorted(ROOT.glob("tests/messages/*.pem"))]:
        report, text = Report(), path.read_text(encoding="utf-8")
        parse(Source(path.name, text, path.parent), report)
        codes = {x.code for x in report} - OF_TEXTS
        assert parser.parse(text.encode()).root_node.has_error == bool(codes), path
        right, wrong = right + (not codes), wrong + bool(codes)
    assert right > 500 and wrong > 20


def test_the_shape_of_a_tree(language: Language) -> None:
    text = 'let x = a\n\nlet y = (\n  0.5 ⊗ a\n  + f(x, by=w)["*.q{w}"]\n)  # half\n'
    assert str(Parser(language).parse(text.encode()).root_node) == (
        "(source_file (let_stmt (identifier) (name (identifier))) (let_stmt (identifier) "
        "(group (chain (chain (number) (name (identifier))) (select (call (name (identifier)) "
        "(arguments (name (identifier)) (named_arg (identifier) (name (identifier))))) "
        "(globs (string (interpolation))))))) (comment))"
    )


def test_a_mistake_costs_one_statement(language: Language) -> None:
    tree = Parser(language).parse(b"let x = a\nlet y = a b\nsave to\nlet z = a\n").root_node
    assert [x.text for x in tree.children if x.type == "let_stmt" and not x.has_error] == [
        b"let x = a",
        b"let z = a",
    ]


def test_colours(language: Language) -> None:
    text = """\
## A skill less.
def less(x: adapter, by: number = 1) -> adapter = paper.less(x, skill=ties([x], density=0.5))
let y = less(base.x, "{w}") if not true
"""
    coloured: dict[str, list[str]] = {}
    for folder in ("tree-sitter/queries", "neovim/queries/pem"):
        query = Query(language, (EDITORS / folder / "highlights.scm").read_text(encoding="utf-8"))
        captures = QueryCursor(query).captures(Parser(language).parse(text.encode()).root_node)
        coloured = {
            kind: [x.text.decode() for x in sorted(nodes, key=lambda x: x.start_byte) if x.text]
            for kind, nodes in captures.items()
        }
        assert coloured["comment.documentation"] == ["## A skill less."]
        assert coloured["function.builtin"] == ["ties"]
        assert coloured["function.call"].count("less") == 2
        assert coloured["function"] == ["less"]
        assert coloured["module"] == ["paper", "base"]
        assert coloured["type.builtin"] == ["adapter", "number", "adapter"]
        assert coloured["variable.parameter"] == ["x", "by", "skill", "density"]
        assert coloured["string.special"] == ["{w}"]
        assert {"def", "let"} <= set(coloured["keyword"])


def test_the_queries_are_of_the_grammar(language: Language) -> None:
    queries = sorted(EDITORS.rglob("*.scm"))
    assert len(queries) > 5
    for path in queries:
        Query(language, path.read_text(encoding="utf-8"))
