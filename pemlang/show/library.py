"""The standard library as a page, by what its recipes say of themselves: docs/library.md."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from pemlang.diagnostics import Report
from pemlang.resources import resource
from pemlang.source import Source
from pemlang.syntax import tree as t
from pemlang.syntax.parser import parse


def as_markdown() -> str:
    """The page."""
    lines = [
        "# The standard library",
        "",
        "Recipes that come with pemlang, imported by name: `import std.paper (merge)`, or",
        "`import std.paper as paper` and then `paper.merge(a, b)`. This page is written from them.",
    ]
    for file in sorted(resource("stdlib").glob("*.pem")):
        lines += _module(file)
    return "\n".join(lines) + "\n"


def _module(file: Path) -> Iterator[str]:
    text = file.read_text(encoding="utf-8")
    head = takewhile(lambda line: line.startswith("#"), text.splitlines())
    words = " ".join(line.removeprefix("#").strip() for line in head)
    about = words.removeprefix(f"{file.name}: ")
    yield from ("", f"## std.{file.stem}", "", f"{about[0].upper()}{about[1:]}")
    for statement in parse(Source(file.name, text), Report()).statements:
        if isinstance(statement, t.Def):
            yield from ("", f"### {statement.name.name}", "", " ".join(statement.doc.split()))
            yield from ("", "```pem", statement.span.text, "```")
