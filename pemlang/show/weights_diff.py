"""A comparison of two adapters or two models, for a terminal, a pull request and a page.

Names of sites, tensors, files and bases come from what is compared: each rendering escapes them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from pemlang.compare.changes import DeltaChange, Fact
from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.markup import cell, code, hypertext, markdown

SHOWN = 10
"""How many rows text and Markdown show."""

NUMBERS = ("‖new − old‖", "relative", "old", "new", "cosine")
"""What stands above the numbers of a change."""

_COLOURS = {"added": "32", "removed": "31", "incomparable": "33;1", "changed": "0", "heading": "1"}


@dataclass(frozen=True)
class ChangedRow:
    """A site or a tensor that changed.

    Attributes:
        name: its name, as untrusted as the file it comes from.
        state: what became of it.
        measured: how far it moved.
        more: what else there is to say of it.
    """

    name: str
    state: str
    measured: DeltaChange
    more: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands after its name."""
        delta = self.measured
        return (
            self.state,
            "–" if delta.change is None else f"{delta.change:.4g}",
            _relative(delta.change, delta.relative),
            "–" if self.state == "added" else f"{delta.old:.4g}",
            "–" if self.state == "removed" else f"{delta.new:.4g}",
            _cosine(delta.cosine),
            *self.more,
        )


@dataclass(frozen=True)
class WeightsDiff:
    """What is to be shown of a comparison.

    Attributes:
        old, new: the places, as given.
        summary: what they are, and what became of how many parts.
        totals: label and value, over all parts.
        differences: what else changed: label, old, new.
        head: the titles of the rows' cells.
        rows: the parts that changed: what cannot be compared, then the largest change first.
    """

    old: str
    new: str
    summary: str
    totals: Sequence[tuple[str, str]]
    differences: Sequence[tuple[str, str, str]]
    head: tuple[str, ...]
    rows: Sequence[ChangedRow]


def counted(what: str, part: str, states: Sequence[str]) -> str:
    """How many parts of something are in each state: `LoRA, 2 sites: 1 changed, 1 same`."""
    counts = [f"{n:,} {state}" for state, n in sorted(Counter(states).items())]
    return f"{what}, {len(states):,} {part}{'s' * (len(states) != 1)}: {', '.join(counts)}"


def totals(total: DeltaChange, part: str, states: Sequence[str]) -> list[tuple[str, str]]:
    """How far all parts moved: label and value."""
    if total.change is None:
        return [("change", f"no {part} can be compared")]
    apart = states.count("incomparable")
    without = f", without {apart} incomparable" if apart else ""
    change = f"{total.change:.4g}, {_relative(total.change, total.relative)} of old{without}"
    if total.relative is None:
        change = f"{total.change:.4g}, old is zero{without}"
    return [
        ("change", change),
        ("norm", f"{total.old:.4g} → {total.new:.4g}"),
        ("cosine", _cosine(total.cosine)),
    ]


def changed_facts(facts: Iterable[Fact]) -> list[tuple[str, str, str]]:
    """The facts that changed: label, old, new."""
    return [(fact.label, fact.old, fact.new) for fact in facts if fact.old != fact.new]


def worst_first(rows: Iterable[ChangedRow]) -> list[ChangedRow]:
    """Rows in the order of WeightsDiff, those of what is the same left out."""

    def order(row: ChangedRow) -> tuple[float, str]:
        change = row.measured.change
        return -math.inf if change is None else -change, row.name

    return sorted((row for row in rows if row.state != "same"), key=order)


def _relative(change: float | None, relative: float | None) -> str:
    if change is None:
        return "–"
    return "new" if relative is None else f"{100 * relative:.3g}%"


def _cosine(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _more(hidden: int) -> list[str]:
    return [f"and {hidden:,} more that changed"] if hidden > 0 else []


# --- renderings ---------------------------------------------------------------------------------


def as_text(c: WeightsDiff, colour: bool = False) -> str:
    """Lines for a terminal: the total, the facts that changed, the sites that changed most."""

    def paint(style: str, text: str) -> str:
        return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if colour else text

    facts = [*c.totals] + [(label, f"{old} → {new}") for label, old, new in c.differences]
    labels, values = ([visible(pair[i]) for pair in facts] for i in (0, 1))
    width = max(map(len, labels))
    lines = [paint("heading", f"{visible(c.old)} → {visible(c.new)}"), c.summary, ""]
    lines += [f"{label:<{width}}  {value}" for label, value in zip(labels, values, strict=True)]
    if c.rows:
        rows = [(visible(row.name), *row.cells) for row in c.rows[:SHOWN]]
        head, *table = _aligned([c.head, *rows])
        lines += ["", paint("heading", head)]
        lines += [paint(row.state, line) for row, line in zip(c.rows, table, strict=False)]
        lines += _more(len(c.rows) - SHOWN)
    return "\n".join(lines)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{c:<{w}}" for c, w in zip(cells, widths, strict=True)).rstrip()
        for cells in rows
    ]


def as_markdown(c: WeightsDiff) -> str:
    """Markdown with tables as GitHub reads them: what as_text says."""
    lines = [f"### {code(c.old)} → {code(c.new)}", "", f"{markdown(c.summary)}.", ""]
    lines += [f"- {label}: {markdown(value)}" for label, value in c.totals]
    if c.differences:
        lines += ["", *_pipes(("", "old", "new"), c.differences, cell)]
    if c.rows:
        rows = [(cell(row.name), *map(markdown, row.cells)) for row in c.rows[:SHOWN]]
        lines += ["", *_pipes(c.head, rows, str)]
        lines += ["", *map(markdown, _more(len(c.rows) - SHOWN))]
    return "\n".join(lines).rstrip() + "\n"


def _pipes(
    head: Sequence[str], rows: Iterable[Sequence[str]], escape: Callable[[str], str]
) -> list[str]:
    cells = [head, ["---"] * len(head), *([escape(text) for text in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def as_html(c: WeightsDiff) -> str:
    """A fragment of a page, without style or script; every row is in it."""
    lines = [
        '<section class="comparison">',
        f"<h2>{hypertext(c.old)} → {hypertext(c.new)}</h2>",
        f"<p>{hypertext(c.summary)}.</p>",
        "<table>",
    ]
    for label, value in c.totals:
        lines.append(
            f'<tr><th scope="row">{label}</th><td colspan="2">{hypertext(value)}</td></tr>'
        )
    for label, old, new in c.differences:
        cells = "".join(f"<td>{hypertext(text)}</td>" for text in (old, new))
        lines.append(f'<tr><th scope="row">{hypertext(label)}</th>{cells}</tr>')
    lines.append("</table>")
    if c.rows:
        head = "".join(f'<th scope="col">{title}</th>' for title in c.head)
        lines += ["<table>", f"<thead><tr>{head}</tr></thead>", "<tbody>"]
        for row in c.rows:
            cells = "".join(f"<td>{hypertext(text)}</td>" for text in row.cells)
            lines.append(f'<tr><th scope="row">{hypertext(row.name)}</th>{cells}</tr>')
        lines += ["</tbody>", "</table>"]
    return "\n".join([*lines, "</section>"]) + "\n"
