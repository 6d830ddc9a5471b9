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
from pemlang.graph.dag import Graph
from pemlang.graph.node import Num
from pemlang.graph.numbers import combine
from pemlang.modules.sites import layer_of, layer_start, module_of_bias
from pemlang.ops.record import Context, Operator, Parameter, Section, Signature, register
from pemlang.source import Span


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


def named_by(pattern: str, names: Iterable[str]) -> list[str]:
    """Those of some names that a glob fits."""
    return [name for name in names if _glob(pattern).match(name)]


def matching(pattern: str, sites: Sequence[str], place: Span | None = None) -> list[str]:
    """The sites that a glob names, with the biases of modules: `*` any characters, `?` one, `[…]`
    one of some. `place` is where it is written.

    Raises:
        Fault: PEM0320 when it names none.
    """
    matched = set(named_by(pattern, sites))
    if matched:
        return [site for site in sites if site in matched or module_of_bias(site) in matched]
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

    def over(
        self, graph: Graph, sites: Sequence[str], among: Sequence[str] | None = None
    ) -> dict[str, Num]:
        """The number at each site; `among` are all sites of the adapter, where they are some.

        Raises:
            Fault: PEM0320 a pattern that names no site, PEM0321 a site without a number,
                PEM0330 a division by zero.
        """
        raise AssertionError("every schedule says what it is")


def _depths(sites: Sequence[str], among: Sequence[str] | None) -> dict[str, Fraction]:
    """How deep each site lies in the adapter: 0 in its first layer, 1 in its last."""
    layers = {site: layer_of(site) for site in among or sites}
    outside = [site for site in sites if layers[site] is None]
    if outside:
        raise Fault(
            "PEM0321",
            f"a schedule by depth has no value for {listed(outside)}: no layer number in the name",
            f'say what they get: per {{ "{_layers_pattern(sites)}": 0.5, else: 1 }}',
        )
    numbers = [layer for layer in layers.values() if layer is not None]
    low, high = min(numbers, default=0), max(numbers, default=0)
    span = max(1, high - low)
    return {site: Fraction((layers[site] or 0) - low, span) for site in sites}


def _layers_pattern(sites: Sequence[str]) -> str:
    """A pattern of the sites that lie in layers; of all, where none does."""
    starts = ((site, layer_start(site)) for site in sites)
    numbered = (site[:start] for site, start in starts if start is not None)
    name = next(numbered, "").rstrip(".").rpartition(".")[2]
    return f"*{visible(name)}.*" if name else "*"


@dataclass(frozen=True)
class Ramp(Schedule):
    """Evenly from the first layer's number to the last layer's, by way of those between."""

    values: tuple[Num, ...]

    def over(
        self, graph: Graph, sites: Sequence[str], among: Sequence[str] | None = None
    ) -> dict[str, Num]:
        return {site: self._at(graph, depth) for site, depth in _depths(sites, among).items()}

    def _at(self, graph: Graph, depth: Fraction) -> Num:
        stretch = depth * (len(self.values) - 1)
        index = min(int(stretch), len(self.values) - 2)
        first, last = self.values[index : index + 2]
        rise = combine(graph, "-", last, first)
        return combine(graph, "+", first, combine(graph, "*", stretch - index, rise))


@dataclass(frozen=True)
class Steps(Schedule):
    """One number for each of as many equal bands of layers."""

    values: tuple[Num, ...]

    def over(
        self, graph: Graph, sites: Sequence[str], among: Sequence[str] | None = None
    ) -> dict[str, Num]:
        depths = _depths(sites, among)
        inside = [site for site in among or sites if layer_of(site) is not None]
        layers = sorted(set(_depths(inside, among).values()))
        band = {depth: i * len(self.values) // len(layers) for i, depth in enumerate(layers)}
        return {site: self.values[band[depth]] for site, depth in depths.items()}


@dataclass(frozen=True)
class PerPattern(Schedule):
    """The first pattern that matches decides; `otherwise` where none does. `places` are where the
    patterns are written."""

    rows: tuple[tuple[str, Num | Schedule], ...]
    otherwise: Num | Schedule | None
    places: tuple[Span, ...] = field(default=(), compare=False, repr=False)
    _known: dict[tuple[tuple[str, ...], ...], dict[str, Num]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def over(
        self, graph: Graph, sites: Sequence[str], among: Sequence[str] | None = None
    ) -> dict[str, Num]:
        # A long `per` may scale many adapters of the same sites.
        key = tuple(sites), tuple(among or sites)
        if key not in self._known:
            self._known[key] = self._matched(graph, *key)
        return dict(self._known[key])

    def _matched(self, graph: Graph, sites: Sequence[str], among: Sequence[str]) -> dict[str, Num]:
        numbers: dict[str, Num] = {}
        places = self.places or (None,) * len(self.rows)
        for (pattern, number), place in zip(self.rows, places, strict=True):
            named = [x for x in matching(pattern, sites, place) if x not in numbers]
            numbers |= _over(number, graph, named, among)
        missing = [site for site in sites if site not in numbers]
        if missing and self.otherwise is None:
            raise Fault(
                "PEM0321",
                f"no pattern of this `per` covers {listed(missing)}",
                "add a row for the rest: else: 1",
            )
        if self.otherwise is not None:
            numbers |= _over(self.otherwise, graph, missing, among)
        return numbers


def _over(
    number: Num | Schedule, graph: Graph, sites: Sequence[str], among: Sequence[str] | None
) -> dict[str, Num]:
    """A number, or a schedule's numbers, at each of some sites."""
    if isinstance(number, Schedule):
        return number.over(graph, sites, among)
    return dict.fromkeys(sites, number)


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

    def over(
        self, graph: Graph, sites: Sequence[str], among: Sequence[str] | None = None
    ) -> dict[str, Num]:
        left, right = (_over(side, graph, sites, among) for side in (self.left, self.right))
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


def _ramp(ctx: Context, first: Num | tuple[Num, ...], last: Num | None) -> Ramp:
    values = first if isinstance(first, tuple) else (first,)
    values += () if last is None else (last,)
    if len(values) < 2 or (isinstance(first, tuple) and last is not None):
        message = "`ramp` goes from one number to another, by way of others where a list has them"
        raise Fault("PEM0322", message, "write ramp(1, 0.4) or ramp([1, 0.2, 0.4])")
    return Ramp(values)


RAMP = Operator(
    name="ramp",
    signatures=(
        Signature(
            (Parameter("first", ("number", "[number]")), Parameter("last", ("number",), None)),
            "schedule",
            _ramp,
        ),
    ),
    summary="From one number in the adapter's first layer to another in its last, evenly; a list "
    "has the numbers at equal distances on the way.",
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
