"""A change of an adapter in every form there is, whatever its names say."""

from __future__ import annotations

import html.parser
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from support import PREFIX, lora
from support.comparing import compared_of, shown_of
from support.processes import on_a_terminal

from pemlang.compare import compare


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return lora(tmp_path / "old", 1, {f"layer.{i}.q": (5, 6) for i in range(14)}, rank=2)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return lora(tmp_path / "new", 2, {f"layer.{i}.q": (5, 6) for i in range(14)}, rank=4)


def test_text_shows_the_worst_sites_first(old: Path, new: Path) -> None:
    text = shown_of(old, new)
    order = sorted(compared_of(old, new).sites, key=lambda site: -(site.measured.change or 0))
    shown = re.findall(r"^(layer\.\d+\.q) ", text, re.MULTILINE)
    assert shown == [site.site for site in order[:10]]
    assert text.endswith("and 4 more that changed\n")
    assert "LoRA, 14 sites: 14 changed" in text
    assert "rank " in text
    assert "\x1b" not in text


def test_a_terminal_shows_the_same_in_colour(old: Path, new: Path) -> None:
    coloured = on_a_terminal("diff", str(old), str(new), folder=old.parent).out
    assert "\x1b" in coloured
    assert re.sub(r"\x1b\[[\d;]*m|\r", "", coloured) == shown_of(old, new)


def test_markdown_and_html_show_them_too(old: Path, new: Path) -> None:
    text = shown_of(old, new, "markdown")
    assert len(re.findall(r"^\| `layer\.\d+\.q` ", text, re.MULTILINE)) == 10
    assert "and 4 more that changed" in text
    assert "| `rank` | `2` | `4` |" in text
    assert shown_of(old, new, "html").count('<th scope="row">layer.') == 14


def test_json_holds_everything(old: Path, new: Path) -> None:
    data = json.loads(shown_of(old, new, "json"), parse_constant=pytest.fail)
    assert len(data["sites"]) == 14
    assert (data["method"], data["same"]) == ("lora", False)
    site = data["sites"][0]
    assert (site["site"], site["state"], site["ranks"]) == ("layer.0.q", "changed", [2, 4])
    comparison = compare(str(old), str(new))
    assert site["measured"] == asdict(comparison.sites[0].measured)
    assert len(site["spectra"][1]) == 4
    assert data["total"]["cosine"] == comparison.total.cosine


HOSTILE = (
    "<script>alert(1)</script>.q",
    "a | b | c.q",
    r"a \| b.q",
    "`tick` ``two``.q",
    "[x](javascript:alert(1)).q",
    '" onmouseover="alert(1).q',
    "\u202eright\x1b[2J.q",
)


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[Path, Path]:
    """Two adapters whose names and files try all they can."""

    def made(name: str, seed: int, base: str) -> Path:
        head = {f"{PREFIX}head\n# <b>|`x`\x1b[31m.weight": torch.full((1, 2), float(seed))}
        sites = dict.fromkeys(HOSTILE, (3, 4))
        config: dict[str, Any] = {"target_modules": ..., "base_model_name_or_path": base}
        return lora(tmp_path / name, seed, sites, rank=1, extra=head, **config)

    return made("<i>o|d\n</i>", 1, "some/base"), made("n`e`w", 2, "<img src=x>|\n- x")


class Fragment(html.parser.HTMLParser):
    """The tags and attributes of a fragment, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_names_are_no_html(hostile: tuple[Path, Path]) -> None:
    page = Fragment()
    page.feed(shown_of(*hostile, "html"))
    tables = {"table", "thead", "tbody", "tr", "th", "td"}
    assert page.tags == {"section", "h2", "p"} | tables
    assert page.attributes <= {"class", "scope", "colspan"}
    for name in HOSTILE[:-1]:
        assert name in page.text
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text


def test_hostile_names_are_no_markdown(hostile: tuple[Path, Path]) -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True})
    markdown, page = shown_of(*hostile, "markdown"), Fragment()
    page.feed(parser.enable("table").render(markdown))
    tables = {"table", "thead", "tbody", "tr", "th", "td"}
    assert page.tags <= {"h3", "p", "ul", "li", "code"} | tables
    assert page.attributes == set()
    for name in HOSTILE[:-1]:
        assert name in page.text
    rows = [line for line in markdown.splitlines() if "changed" in line]
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 9 for row in rows[1:])


def test_hostile_names_are_no_terminal_codes(hostile: tuple[Path, Path]) -> None:
    text = shown_of(*hostile)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert re.search(r"^head .*head\\u000a# <b>", text, re.MULTILINE)
    assert len(text.splitlines()) == 3 + 5 + 2 + len(HOSTILE)
