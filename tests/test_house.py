"""The house holds: what CONTRIBUTING promises of the sources, counted."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pemlang.cli.main import command_names
from pemlang.execute import BACKENDS
from pemlang.graph import Node
from pemlang.modules import PARAMETRISATIONS

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "pemlang").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in [*SOURCES, *TESTS]}

LONGEST_FUNCTION, LONGEST_FILE, LONGEST_TEST_FILE = 60, 500, 400
MOST_ANY = 100
MOST_PATHS = 21


def nodes(paths: list[Path]) -> Iterator[ast.AST]:
    for path in paths:
        yield from ast.walk(TREES[path])


def named(path: Path) -> Iterator[str]:
    """The classes of a file, and the names that it gives to other types."""
    for node in TREES[path].body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            [target] = node.targets if isinstance(node, ast.Assign) else [node.target]
            if isinstance(target, ast.Name) and re.fullmatch(r"_?[A-Z]\w*[a-z]\w*", target.id):
                yield target.id


def test_no_name_of_a_class_or_a_type_stands_twice() -> None:
    names = Counter(name.lstrip("_") for path in SOURCES for name in named(path))
    assert [name for name, count in names.items() if count > 1] == []


def test_every_dataclass_is_the_one_that_is_quickly_made() -> None:
    makers = [
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.ImportFrom) and node.module == "dataclasses"
        if any(alias.name == "dataclass" for alias in node.names)
    ]
    assert makers == ["pemlang/dataclass.py"]  # for the type checker


def test_the_backends_and_the_commands_are_the_files_that_are_no_helpers() -> None:
    for name, module in BACKENDS.items():
        assert "executor" in functions(module), name
    for name in command_names():
        module = f"pemlang.cli.{name.replace('-', '_')}"
        assert name.replace("-", "_") in functions(module), name


def functions(module: str) -> set[str]:
    """The functions of a module."""
    body = TREES[ROOT / f"{module.replace('.', '/')}.py"].body
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


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


def test_no_room_matches_on_the_name_of_a_parametrisation() -> None:
    knowing = {"peft.py", "peft_config.py", "peft_write.py"}
    compares = [
        (path.name, node)
        for path in SOURCES
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Compare) and path.name not in knowing
    ]
    naming = [
        (name, ast.unparse(node))
        for name, node in compares
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and part.value in PARAMETRISATIONS
    ]
    assert naming == []


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


def test_few_tests_reach_into_a_room() -> None:
    inside = re.compile(r"pemlang\.[a-z]+\.[a-z_]+(\.\w+)*")
    reached = {
        part.value
        for path in TESTS
        for part in ast.walk(TREES[path])
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
        if inside.fullmatch(part.value)
        and not part.value.startswith(("pemlang.cli.", "pemlang.notebook."))
    }
    assert len(reached) <= MOST_PATHS
