"""Untrusted text inside Markdown and HTML: nothing in it is markup."""

from __future__ import annotations

import html
import re

from pemlang.diagnostics import visible

_JOINER = "&#8288;"


def markdown(text: str, limit: int = 200) -> str:
    """Plain Markdown of at most so many characters that mentions nobody and links to nothing: in an
    @ and in an address stands what joins words and is not seen."""
    text = re.sub(r"([\\`*_{}\[\]<>()#+!|~&-])", r"\\\1", visible(text, limit))
    return re.sub(r"(@|:(?=//)|(?i:\bwww)(?=\.))", rf"\1{_JOINER}", text)


def code(text: str) -> str:
    """Inline code in Markdown, in a fence longer than any in it."""
    text = visible(text, 400)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def cell(text: str) -> str:
    """Inline code in a cell of a Markdown table; plain where a bar would end the cell, which
    parsers disagree on inside code."""
    return markdown(text) if set(visible(text)) & set("|\\") else code(text)


def hypertext(text: str) -> str:
    """HTML, in an element or in a quoted attribute."""
    return html.escape(visible(text))
