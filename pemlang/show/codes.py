"""The catalogue of codes: what each means, for `pem explain` and docs/errors.md."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pemlang.dataclass import dataclass


@dataclass(frozen=True)
class Entry:
    """What there is to say about a code: a title, and an explanation in Markdown."""

    title: str
    text: str


@dataclass(frozen=True)
class ExplainJson:
    """`pem explain`: all codes, or the one that was asked for."""

    codes: Mapping[str, Entry]


@cache
def catalogue() -> dict[str, Entry]:
    """Every code in order."""
    data = tomllib.loads(Path(__file__).with_name("codes.toml").read_text(encoding="utf-8"))
    return {
        code: Entry(entry["title"], entry["text"].strip()) for code, entry in sorted(data.items())
    }


def as_markdown() -> str:
    """docs/errors.md."""
    parts = [
        "# Errors and warnings",
        "",
        "Every message has a stable code; `pem explain CODE` prints what stands here. This page is",
        "made from `pemlang/show/codes.toml` by `make docs`.",
        "",
    ]
    for code, entry in catalogue().items():
        parts += [f"## {code}: {entry.title}", "", entry.text, ""]
    return "\n".join(parts)
