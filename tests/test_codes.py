"""The catalogue of codes says something, and something true, about every code and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from support import pem, recipe, shelf

import pemlang
from pemlang.ops import FUNCTIONS, INFIX, PREFIX, every_operator
from pemlang.show import catalogue, codes, formats, library, operators

SOURCES = Path(pemlang.__file__).parent
REPOSITORY = SOURCES.parent
MESSAGES = Path(__file__).parent / "messages"

# What stands for a and b in the examples of an entry, where it is not the usual two.
STAND_INS = {
    "PEM0704": {"gains_bf16": "gains_bf16"},
    "PEM0304": {"b": "ia3"},
    "PEM0306": {"b": "other_sites"},
    "PEM0307": {"b": "wider"},
    "PEM0308": {"b": "rank8"},
    "PEM0309": {"b": "alpha16"},
    "PEM0342": {"b": "heads"},
    "PEM0346": {"b": "heads"},
    "PEM0505": {"a": "heads", "b": "other_heads"},
    "PEM0701": {"b": "apart"},
}


def raised() -> set[str]:
    """Every code that stands in the sources as a text of its own."""
    return {
        node.value
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        if isinstance(node.value, str) and re.fullmatch(r"PEM\d{4}", node.value)
    }


def test_the_catalogue_has_every_code_and_no_other() -> None:
    assert set(catalogue()) == raised()


def test_every_code_has_a_snapshot() -> None:
    assert {path.name.partition("-")[0] for path in MESSAGES.glob("PEM*.txt")} == raised()


def test_every_entry_says_something_of_its_own() -> None:
    entries = catalogue().values()
    for texts in ([entry.title for entry in entries], [entry.text for entry in entries]):
        assert all(texts)
        assert len(set(texts)) == len(texts)


EXAMPLES = [
    (code, role, example)
    for code, entry in catalogue().items()
    for role, example in re.findall(
        r"^```pem (\w+)\n(.*?)^```$", entry.text, re.MULTILINE | re.DOTALL
    )
]


def codes_of(folder: Path, code: str, example: str) -> set[str]:
    """The codes that an example gives when it is built, or checked where it saves nothing."""
    names = {"a": "a", "b": "b"} | STAND_INS.get(code, {})
    used = [name for name in names if re.search(rf"\b{name}\b", re.sub('".*?"', "", example))]
    text = "".join(f'adapter {name} = "adapters/{names[name]}"\n' for name in used)
    if example.startswith("language"):
        text, example = "language 1\n" + text, example.removeprefix("language 1\n")
    loaded = pemlang.load(recipe(folder, text + example))
    builds = "save " in example or code == "PEM0114"
    try:
        diagnostics = loaded.build().warnings if builds else loaded.check()
    except pemlang.PemError as error:
        diagnostics = error.diagnostics
    finally:
        shelf.clear(folder)
    fragment = set() if builds else {"PEM0114"}
    return {diagnostic.code for diagnostic in diagnostics} - fragment


@pytest.mark.parametrize(
    ("code", "role", "example"), EXAMPLES, ids=[f"{code}-{role}" for code, role, _ in EXAMPLES]
)
def test_examples_are_what_they_are_called(
    code: str, role: str, example: str, stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stocked)
    assert codes_of(stocked, code, example) == {"wrong": {code}, "right": set()}[role]


@pytest.mark.parametrize("code", catalogue())
def test_explain(code: str) -> None:
    entry = catalogue()[code]
    assert pem("explain", code.lower()).text == f"{code}: {entry.title}\n\n{entry.text}\n"


def test_explain_lists_all() -> None:
    lines = pem("explain").text.splitlines()
    assert [line.split("  ")[0] for line in lines] == list(catalogue())


def test_every_operator_is_on_the_page() -> None:
    registered = {*FUNCTIONS.values(), *INFIX.values(), *PREFIX.values()}
    assert {operator.name for operator in registered} == {x.name for x in every_operator()}
    headings = re.findall(r"^### `(.+)`$", operators.as_markdown(), re.MULTILINE)
    assert headings == [operators.use(operator) for operator in every_operator()]


def test_every_function_of_the_library_is_on_its_page() -> None:
    page = library.as_markdown()
    for file in (REPOSITORY / "stdlib").glob("*.pem"):
        assert f"## std.{file.stem}\n" in page
        for name in re.findall(r"^def ([^\W_]\w*)", file.read_text(encoding="utf-8"), re.MULTILINE):
            assert f"### {name}\n\n" in page
            assert f"```pem\ndef {name}(" in page


@pytest.mark.parametrize(
    ("name", "page"),
    [("errors", codes), ("formats", formats), ("library", library), ("operators", operators)],
)
def test_pages_are_up_to_date(name: str, page: Any) -> None:
    written = (REPOSITORY / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert written == page.as_markdown()
