"""How two built adapters differ, measured on their factors; no dense Δ is ever formed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pemlang.check.elaborate import leaf
from pemlang.compare.summary import facts_of, opened
from pemlang.diagnostics import Fault, visible
from pemlang.formats.peft import Adapter
from pemlang.graph.node import Graph
from pemlang.kernels import lowrank
from pemlang.kernels.lowrank import Arrays, Matrix
from pemlang.lower.evaluate import Evaluator
from pemlang.modules.sites import Method, SiteShape
from pemlang.ops.agree import TITLES
from pemlang.tensorfiles.reader import Files, source

State = Literal["same", "changed", "added", "removed", "incomparable"]
HeadState = Literal["same", "changed", "added", "removed"]

Spectra = tuple[tuple[float, ...], tuple[float, ...]]

_PIECE = 8 << 20


@dataclass(frozen=True)
class Measured:
    """Δ of two adapters, at a site or over many.

    Attributes:
        old, new: ‖Δ‖ (Frobenius) of each; for (IA)³ ‖l − 1‖.
        change: ‖new − old‖; None where the two cannot be subtracted.
        relative: change / old; None where old is zero and new is not, and without a change.
        cosine: of the angle between the two; None where either is zero, and without a change.
    """

    old: float
    new: float
    change: float | None
    relative: float | None
    cosine: float | None


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
    state: State
    measured: Measured
    ranks: tuple[int | None, int | None]
    scales: tuple[float | None, float | None]
    spectra: Spectra
    note: str = ""


@dataclass(frozen=True)
class HeadChange:
    """A whole tensor saved beside an adapter; old and new are its dtype and shape, empty where it
    is not. `changed` is any difference in these or in its bytes."""

    key: str
    state: HeadState
    old: str
    new: str


@dataclass(frozen=True)
class Fact:
    """What config and header say of both."""

    label: str
    old: str
    new: str


@dataclass(frozen=True)
class Comparison:
    """Attributes:
    old, new: the places, as given.
    method: of both.
    total: over all sites but the incomparable ones.
    facts, heads, sites: all of them, changed or not; sites by name.
    """

    old: str
    new: str
    method: Method
    total: Measured
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


def compare(old: str, new: str) -> Comparison:
    """Two adapters, each in a directory or on the hub (`hf://…`), read and measured.

    Raises:
        Fault: as read_adapter and read_hub_adapter; PEM0304 the methods differ, PEM0502 a tensor
            holds NaN or infinity, PEM0503 a number too large to measure.
    """
    one, two = opened(old), opened(new)
    if one.method != two.method:
        raise Fault(
            "PEM0304",
            f"{visible(old)} is {TITLES[one.method]} and {visible(new)} is {TITLES[two.method]}: "
            "their parameters mean different things",
            "compare adapters of one method",
        )
    with Files() as files:
        found = list(_sites(files, one, two))
        heads = tuple(_heads(files, one, two))
    total = _total([numbers for site, numbers in found if site.state != "incomparable"])
    facts = tuple(_facts(one, two))
    return Comparison(old, new, one.method, total, facts, heads, tuple(site for site, _ in found))


# --- sites --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Numbers:
    """What adds up over sites: norms as squares, inner products as they are."""

    old: float
    new: float
    change: float
    inner: float


def _sites(files: Files, one: Adapter, two: Adapter) -> Iterator[tuple[SiteChange, _Numbers]]:
    graph = Graph()
    nodes = [
        leaf(graph, key, adapter, adapter.config.base)
        for key, adapter in (("old", one), ("new", two))
    ]
    evaluator = Evaluator(graph, files)
    for site in sorted({*one.layout.shapes, *two.layout.shapes}):
        old, new = evaluator.arrays(nodes, site)
        first, second = (adapter.layout.shapes.get(site) for adapter in (one, two))
        if first is None or second is None or first == second:
            spectra, numbers = _measure(old, new)
            measured, note = _measured(numbers), ""
        else:
            spectra, numbers = _apart(old, new)
            measured = Measured(numbers.old, numbers.new, None, None, None)
            note = _clash(first, second)
        change = SiteChange(
            site,
            _state(first, second, numbers.change),
            measured,
            (one.layout.ranks.get(site), two.layout.ranks.get(site)),
            (one.scales.get(site), two.scales.get(site)),
            spectra,
            note,
        )
        yield change, numbers


def _state(old: SiteShape | None, new: SiteShape | None, change: float) -> State:
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


def _apart(old: Arrays | None, new: Arrays | None) -> tuple[Spectra, _Numbers]:
    """As _measure, of a site whose two shapes differ: nothing that takes both."""
    (before, numbers), (after, others) = _measure(old, None), _measure(None, new)
    return (before[0], after[1]), _Numbers(numbers.old, others.new, math.nan, math.nan)


@lowrank.finite()
def _measure(old: Arrays | None, new: Arrays | None) -> tuple[Spectra, _Numbers]:
    """The spectra and numbers of one site of equal shapes; None is zero, and one of two at most.

    Raises:
        Fault: PEM0503 a norm or a product is too large for float64.
    """
    known = new if old is None else old
    assert known is not None
    if known.b is None:
        x, y = (_gain(part, known) for part in (old, new))
        change = y - x
        spectra: Spectra = ((), ())
    else:
        x, y, change = _cores(_or_zero(old, known), _or_zero(new, known))
        spectra = _spectrum(old, x), _spectrum(new, y)
    one, two, moved = (float(np.linalg.norm(z)) for z in (x, y, change))
    numbers = _Numbers(one, two, moved, float(np.sum(x * y)))
    if not math.isfinite(one + two + moved + abs(numbers.inner)):
        raise lowrank.too_large_to_compute()
    return spectra, numbers


def _gain(part: Arrays | None, like: Arrays) -> Matrix:
    return np.zeros(like.a.shape) if part is None else part.a.astype(np.float64)


def _or_zero(part: Arrays | None, like: Arrays) -> Arrays:
    return part or Arrays(np.zeros_like(like.a), np.zeros_like(like.out))


def _cores(old: Arrays, new: Arrays) -> tuple[Matrix, Matrix, Matrix]:
    """Cores of Δ₁, Δ₂ and Δ₂ − Δ₁ over common orthonormal bases.

    With s in B and both of one rank, by zeros, Δ₂ − Δ₁ = (B₂ − B₁)·A₂ + B₁·(A₂ − A₁). Subtracting
    factors first leaves a small difference its digits, and none at all exactly 0; Householder QR,
    unlike a Gram matrix, keeps the digits of each column, however small beside the others.
    """
    (b1, a1), (b2, a2) = (lowrank.matrices(part) for part in (old, new))
    rank = max(len(a1), len(a2))
    b1, b2, b_change = _over_one_basis(_wide(b1 * old.scale, rank), _wide(b2 * new.scale, rank))
    a1, a2, a_change = _over_one_basis(_wide(a1.T, rank), _wide(a2.T, rank))
    change = b_change @ a2.T + b1 @ a_change.T
    core = b1 @ a1.T
    return core, b2 @ a2.T if change.any() else core, change


def _over_one_basis(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """x, y and y − x, tall, as coordinates over orthonormal columns that span them."""
    r = np.asarray(np.linalg.qr(np.hstack([x, y, y - x]), mode="r"), dtype=np.float64)
    first, second, third = np.hsplit(r, 3)
    return first, second, third


def _wide(x: Matrix, rank: int) -> Matrix:
    """x with columns of zeros up to a rank."""
    return np.hstack([x, np.zeros((len(x), rank - x.shape[1]))])


def _spectrum(part: Arrays | None, core: Matrix) -> tuple[float, ...]:
    """The min(r, out, in) largest singular values of a core."""
    if part is None:
        return ()
    rank = min(part.a.shape[0], part.out.shape[0], part.a[0].size)
    return tuple(np.linalg.svd(core, compute_uv=False)[:rank].tolist())


def _total(sites: Sequence[_Numbers]) -> Measured:
    if not sites:
        return Measured(0.0, 0.0, None, None, None)
    old, new, change = (
        math.hypot(*norms)
        for norms in zip(*((site.old, site.new, site.change) for site in sites), strict=True)
    )
    return _measured(_Numbers(old, new, change, math.fsum(site.inner for site in sites)))


def _measured(found: _Numbers) -> Measured:
    old, new, change = found.old, found.new, found.change
    if not change:  # rounding would leave the cosine beside 1
        return Measured(old, new, 0.0, 0.0, 1.0 if old else None)
    cosine = max(-1.0, min(1.0, found.inner / old / new)) if old and new else None
    return Measured(old, new, change, change / old if old else None, cosine)


# --- facts and heads ----------------------------------------------------------------------------


# Fields of a config that the other facts, the sites and the heads tell of.
_TOLD = frozenset(
    "peft_type base_model_name_or_path r lora_alpha rank_pattern alpha_pattern use_rslora "
    "fan_in_fan_out target_modules modules_to_save feedforward_modules peft_version".split()
)


def _facts(one: Adapter, two: Adapter) -> Iterator[Fact]:
    by_site: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]] = {
        "rank": (one.layout.ranks, two.layout.ranks),
        "scale": (one.scales, two.scales),
    }
    for (label, old), (_, new) in zip(facts_of(one), facts_of(two), strict=True):
        before, after = by_site.get(label, ({}, {}))
        moved = sum(site in after and after[site] != value for site, value in before.items())
        # The same words can hide ranks that changed places, and scales alike in six digits.
        also = f" (not the same at {moved} sites)" if moved and old == new else ""
        yield Fact(label, old, new + also)
    for key in sorted(one.config.raw.keys() | two.config.raw.keys()):
        before_, after_ = one.config.raw.get(key), two.config.raw.get(key)
        if key not in _TOLD and before_ != after_:
            yield Fact(key, json.dumps(before_), json.dumps(after_))
    words = {False: "no", True: "yes"}
    yield Fact("fan_in_fan_out", words[one.config.fan_in_fan_out], words[two.config.fan_in_fan_out])


def _heads(files: Files, one: Adapter, two: Adapter) -> Iterator[HeadChange]:
    for key in sorted({*one.layout.heads, *two.layout.heads}):
        old, new = (_head(adapter, key) for adapter in (one, two))
        state: HeadState
        if not old or not new:
            state = "removed" if old else "added"
        else:
            state = "same" if old == new and _equal_bytes(files, one, two, key) else "changed"
        yield HeadChange(key, state, old, new)


def _head(adapter: Adapter, key: str) -> str:
    entry = adapter.layout.heads.get(key)
    return f"{entry.dtype.lower()} {list(entry.shape)}" if entry is not None else ""


def _equal_bytes(files: Files, one: Adapter, two: Adapter, key: str) -> bool:
    """Whether two tensors of one size hold the same bytes; a piece at a time, heads are large."""
    entry = one.layout.heads[key]
    size = entry.end - entry.start
    places = [source(adapter, key) for adapter in (one, two)]
    for start in range(0, size, _PIECE):
        count = min(_PIECE, size - start)
        pieces: list[NDArray[np.generic]] = [np.empty(count, np.uint8) for _ in places]
        for place, piece in zip(places, pieces, strict=True):
            files.read(place.file, place.start + start, piece)
        if not np.array_equal(pieces[0], pieces[1]):
            return False
    return True
