"""The catalogue of codes says something, and something true, about every code and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import shelf
import support
from click.testing import CliRunner

import pemlang
from pemlang.cli.main import cli
from pemlang.ops import OPERATORS
from pemlang.show import codes, operators
from pemlang.show.codes import catalogue

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
    for said in ([entry.title for entry in entries], [entry.text for entry in entries]):
        assert all(said)
        assert len(set(said)) == len(said)


EXAMPLES = [
    (code, role, example)
    for code, entry in catalogue().items()
    for role, example in re.findall(
        r"^```pem (\w+)\n(.*?)^```$", entry.text, re.MULTILINE | re.DOTALL
    )
]


def found(folder: Path, code: str, example: str) -> set[str]:
    """The codes that an example gives when it is built, or checked where it saves nothing."""
    names = {"a": "a", "b": "b"} | STAND_INS.get(code, {})
    used = [name for name in names if re.search(rf"\b{name}\b", re.sub('".*?"', "", example))]
    text = "".join(f'adapter {name} = "adapters/{names[name]}"\n' for name in used)
    if example.startswith("language"):
        text, example = "language 1\n" + text, example.removeprefix("language 1\n")
    recipe = pemlang.load(support.recipe(folder, text + example))
    try:
        if "save " in example or code == "PEM0114":
            return {one.code for one in recipe.build().warnings}
        return {one.code for one in recipe.check()}
    except pemlang.PemError as error:
        return {one.code for one in error.diagnostics}
    finally:
        shelf.clear(folder)


@pytest.mark.parametrize(
    ("code", "role", "example"), EXAMPLES, ids=[f"{code}-{role}" for code, role, _ in EXAMPLES]
)
def test_examples_are_what_they_are_called(
    code: str, role: str, example: str, stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stocked)
    assert found(stocked, code, example) == {"wrong": {code}, "right": set()}[role]


@pytest.mark.parametrize("code", catalogue())
def test_explain(code: str) -> None:
    result = CliRunner().invoke(cli, ["explain", code.lower()])
    entry = catalogue()[code]
    assert result.output == f"{code}: {entry.title}\n\n{entry.text}\n"


def test_explain_lists_all() -> None:
    lines = CliRunner().invoke(cli, ["explain"]).output.splitlines()
    assert [line.split("  ")[0] for line in lines] == list(catalogue())


def test_every_operator_is_on_the_page() -> None:
    assert [one for *_, found in operators.SECTIONS for one in found] == list(OPERATORS)


@pytest.mark.parametrize("page", [codes, operators], ids=["errors", "operators"])
def test_pages_are_up_to_date(page: object) -> None:
    name = {codes: "errors", operators: "operators"}[page]
    written = (REPOSITORY / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert written == page.as_markdown()
