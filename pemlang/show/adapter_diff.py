"""A comparison of two adapters, as what is to be shown and for a program."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pemlang.compare.adapters import AdapterComparison, HeadChange, SiteChange
from pemlang.compare.changes import DeltaChange, Fact
from pemlang.dataclass import dataclass
from pemlang.formats.adapter import method_title
from pemlang.show.weights_diff import (
    NUMBERS,
    ChangedRow,
    WeightsDiff,
    changed_facts,
    counted,
    totals,
    worst_first,
)

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


def shown(c: AdapterComparison) -> WeightsDiff:
    """What is to be shown of it."""
    states = [site.state for site in c.sites]
    rows = (ChangedRow(x.site, x.state, x.measured, (x.note or _spectra(x),)) for x in c.sites)
    return WeightsDiff(
        c.old,
        c.new,
        counted(method_title(c.method), "site", states),
        totals(c.total, "site", states),
        _differences(c),
        ("site", "state", *NUMBERS, "spectrum"),
        worst_first(rows),
    )


def _differences(c: AdapterComparison) -> list[tuple[str, str, str]]:
    """The facts and heads that changed: label, old, new."""
    differences = changed_facts(c.facts)
    for head in c.heads:
        if head.state != "same":
            also = ", other numbers" if head.old == head.new else ""
            differences.append(
                (f"{head.kind} {head.key}", head.old or "none", (head.new or "none") + also)
            )
    return differences


def _spectra(site: SiteChange) -> str:
    """Both spectra as bars, of one height: `█▅▂ → █▆▃`."""
    top = max((value for values in site.spectra for value in values), default=0.0) or 1.0
    return " → ".join(_bars([v / top for v in values]) for values in site.spectra if values)


def _bars(shares: Sequence[float]) -> str:
    """A bar for each share from 0 to 1; · for one too small for the lowest."""
    bars = (_BARS[min(8, math.ceil(8 * share)) - 1] if share > 1e-3 else "·" for share in shares)
    return "".join(list(bars)[:_VALUES]) + "…" * (len(shares) > _VALUES)


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
