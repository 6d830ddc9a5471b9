"""One HTML page that holds all it needs and runs nothing it did not come with.

The page's policy names its scripts and its style by their digests and allows nothing else, so that
no text in it can run or load anything, whatever it says; and all text is escaped all the same.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from pemlang.artifact.card import MARK
from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.version import __version__

HEAD = f"<!doctype html>\n{MARK}\n"
"""How every page starts, so that one can be told from a file of someone else's."""

_ASSETS = Path(__file__).parent / "assets"
_LONG_TABLE = 12  # rows, from which on a table can be searched
_LONG_WORD = 44  # characters, from which on it is broken anywhere
_SHORT = 26  # characters of a cell that is not broken at all
_DIGITS = 6


@dataclass(frozen=True)
class PageLink:
    """Text that leads to a place in this page or in one beside it."""

    text: str
    href: str

    @property
    def html(self) -> str:
        """It as an element."""
        return f'<a href="{escaped(self.href, 2000)}">{escaped(self.text)}</a>'


CellValue = str | int | float | PageLink | None


@dataclass(frozen=True)
class PageSection:
    """A part of a page: its title as plain text, and an HTML fragment made by what is here."""

    title: str
    html: str


@dataclass(frozen=True)
class Column:
    """A column of a table; `code` is set in a fixed width."""

    title: str
    kind: Literal["text", "number", "code"] = "text"


@dataclass(frozen=True)
class View:
    """Numbers under a name: rows by name, a number for each column of the chart, None where there
    is none."""

    name: str
    rows: Sequence[tuple[str, Sequence[float | None]]]


@dataclass(frozen=True)
class Chart:
    """A heat map, or lines over the columns, with its numbers in a table beside it.

    Attributes:
        title, caption: what it shows, and how that is defined.
        columns: what the columns are called; `across` what they are.
        views: one at a time is shown; `choice` says what is chosen.
        unit: what the numbers are.
        log: a logarithmic axis.
        range: the ends of the scale; those of the numbers when None. One of three is diverging,
            with its middle, and falls where the larger number is the worse one.
    """

    kind: Literal["heat", "lines"]
    title: str
    caption: str
    columns: Sequence[str]
    across: str
    views: Sequence[View]
    unit: str
    choice: str = ""
    log: bool = False
    range: tuple[float, ...] | None = None


def escaped(text: object, limit: int = 700) -> str:
    """Untrusted text inside an element or a quoted attribute."""
    return html.escape(visible(text, limit))


def paragraph(text: str) -> str:
    """Plain text."""
    return f"<p>{escaped(text, 2000)}</p>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Labels and values."""
    rows = (f"<div><dt>{escaped(k)}</dt><dd>{escaped(v)}</dd></div>" for k, v in pairs)
    return f'<dl class="facts">{"".join(rows)}</dl>'


def listing(text: str) -> str:
    """Lines of code or of messages, as they are."""
    lines = "\n".join(escaped(line, 2000) for line in text.split("\n"))
    return f"<pre><code>{lines}</code></pre>"


def folded(summary: str, fragment: str) -> str:
    """A fragment that opens when its summary is clicked."""
    return f"<details><summary>{escaped(summary)}</summary>{fragment}</details>"


def table(columns: Sequence[Column], rows: Sequence[Sequence[CellValue]]) -> str:
    """A table that can be sorted, and searched where it is long."""
    kind = ' class="long"' if len(rows) >= _LONG_TABLE else ""
    head = "".join(
        f'<th scope="col"{_class(column)}>{escaped(column.title)}</th>' for column in columns
    )
    body = "".join(
        f"<tr>{''.join(_cell(*pair) for pair in zip(columns, row, strict=True))}</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table{kind}><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}</tbody></table></div>"
    )


def _class(column: Column, more: str = "") -> str:
    names = " ".join(filter(None, ("" if column.kind == "text" else column.kind, more)))
    return f' class="{names}"' if names else ""


def _cell(column: Column, value: CellValue) -> str:
    if isinstance(value, int | float):
        return f'<td class="number" data-value="{value!r}">{number(value)}</td>'
    if value is None:
        return f"<td{_class(column)}>–</td>"
    if isinstance(value, PageLink):
        return f"<td{_class(column, 'short')}>{value.html}</td>"
    how = "breaks" if any(len(word) > _LONG_WORD for word in value.split()) else ""
    if column.kind == "text" and len(value) <= _SHORT:
        how = "short"
    return f"<td{_class(column, how)}>{escaped(value)}</td>"


def number(value: float) -> str:
    """A number as the tables show it: whole ones in full, others to four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}".replace("-", "−")


def chart(drawing: Chart) -> str:
    """A chart, its choices and its numbers; drawn by report.js."""
    columns = [Column(drawing.across), *(Column(name, "number") for name in drawing.columns)]
    rows: list[Sequence[CellValue]] = [[name, *values] for name, values in drawing.views[0].rows]
    if drawing.kind == "lines":
        names = [name for name, _ in drawing.views[0].rows]
        columns = [Column(drawing.across, "number"), *(Column(name, "number") for name in names)]
        every = zip(*(values for _, values in drawing.views[0].rows), strict=True)
        rows = [[name, *values] for name, values in zip(drawing.columns, every, strict=True)]
    else:
        columns[0] = Column("")
    return (
        f'<figure class="chart"><figcaption><h3>{escaped(drawing.title)}</h3>'
        f"<p>{escaped(drawing.caption, 1000)}</p></figcaption>"
        f'<div class="plot"></div>{folded("Numbers", table(columns, rows))}'
        f'<script type="application/json">{_embedded(_as_json(drawing))}</script></figure>'
    )


def _as_json(drawing: Chart) -> dict[str, object]:
    return {
        "kind": drawing.kind,
        "columns": [visible(name) for name in drawing.columns],
        "across": drawing.across,
        "unit": drawing.unit,
        "choice": drawing.choice,
        "log": drawing.log,
        "range": drawing.range,
        "views": [
            {
                "name": visible(view.name),
                "rows": [[visible(name), list(map(_short, values))] for name, values in view.rows],
            }
            for view in drawing.views
        ],
    }


def _short(value: float | None) -> float | None:
    """A number to as many digits as a picture needs."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}")


_RISKY = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def _embedded(data: object) -> str:
    """JSON inside a script element: none of its text can end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_RISKY)


def whole_page(title: str, sections: Sequence[PageSection], about: str = "") -> str:
    """The whole page.

    Args:
        title: plain text.
        sections: in order; each is a link at the top.
        about: plain text under the title.
    """
    body = "".join(
        f'<section id="s{i}"><h2>{escaped(section.title)}</h2>\n{section.html}</section>\n'
        for i, section in enumerate(sections)
    )
    links = "".join(
        f'<a href="#s{i}">{escaped(section.title)}</a>' for i, section in enumerate(sections)
    )
    style = _asset("report.css") + _asset("graph.css")
    scripts = [_asset("report.js")]
    if '<figure class="chart">' in body:
        scripts.insert(0, _asset("echarts.min.js"))
    allowed = " ".join(map(_digest, scripts))
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_digest(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        f'{HEAD}<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escaped(title)}</title>\n<style>{style}</style></head>\n<body>"
        f"<header><h1>{escaped(title)}</h1>{paragraph(about)}</header>\n"
        f'<nav aria-label="Sections">{links}</nav>\n<main>\n{body}</main>\n'
        f"<footer>pemlang {__version__}</footer>\n"
        + "".join(f"<script>{script}</script>\n" for script in scripts)
        + "</body></html>\n"
    )


@cache
def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """A source of a content security policy."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
