"""A comparison of two adapters for a terminal, a pull request, a page and a program.

Names of sites, heads and bases come from the files that are compared: each rendering escapes them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from pemlang.compare.adapters import AdapterComparison, DeltaChange, Fact, HeadChange, SiteChange
from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.formats.adapter import method_title
from pemlang.markup import cell, code, hypertext, markdown

SHOWN = 10
"""How many sites text and Markdown show."""

_HEAD = ("site", "state", "‖new − old‖", "relative", "old", "new", "cosine", "spectrum")
_COLOURS = {"added": "32", "removed": "31", "incomparable": "33;1", "changed": "0", "heading": "1"}
_BARS = "▁▂▃▄▅▆▇█"
_VALUES = 16


@dataclass(frozen=True)
class AdapterDiffJson:
    """`pem diff` of adapters: what changed in the weights."""

    same: bool
    old: str
    new: str
    method: str
    total: DeltaChange
    facts: Sequence[Fact]
    heads: Sequence[HeadChange]
    sites: Sequence[SiteChange]


# --- what every rendering says ------------------------------------------------------------------


def _sites_in_words(c: AdapterComparison) -> str:
    counts = Counter(site.state for site in c.sites)
    states = [f"{n:,} {state}" for state, n in sorted(counts.items())]
    many = f"{len(c.sites):,} site{'s' * (len(c.sites) > 1)}"
    return f"{method_title(c.method)}, {many}: {', '.join(states)}"


def _totals(c: AdapterComparison) -> list[tuple[str, str]]:
    total = c.total
    if total.change is None:
        return [("change", "no site can be compared")]
    apart = sum(site.state == "incomparable" for site in c.sites)
    without = f", without {apart} incomparable" if apart else ""
    change = f"{total.change:.4g}, {_relative(total.change, total.relative)} of old{without}"
    if total.relative is None:
        change = f"{total.change:.4g}, old is zero{without}"
    return [
        ("change", change),
        ("norm", f"{total.old:.4g} → {total.new:.4g}"),
        ("cosine", _cosine(total.cosine)),
    ]


def _differences(c: AdapterComparison) -> list[tuple[str, str, str]]:
    """The facts and heads that changed: label, old, new."""
    differences = [(fact.label, fact.old, fact.new) for fact in c.facts if fact.old != fact.new]
    for head in c.heads:
        if head.state != "same":
            also = ", other numbers" if head.old == head.new else ""
            differences.append(
                (f"head {head.key}", head.old or "none", (head.new or "none") + also)
            )
    return differences


def _worst(c: AdapterComparison) -> list[SiteChange]:
    """The sites that changed: what cannot be compared, then the largest change first."""

    def order(site: SiteChange) -> tuple[float, str]:
        change = site.measured.change
        return -math.inf if change is None else -change, site.site

    return sorted((site for site in c.sites if site.state != "same"), key=order)


def _numbers(site: SiteChange) -> tuple[str, ...]:
    """The cells of a site after its name."""
    delta = site.measured
    return (
        site.state,
        "–" if delta.change is None else f"{delta.change:.4g}",
        _relative(delta.change, delta.relative),
        "–" if site.state == "added" else f"{delta.old:.4g}",
        "–" if site.state == "removed" else f"{delta.new:.4g}",
        _cosine(delta.cosine),
        site.note or _spectra(site),
    )


def _relative(change: float | None, relative: float | None) -> str:
    if change is None:
        return "–"
    return "new" if relative is None else f"{100 * relative:.3g}%"


def _cosine(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _spectra(site: SiteChange) -> str:
    """Both spectra as bars, of one height: `█▅▂ → █▆▃`."""
    top = max((value for values in site.spectra for value in values), default=0.0) or 1.0
    return " → ".join(_bars([v / top for v in values]) for values in site.spectra if values)


def _bars(shares: Sequence[float]) -> str:
    """A bar for each share from 0 to 1; · for one too small for the lowest."""
    bars = (_BARS[min(8, math.ceil(8 * share)) - 1] if share > 1e-3 else "·" for share in shares)
    return "".join(list(bars)[:_VALUES]) + "…" * (len(shares) > _VALUES)


def _more(hidden: int) -> list[str]:
    return [f"and {hidden:,} more that changed"] if hidden > 0 else []


# --- renderings ---------------------------------------------------------------------------------


def as_text(c: AdapterComparison, colour: bool = False) -> str:
    """Lines for a terminal: the total, the facts that changed, the sites that changed most."""

    def paint(style: str, text: str) -> str:
        return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if colour else text

    facts = _totals(c) + [(label, f"{old} → {new}") for label, old, new in _differences(c)]
    labels, values = ([visible(pair[i]) for pair in facts] for i in (0, 1))
    width = max(map(len, labels))
    lines = [paint("heading", f"{visible(c.old)} → {visible(c.new)}"), _sites_in_words(c), ""]
    lines += [f"{label:<{width}}  {value}" for label, value in zip(labels, values, strict=True)]
    worst = _worst(c)
    if worst:
        rows = [(visible(site.site), *_numbers(site)) for site in worst[:SHOWN]]
        head, *table = _aligned([_HEAD, *rows])
        lines += ["", paint("heading", head)]
        lines += [paint(site.state, row) for site, row in zip(worst, table, strict=False)]
        lines += _more(len(worst) - SHOWN)
    return "\n".join(lines)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{c:<{w}}" for c, w in zip(cells, widths, strict=True)).rstrip()
        for cells in rows
    ]


def as_markdown(c: AdapterComparison) -> str:
    """Markdown with tables as GitHub reads them: what as_text says."""
    lines = [f"### {code(c.old)} → {code(c.new)}", "", f"{markdown(_sites_in_words(c))}.", ""]
    lines += [f"- {label}: {markdown(value)}" for label, value in _totals(c)]
    differences = _differences(c)
    if differences:
        lines += ["", *_pipes(("", "old", "new"), differences, cell)]
    worst = _worst(c)
    if worst:
        rows = [(cell(site.site), *map(markdown, _numbers(site))) for site in worst[:SHOWN]]
        lines += ["", *_pipes(_HEAD, rows, str)]
        lines += ["", *map(markdown, _more(len(worst) - SHOWN))]
    return "\n".join(lines).rstrip() + "\n"


def _pipes(
    head: Sequence[str], rows: Iterable[Sequence[str]], escape: Callable[[str], str]
) -> list[str]:
    cells = [head, ["---"] * len(head), *([escape(text) for text in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def as_html(c: AdapterComparison) -> str:
    """A fragment of a page, without style or script; every site that changed is in it."""
    lines = [
        '<section class="comparison">',
        f"<h2>{hypertext(c.old)} → {hypertext(c.new)}</h2>",
        f"<p>{hypertext(_sites_in_words(c))}.</p>",
        "<table>",
    ]
    for label, value in _totals(c):
        lines.append(
            f'<tr><th scope="row">{label}</th><td colspan="2">{hypertext(value)}</td></tr>'
        )
    for label, old, new in _differences(c):
        cells = "".join(f"<td>{hypertext(text)}</td>" for text in (old, new))
        lines.append(f'<tr><th scope="row">{hypertext(label)}</th>{cells}</tr>')
    lines.append("</table>")
    worst = _worst(c)
    if worst:
        head = "".join(f'<th scope="col">{title}</th>' for title in _HEAD)
        lines += ["<table>", f"<thead><tr>{head}</tr></thead>", "<tbody>"]
        for site in worst:
            cells = "".join(f"<td>{hypertext(text)}</td>" for text in _numbers(site))
            lines.append(f'<tr><th scope="row">{hypertext(site.site)}</th>{cells}</tr>')
        lines += ["</tbody>", "</table>"]
    return "\n".join([*lines, "</section>"]) + "\n"


def as_json(c: AdapterComparison) -> AdapterDiffJson:
    """All that was found as plain values; names as the files have them."""
    return AdapterDiffJson(
        same=c.same,
        old=c.old,
        new=c.new,
        method=c.method,
        total=c.total,
        facts=c.facts,
        heads=c.heads,
        sites=c.sites,
    )
