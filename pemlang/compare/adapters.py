"""How two built adapters differ, measured on their factors; no dense Δ is ever formed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from pemlang.compare.changes import DeltaChange, Fact, PairNumbers, total_change
from pemlang.compare.summary import facts_of
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.failures import TooLarge
from pemlang.formats import Adapter
from pemlang.formats.adapter import Layout, how_kinds_act, kinds_text
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import leaf
from pemlang.kernels import lowrank
from pemlang.kernels.algebra import Matrix
from pemlang.kernels.lowrank import LowRank
from pemlang.kernels.site import SitePart
from pemlang.lazy import numpy as np
from pemlang.modules import SiteShape
from pemlang.pipeline.reading import SiteReader, measurable, reading
from pemlang.tensorfiles.dtypes import Bits
from pemlang.tensorfiles.reader import TensorReader

SiteState = Literal["same", "changed", "added", "removed", "incomparable"]
HeadState = Literal["same", "changed", "added", "removed"]
HeadKind = Literal["head", "base's own", "bias", "rows"]
"""What a whole tensor is: of `modules_to_save`, a copy of the base's, or what was trained of the
base itself, a bias or rows of tokens."""

Spectra = tuple[tuple[float, ...], tuple[float, ...]]

_PART = 8 << 20


@dataclass(frozen=True)
class SiteChange:
    """A site of either adapter.

    Attributes:
        site: its name, as untrusted as the file it comes from.
        state: `same` where Δ is, whatever its factors; `incomparable` where the shapes differ.
        measured: what changed; a site that one of the two lacks is zero there.
        ranks, scales: of old and of new; None where the site is not, and for (IA)³.
        spectra: the singular values of old and of new, falling; () as ranks are None.
        note: the two shapes of an incomparable site, else empty.
    """

    site: str
    state: SiteState
    measured: DeltaChange
    ranks: tuple[int | None, int | None]
    scales: tuple[float | None, float | None]
    spectra: Spectra
    note: str = ""


@dataclass(frozen=True)
class HeadChange:
    """A whole tensor saved beside an adapter; old and new are its dtype and shape, empty where it
    is not. `changed` is any difference in these or in its bytes."""

    key: str
    kind: HeadKind
    state: HeadState
    old: str
    new: str


@dataclass(frozen=True)
class AdapterComparison:
    """Attributes:
    old, new: the places, as given.
    method: the kinds of both, as AdapterType.method has them.
    total: over all sites but the incomparable ones.
    facts, heads, sites: all of them, changed or not; sites by name.
    """

    old: str
    new: str
    method: str
    total: DeltaChange
    facts: tuple[Fact, ...]
    heads: tuple[HeadChange, ...]
    sites: tuple[SiteChange, ...]

    @property
    def same(self) -> bool:
        """Whether nothing changed: no Δ, no fact, no head."""
        return (
            all(site.state == "same" for site in self.sites)
            and all(head.state == "same" for head in self.heads)
            and all(fact.old == fact.new for fact in self.facts)
        )


def compare_adapters(old: str, before: Adapter, new: str, after: Adapter) -> AdapterComparison:
    """Two adapters, measured.

    Args:
        old, new: their places, as given.
        before, after: the adapters there, whole.

    Raises:
        Fault: PEM0304 the methods differ, PEM0502 a tensor holds NaN or infinity, PEM0503 a number
            too large to measure.
    """
    kinds, others = before.layout.shapes.kinds, after.layout.shapes.kinds
    if kinds != others:
        raise Fault(
            "PEM0304",
            f"{visible(old)} is {kinds_text(kinds)} and {visible(new)} is {kinds_text(others)}: "
            "nothing measures how far apart they are",
            "compare adapters of one method",
            how_kinds_act(kinds, others),
        )
    graph = Graph()
    with reading(graph) as reader:
        sites = list(_sites(graph, reader, before, after))
        heads = tuple(_heads(reader.files, before, after))
    with measurable("what all sites come to"):
        total = total_change([numbers for site, numbers in sites if site.state != "incomparable"])
    changes = tuple(site for site, _ in sites)
    return AdapterComparison(
        old, new, "+".join(kinds), total, tuple(_facts(before, after)), heads, changes
    )


# --- sites --------------------------------------------------------------------------------------


def _sites(
    graph: Graph, reader: SiteReader, before: Adapter, after: Adapter
) -> Iterator[tuple[SiteChange, PairNumbers]]:
    nodes = [
        leaf(graph, key, adapter, adapter.base)
        for key, adapter in (("old", before), ("new", after))
    ]
    for site in sorted({*before.layout.shapes, *after.layout.shapes}):
        old, new = reader.parts(nodes, site)
        first, second = (adapter.layout.shapes.get(site) for adapter in (before, after))
        if first is None or second is None or first == second:
            with measurable(site):
                spectra, numbers = _measure(old, new)
            measured, note = numbers.measured, ""
        else:
            with measurable(site):
                spectra, numbers = _apart(old, new)
            measured = DeltaChange(numbers.old, numbers.new, None, None, None)
            note = _clash(first, second)
        change = SiteChange(
            site,
            _state(first, second, numbers.change),
            measured,
            (before.layout.ranks.get(site), after.layout.ranks.get(site)),
            (before.scales.get(site), after.scales.get(site)),
            spectra,
            note,
        )
        yield change, numbers


def _state(old: SiteShape | None, new: SiteShape | None, change: float) -> SiteState:
    if old is None:
        return "added"
    if new is None:
        return "removed"
    if old != new:
        return "incomparable"
    return "changed" if change else "same"


def _clash(old: SiteShape, new: SiteShape) -> str:
    """Two shapes; with the axes of A where they are as large as each other."""
    if str(old) != str(new):
        return f"{old} against {new}"
    return f"{old} with A of {list(old.a)} against {list(new.a)}"


def _apart(old: SitePart | None, new: SitePart | None) -> tuple[Spectra, PairNumbers]:
    """As _measure, of a site whose two shapes differ: nothing that takes both."""
    (before, numbers), (after, others) = _measure(old, None), _measure(None, new)
    return (before[0], after[1]), PairNumbers(numbers.old, others.new, math.nan, math.nan)


def _measure(old: SitePart | None, new: SitePart | None) -> tuple[Spectra, PairNumbers]:
    """The spectra and numbers of one site of equal shapes; None is zero, and one of two at most.

    Raises:
        TooLarge: a norm or a product is too large for float64.
    """
    some = new if old is None else old
    assert some is not None
    if len(some.pieces) > 1:
        none = [None] * len(some.pieces)
        first, second = (none if part is None else part.pieces for part in (old, new))
        return ((), ()), _together(_measure(*pair)[1] for pair in zip(first, second, strict=True))
    if some.low_rank is None:
        x, y = (np.zeros(1) if part is None else part.delta() for part in (old, new))
        change: Matrix = y - x
        spectra: Spectra = ((), ())
    else:
        x, y, change = lowrank.difference(*(_factors(part, some.low_rank) for part in (old, new)))
        spectra = _spectrum(old, x), _spectrum(new, y)
    before, after, moved = (float(np.linalg.norm(z)) for z in (x, y, change))
    numbers = PairNumbers(before, after, moved, float(np.sum(x * y)))
    if not math.isfinite(before + after + moved + abs(numbers.inner)):
        raise TooLarge(None)
    return spectra, numbers


def _together(pieces: Iterable[PairNumbers]) -> PairNumbers:
    """The numbers of a site from those of parts that have nothing in common."""
    parts = list(pieces)
    return PairNumbers(
        math.hypot(*(part.old for part in parts)),
        math.hypot(*(part.new for part in parts)),
        math.hypot(*(part.change for part in parts)),
        math.fsum(part.inner for part in parts),
    )


def _factors(part: SitePart | None, like: LowRank) -> LowRank:
    """The factors of one of two; zeros where it is zero."""
    factors = None if part is None else part.low_rank
    return factors or LowRank(np.zeros_like(like.a), np.zeros_like(like.b))


def _spectrum(part: SitePart | None, core: Matrix) -> tuple[float, ...]:
    """The min(r, out, in) largest singular values of a core."""
    if part is None or part.low_rank is None:
        return ()
    a, b = part.low_rank.a, part.low_rank.b
    rank = min(a.shape[0], b.shape[0], a[0].size)
    return tuple(np.linalg.svd(core, compute_uv=False)[:rank].tolist())


# --- facts and heads ----------------------------------------------------------------------------


def _facts(before: Adapter, after: Adapter) -> Iterator[Fact]:
    by_site: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]] = {
        "rank": (before.layout.ranks, after.layout.ranks),
        "scale": (before.scales, after.scales),
    }
    for (label, old), (_, new) in zip(facts_of(before), facts_of(after), strict=True):
        earlier, later = by_site.get(label, ({}, {}))
        moved = sum(site in later and later[site] != value for site, value in earlier.items())
        # The same words can hide ranks that changed places, and scales alike in six digits.
        also = f" (not the same at {moved} sites)" if moved and old == new else ""
        yield Fact(label, old, new + also)
    shown = before.format.told_of | after.format.told_of
    for key in sorted(before.fields.keys() | after.fields.keys()):
        first, second = before.fields.get(key), after.fields.get(key)
        if key not in shown and first != second:
            yield Fact(key, json.dumps(first), json.dumps(second))
    words = {False: "no", True: "yes"}
    yield Fact("fan_in_fan_out", words[before.fan_in_fan_out], words[after.fan_in_fan_out])


def _heads(files: TensorReader, before: Adapter, after: Adapter) -> Iterator[HeadChange]:
    for key in sorted({*before.layout.heads, *after.layout.heads}):
        old, new = (_head(adapter, key) for adapter in (before, after))
        state: HeadState
        if not old or not new:
            state = "removed" if old else "added"
        else:
            state = "same" if old == new and _equal_bytes(files, before, after, key) else "changed"
        yield HeadChange(key, _kind((after if new else before).layout, key), state, old, new)


def _kind(layout: Layout, key: str) -> HeadKind:
    if key in layout.rows:
        return "rows"
    if key in layout.of_base:
        return "bias"
    return "base's own" if key in layout.copies else "head"


def _head(adapter: Adapter, key: str) -> str:
    entry = adapter.layout.heads.get(key)
    return f"{entry.dtype.lower()} {list(entry.shape)}" if entry is not None else ""


def _equal_bytes(files: TensorReader, before: Adapter, after: Adapter, key: str) -> bool:
    """Whether two tensors of one size hold the same bytes; a part at a time, heads are large."""
    entry = before.layout.heads[key]
    size = entry.end - entry.start
    references = [adapter.reference(key) for adapter in (before, after)]
    for start in range(0, size, _PART):
        count = min(_PART, size - start)
        parts: list[Bits] = [np.empty(count, np.uint8) for _ in references]
        for reference, part in zip(references, parts, strict=True):
            files.read(reference.file, reference.start + start, part)
        if not np.array_equal(parts[0], parts[1]):
            return False
    return True
