"""The layout of every recipe there is: tests, examples, the library, the pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import pem
from support.syntax import laid

import pemlang
from pemlang.syntax import read_source

ROOT = Path(__file__).parents[2]


def recipes() -> Iterator[tuple[str, str]]:
    for path in sorted(ROOT.glob("*/**/*.pem")):
        try:
            pemlang.load(path)
        except pemlang.PemError:  # too large, empty, a certificate: tests of messages
            continue
        yield str(path.relative_to(ROOT)), read_source(path).text
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
    except pemlang.PemError:
        assert name.startswith(("tests/messages", "pemlang/show/codes", "docs/errors"))


def test_the_recipes_are_found() -> None:
    starts = {name.split("/")[0] for name, _ in RECIPES}
    assert {"README.md-0", "docs", "examples", "stdlib", "tests", "pemlang"} <= starts


@pytest.mark.parametrize("folder", ["stdlib", "examples"])
def test_our_own_recipes_are_laid_out(folder: str) -> None:
    assert pem("fmt", "--check", ROOT / folder).text == ""


def test_the_page_shows_the_layout() -> None:
    text = (ROOT / "docs/language.md").read_text()
    [block] = re.findall(r"^## Layout$.*?^```pem\n(.*?)^```$.*?^## ", text, re.M | re.S)
    assert laid(block) == block
