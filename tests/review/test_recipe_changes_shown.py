"""A change of a recipe in every form there is, whatever its names say."""

from __future__ import annotations

import html.parser
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import lora, pem, recipe
from support.comparing import SUM, shown
from support.git import commit, git
from support.processes import on_a_terminal

HOSTILE = "a|b`c``<img src=x onerror=y>[l](javascript:z)*_~</td>&"


@dataclass(frozen=True)
class Compared:
    """Two sides of a comparison, and where."""

    folder: Path
    old: str
    new: str

    def shown(self, form: str) -> str:
        """All that is printed in a form."""
        done = pem("diff", self.old, self.new, "--format", form, folder=self.folder)
        assert (done.code, done.err) == (0, "")
        return done.out


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Sides, paths and notes that try all they can: of a revision that keeps no adapter."""
    folder, name = tmp_path_factory.mktemp("hostile"), f"{HOSTILE}\x1b[31m"
    for seed, adapter in enumerate((HOSTILE, "b")):
        lora(folder / adapter, seed)
    text = f'adapter a = "../{HOSTILE}"\nadapter b = "../b"\n'
    old = f'assert norm(a) < 1\nsave a + b to "out/{HOSTILE}"\nsave a to "{HOSTILE}"\n'
    new = f'save 2 * a + b to "out/{HOSTILE}"\nsave b to "new{HOSTILE}"\n'
    (folder / name).write_text(text + old)
    (folder / ".gitignore").write_text("*.json\n*.safetensors\n")
    git(folder, "init", "-qb", "main")
    commit(folder)
    (folder / name).write_text(text + new)
    return Compared(folder, f"main:{name}", name)


class Tags(html.parser.HTMLParser):
    """The tags of a page, held to be well nested."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        assert {name for name, _ in attrs} <= {"class"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_holds_whatever_names_say(hostile: Compared) -> None:
    page, tags = hostile.shown("html"), Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    assert tags.seen <= set("p code table thead tbody tr th td ul li".split())
    assert page.count("<tr ") == 3
    assert "\x1b" not in page


def test_markdown_holds_whatever_names_say(hostile: Compared) -> None:
    markdown = hostile.shown("markdown")
    bare = re.sub(r"(`+)(?!`)(?:(?!\1(?!`)).)*?(?<!`)\1(?!`)", "", markdown)
    assert "<img" not in bare.replace("\\<", "")
    assert "](" not in bare.replace("\\]", "")
    tags = {"<details", "<summary", "</summary", "</details"}
    assert set(re.findall(r"(?<!\\)</?[a-z]+", bare)) == tags
    assert "\x1b" not in markdown
    assert markdown.endswith("\n\n")  # its own newline, and the command's


def test_text_and_json_are_all_of_it(hostile: Compared) -> None:
    assert "\x1b" not in hostile.shown("text")
    data = json.loads(hostile.shown("json"))
    assert data["same"] is False
    assert [output["path"] for output in data["outputs"]] == [
        f"out/{HOSTILE}", f"new{HOSTILE}", HOSTILE,
    ]  # fmt: skip
    assert data["assertions"] == ["− norm(a) < 1"]
    assert len(data["notes"]) == 2


def test_a_terminal_shows_what_changed_in_colour(hostile: Compared) -> None:
    done = on_a_terminal("diff", hostile.old, hostile.new, folder=hostile.folder)
    assert "\x1b[33m" in done.out


@pytest.mark.parametrize("form", ["text", "json", "markdown", "html"])
def test_every_form_from_the_command_line(repo: Path, form: str) -> None:
    recipe(repo, SUM.replace("0.6", "0.75"), "r.pem")
    done = pem("diff", "main:r.pem", "r.pem", "--format", form)
    assert (done.code, "b −0.6 → −0.75" in done.out) == (0, True)


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_nothing_changed_is_said_in_every_form(shelf: Path, form: str) -> None:
    assert "no change of meaning" in shown(shelf, 'save a to "x"', 'save 1 * a to "x"', form)
