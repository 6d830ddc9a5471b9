"""Schedules: numbers that vary by site, `ramp`, `steps` and `per`, and arithmetic on them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import field
from fractions import Fraction
from functools import lru_cache

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, nearest, visible
from pemlang.graph.node import Graph, Num
from pemlang.graph.numbers import combine
from pemlang.ops.record import Context, Operator, Parameter, Section, Signature, register
from pemlang.source import Span

_LAYER = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")


def layer_of(site: str) -> int | None:
    """The number of the layer a site is in: the first whole number in its dotted name."""
    match = _LAYER.search(site)
    return int(match[1]) if match and len(match[1]) < 10 else None


def layer_start(site: str) -> int | None:
    """Where that number stands in the name."""
    match = _LAYER.search(site)
    return match.start(1) if match else None


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


def matching(pattern: str, sites: Sequence[str], place: Span | None = None) -> list[str]:
    """The sites a glob names: `*` any characters, `?` one, `[…]` one of some. `place` is where it
    is written.

    Raises:
        Fault: PEM0320 when it names none.
    """
    matched = [site for site in sites if _glob(pattern).match(site)]
    if matched:
        return matched
    shown = visible(pattern, 80)
    endings = sorted({site.rsplit(".", 1)[-1] for site in sites})
    close = nearest(pattern.rsplit(".", 1)[-1], endings)
    raise Fault(
        "PEM0320",
        f'the pattern "{shown}" names no site',
        f'did you mean "*.{visible(close)}"?'
        if close
        else f'name some that there are, as in "*.{visible(endings[0])}"',
        (f"the sites end in {listed(endings, 8)}",),
        place,
    )


class Schedule:
    """A number for every site of an adapter."""

    kind = "schedule"
    size = depth = 1

    def over(self, graph: Graph, sites: Sequence[str]) -> dict[str, Num]:
        """The number at each site.

        Raises:
            Fault: PEM0320 a pattern that names no site, PEM0321 a site without a number,
                PEM0330 a division by zero.
        """
        raise AssertionError("every schedule says what it is")


def _depths(sites: Sequence[str]) -> dict[str, Fraction]:
    """How deep each site lies in the adapter: 0 in its first layer, 1 in its last."""
    layers = {site: layer_of(site) for site in sites}
    outside = [site for site, layer in layers.items() if layer is None]
    if outside:
        raise Fault(
            "PEM0321",
            f"a schedule by depth has no value for {listed(outside)}: no layer number in the name",
            f'say what they get: per {{ "{_layers_pattern(sites)}": 0.5, else: 1 }}',
        )
    numbers = [layer for layer in layers.values() if layer is not None]
    low, high = min(numbers, default=0), max(numbers, default=0)
    span = max(1, high - low)
    return {site: Fraction((layer or 0) - low, span) for site, layer in layers.items()}


def _layers_pattern(sites: Sequence[str]) -> str:
    """A pattern of the sites that lie in layers; of all, where none does."""
    numbered = (site[: match.start(1)] for site in sites if (match := _LAYER.search(site)))
    name = next(numbered, "").rstrip(".").rpartition(".")[2]
    return f"*{visible(name)}.*" if name else "*"


@dataclass(frozen=True)
class Ramp(Schedule):
    """Evenly from the first layer's number to the last layer's."""

    first: Num
    last: Num

    def over(self, graph: Graph, sites: Sequence[str]) -> dict[str, Num]:
        rise = combine(graph, "-", self.last, self.first)
        return {
            site: combine(graph, "+", self.first, combine(graph, "*", depth, rise))
            for site, depth in _depths(sites).items()
        }


@dataclass(frozen=True)
class Steps(Schedule):
    """One number for each of as many equal bands of layers."""

    values: tuple[Num, ...]

    def over(self, graph: Graph, sites: Sequence[str]) -> dict[str, Num]:
        depths = _depths(sites)
        layers = sorted(set(depths.values()))
        band = {depth: i * len(self.values) // len(layers) for i, depth in enumerate(layers)}
        return {site: self.values[band[depth]] for site, depth in depths.items()}


@dataclass(frozen=True)
class PerPattern(Schedule):
    """The first pattern that matches decides; `otherwise` where none does. `places` are where the
    patterns are written."""

    rows: tuple[tuple[str, Num], ...]
    otherwise: Num | None
    places: tuple[Span, ...] = field(default=(), compare=False, repr=False)
    _known: dict[tuple[str, ...], dict[str, Num]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def over(self, graph: Graph, sites: Sequence[str]) -> dict[str, Num]:
        key = tuple(sites)  # a long `per` may scale many adapters of the same sites
        if key not in self._known:
            self._known[key] = self._matched(key)
        return dict(self._known[key])

    def _matched(self, sites: Sequence[str]) -> dict[str, Num]:
        numbers: dict[str, Num] = {}
        places = self.places or (None,) * len(self.rows)
        for (pattern, number), place in zip(self.rows, places, strict=True):
            for site in matching(pattern, sites, place):
                numbers.setdefault(site, number)
        missing = [site for site in sites if site not in numbers]
        if missing and self.otherwise is None:
            raise Fault(
                "PEM0321",
                f"no pattern of this `per` covers {listed(missing)}",
                "add a row for the rest: else: 1",
            )
        for site in missing:
            assert self.otherwise is not None
            numbers[site] = self.otherwise
        return numbers


@dataclass(frozen=True)
class Arithmetic(Schedule):
    """left symbol right at each site, for numbers and schedules."""

    symbol: str
    left: Num | Schedule
    right: Num | Schedule
    size: int = field(init=False, compare=False)
    depth: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        sides = [side for side in (self.left, self.right) if isinstance(side, Schedule)]
        object.__setattr__(self, "size", 1 + sum(side.size for side in sides))
        object.__setattr__(self, "depth", 1 + max((side.depth for side in sides), default=0))

    def over(self, graph: Graph, sites: Sequence[str]) -> dict[str, Num]:
        left, right = (
            side.over(graph, sites) if isinstance(side, Schedule) else dict.fromkeys(sites, side)
            for side in (self.left, self.right)
        )
        return {site: combine(graph, self.symbol, left[site], right[site]) for site in sites}

    def simple(self, graph: Graph) -> Num | Schedule:
        """A number when both sides are."""
        if isinstance(self.left, Schedule) or isinstance(self.right, Schedule):
            return self
        return combine(graph, self.symbol, self.left, self.right)


def _steps(ctx: Context, values: Iterable[Num]) -> Steps:
    values = tuple(values)
    if not values:
        message = "`steps` needs at least one number"
        raise Fault("PEM0322", message, "give it some, as in steps([1, 0.5])")
    return Steps(values)


RAMP = Operator(
    name="ramp",
    signatures=(
        Signature(
            (Parameter("first", ("number",)), Parameter("last", ("number",))),
            "schedule",
            lambda ctx, first, last: Ramp(first, last),
        ),
    ),
    summary="From one number in the adapter's first layer to another in its last, evenly.",
    formula="c(layer) = first + (last − first)·depth, depth from 0 to 1",
)

STEPS = Operator(
    name="steps",
    signatures=(Signature((Parameter("values", ("[number]",)),), "schedule", _steps),),
    summary="One number for each of as many equal bands of layers.",
    formula="c(layer) = values[band of the layer]",
)

register(
    Section(
        "Schedules",
        'Numbers that vary by module. A third kind, `per { "*.q_proj": 0.5, else: 1 }`, goes by '
        "the modules' names.",
        (RAMP, STEPS),
    )
)
