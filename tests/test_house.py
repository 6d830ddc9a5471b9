"""The house holds: what CONTRIBUTING promises of the sources, counted."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pemlang.graph import Node

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "pemlang").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in [*SOURCES, *TESTS]}

LONGEST_FUNCTION, LONGEST_FILE, LONGEST_TEST_FILE = 60, 500, 400
MOST_ANY = 100


def nodes(paths: list[Path]) -> Iterator[ast.AST]:
    for path in paths:
        yield from ast.walk(TREES[path])


def test_no_class_name_stands_twice() -> None:
    names = Counter(node.name for node in nodes(SOURCES) if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


def kinds(kind: type[Node]) -> Iterator[str]:
    for below in kind.__subclasses__():
        yield from kinds(below)
        if "kind" in vars(below):
            yield below.kind


def test_no_room_matches_on_the_name_of_a_kind_of_node() -> None:
    import pemlang.ops  # noqa: F401  # the kinds that are not of the graph itself

    names = set(kinds(Node))
    assert {"leaf", "sum", "merge", "task_vector"} <= names
    compares = [node for node in nodes(SOURCES) if isinstance(node, ast.Compare)]
    assert [ast.unparse(node) for node in compares if compared(node) & names] == []


def compared(node: ast.Compare) -> set[object]:
    """The constants that an attribute called kind, or op, is compared with."""
    parts = [part for side in (node.left, *node.comparators) for part in ast.walk(side)]
    attributes = {part.attr for part in parts if isinstance(part, ast.Attribute)}
    if not attributes & {"kind", "op"}:
        return set()
    return {part.value for part in parts if isinstance(part, ast.Constant)}


def test_what_peft_calls_its_config_is_known_in_one_place() -> None:
    naming = [p.name for p in SOURCES if "adapter_config.json" in p.read_text(encoding="utf-8")]
    assert naming == ["peft_names.py"]


def test_types_are_said() -> None:
    words = sum(len(re.findall(r"\bAny\b", path.read_text(encoding="utf-8"))) for path in SOURCES)
    assert words < MOST_ANY


def test_functions_fit_a_screen() -> None:
    long = [
        node.name
        for node in nodes(SOURCES)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
        if node.end_lineno - node.lineno >= LONGEST_FUNCTION
    ]
    assert long == []


def test_files_are_read_in_one_sitting() -> None:
    def long(paths: list[Path], most: int) -> list[str]:
        return [path.name for path in paths if len(path.read_text().splitlines()) > most]

    assert long(SOURCES, LONGEST_FILE) == []
    assert long(TESTS, LONGEST_TEST_FILE) == []


def test_tests_go_through_doors() -> None:
    """So that what is in a room can be rearranged without them."""
    rooms = {path.stem for path in (ROOT / "pemlang").iterdir()}
    doors = {"pemlang", "pemlang.cli.main", *(f"pemlang.{room}" for room in rooms)}
    imported = {
        (path.name, node.module)
        for path in TESTS
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "pemlang"
    }
    assert {(name, module) for name, module in imported if module not in doors} == set()
