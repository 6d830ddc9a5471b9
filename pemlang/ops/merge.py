"""What the merge methods have in common: their parameters, their type rule, and the node `merge`
that they become. What each of them computes stands beside its record, in `sparse.py`, `signs.py`,
`geometric.py`, `lowrank.py`, `overlap.py` and `data.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.formats.adapter import kinds_text
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import Leaf, combined_leaves
from pemlang.graph.lowering import LoweringContext, Truncation
from pemlang.graph.node import AdapterNode, Node, Num, Part, TensorsNode, told
from pemlang.kernels.methods import MergeInputs, MergeKernel
from pemlang.modules import PARAMETRISATIONS, SiteShape
from pemlang.modules.lora import padded
from pemlang.ops import parameters
from pemlang.ops.agree import need_factors, need_matrices
from pemlang.ops.by_site import by_site, each
from pemlang.ops.exact import TERMS
from pemlang.ops.linear import ADAPTERS, alike, weights_for
from pemlang.ops.mend import full_rank
from pemlang.ops.points import of_models
from pemlang.ops.ranks import hold_rank, room_for, unmeasured, whole_rank
from pemlang.ops.record import Context, Operator, Parameter, Signature, Within
from pemlang.tensorfiles.dtypes import FLOATS

if TYPE_CHECKING:
    from pemlang.graph.difference import Difference
    from pemlang.graph.formula import Formula, Setting
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.modules import SiteValues

SHARE = Within(Fraction(0), Fraction(1), open=True)
"""A share that is not nothing."""

WEIGHTS = Parameter("weights", ("[number]", "[schedule]"), None)
DENSITY = Parameter("density", ("number", "schedule"), within=SHARE)
SCALE = Parameter("scale", ("number", "schedule"), Fraction(1))
SEED = Parameter(
    "seed", ("number",), Fraction(0), within=Within(Fraction(0), Fraction(2**32 - 1), whole=True)
)
FULL = "full"
"""The rank of the whole matrix."""

OVER = Parameter("over", ("word",), "delta", words=("delta", "factors"))
RANK = Parameter("rank", ("number", "word"), None, words=(FULL,))
PAIR = (Parameter("x", ("adapter",)), Parameter("y", ("adapter",)))

Settings = Mapping[str, Num | str | None]
"""What a recipe says of a method, by parameter."""

RankRule = Callable[[Sequence[int], int, Settings], int]
"""The ranks of the adapters at a site, min(out, in) and the settings to the rank that comes out."""

METHODS: dict[str, MergeMethod] = {}
"""The methods by name."""


@dataclass(frozen=True, eq=False)
class MergeMethod:
    """A method, beside what its operator says.

    Attributes:
        name: of its operator.
        kernel: what computes it, and its reference.
        ordered: how many adapters stand in front, each in its place; the others may change places.
        divides: whether it divides by the sum of the weights.
        counts: whether the weights are how often an adapter counts, which is never less than zero.
        rank: what rank comes out; None for a method on each element, which takes `rank=`.
        needs_factors: whether it is for what is made of A and B alone.
        needs_matrices: whether it is for what has matrices.
        statistics: the family of statistics that it needs of each adapter; see Parametrisation.
        factors: whether it acts on A and on B, and not on Δ.
        hold: raises Fault for settings that do not go together.
    """

    name: str
    kernel: MergeKernel
    ordered: int = 0
    divides: bool = False
    counts: bool = False
    rank: RankRule | None = None
    needs_factors: bool = False
    needs_matrices: bool = False
    statistics: str | None = None
    factors: bool = False
    hold: Callable[[Context, Settings], None] | None = None

    def statistics_at(self, x: AdapterNode, site: str) -> Mapping[str, tuple[int, ...]]:
        """The kinds of statistics that it needs of an adapter at a site, and their shapes."""
        if self.statistics is None:
            return {}
        record, rank = x.type.record(site), x.ranks.get(site, 0)
        return record.statistics(x.shapes[site], rank).get(self.statistics, {})


def total_rank(ranks: Sequence[int], full: int, settings: Settings) -> int:
    """The rank of a sum."""
    return sum(ranks)


def merge_operator(
    method: MergeMethod,
    *params: Parameter,
    summary: str,
    formula: str,
    source: str,
    rank: str,
    laws: tuple[str, ...],
    aliases: tuple[str, ...] = (),
    acts_on: str = "delta",
    takes: tuple[Parameter, ...] = (ADAPTERS,),
    points: bool = False,
) -> Operator:
    """The operator of a method on adapters, which makes it known.

    Args:
        method: the method.
        params: its parameters beside the adapters.
        summary, formula, source, rank, laws, aliases, acts_on: as Operator says.
        takes: the adapters that it takes; those that are in no list stand in front.
        points: whether it takes models too.
    """
    method = replace(method, ordered=len(takes) - (ADAPTERS in takes))
    METHODS[method.name] = method
    taken = (*takes, *params)

    def rule(ctx: Context, *given: object) -> AdapterNode:
        adapters, values = given[: len(takes)], given[len(takes) :]
        xs: Sequence[AdapterNode]
        xs = () if () in adapters else tuple(each(adapters))  # type: ignore[arg-type]
        return _merge(ctx, method, xs, dict(zip(params, values, strict=True)))

    signature = Signature(taken, "adapter", by_site(taken, rule))
    return Operator(
        name=method.name,
        signatures=(signature,),
        of_models=of_models(signature) if points else None,
        summary=summary,
        formula=formula,
        laws=laws,
        source=source,
        aliases=aliases,
        rank=rank,
        reference=method.kernel.reference,
        acts_on=acts_on,
    )


# --- the type rule ---------------------------------------------------------------------------


def _merge(
    ctx: Context, method: MergeMethod, xs: Sequence[AdapterNode], values: Mapping[Parameter, object]
) -> AdapterNode:
    given = {param.name: value for param, value in values.items()}
    if method.ordered:
        ctx.items = (*ctx.texts[: method.ordered], *ctx.items)[: len(xs)]
    weights = _weights(ctx, xs, method, given.pop("weights", None))  # type: ignore[arg-type]
    over, rank = str(given.pop("over", "delta")), given.pop("rank", None)
    if not any(x.type.has_factors for x in xs):
        over = "delta"  # one vector is all that such an adapter has
    elif method.factors:
        over = "factors"
    if method.statistics is not None:
        _collected(ctx, xs, method)
        ctx.fixed = (
            f"{ctx.what} takes adapters as they are declared, with their statistics: give adapters "
            "of the same modules, of one rank and one scale"
        )
    if ctx.use is not None and "over" in ctx.use.values and xs:
        span = ctx.use.values["over"]
        word = '"delta"' if span.text.startswith('"') else "delta"
        ctx.over_delta = ((span, word), ctx.use.with_argument(f"rank={full_rank(xs)}"))
    agreed = _agreed(ctx, xs, method, over)
    settings: dict[str, Num | str | None] = dict(sorted(given.items()))  # type: ignore[arg-type]
    for param in values:
        if param.within is not None:
            unmeasured(settings[param.name], f"{param.name} of {method.name}")  # type: ignore[arg-type]
    if method.hold is not None:
        method.hold(ctx, settings)
    limit = None if rank is None else _limit(ctx, agreed, rank, over)  # type: ignore[arg-type]
    pairs = list(zip(xs, weights, strict=True))
    return _made(ctx.graph, agreed, method, pairs, over, limit, tuple(settings.items()))


def _made(
    graph: Graph,
    like: AdapterNode,
    method: MergeMethod,
    pairs: list[tuple[AdapterNode, Num]],
    over: str,
    limit: int | None,
    settings: tuple[tuple[str, Num | str | None], ...],
) -> Merge:
    """The node of some adapters with their weights, in key order where they may change places."""
    listed = slice(method.ordered, None)
    pairs[listed] = sorted(pairs[listed], key=lambda pair: (pair[0].key, str(told(pair[1]))))
    xs, weights = tuple(x for x, _ in pairs), tuple(weight for _, weight in pairs)
    return graph.add(Merge(like.type, method, xs, over, limit, weights, settings))


def _weights(
    ctx: Context, xs: Sequence[AdapterNode], method: MergeMethod, given: Sequence[Num] | None
) -> list[Num]:
    weights = weights_for(ctx, xs, given)
    exact = [weight for weight in weights if isinstance(weight, Fraction)]
    if method.divides and weights and len(exact) == len(weights) and sum(exact) == 0:
        raise Fault(
            "PEM0330",
            f"the weights of `{ctx.what}` sum to zero, and it divides by their sum",
            "give weights whose sum is not zero",
        )
    if method.counts and any(weight < 0 for weight in exact):
        raise Fault(
            "PEM0348",
            f"a weight of `{ctx.what}` is less than zero: it says how often an adapter counts",
            "give weights of at least zero; to take an adapter away, subtract it",
        )
    return weights


def _agreed(ctx: Context, xs: Sequence[AdapterNode], method: MergeMethod, over: str) -> AdapterNode:
    for index, x in enumerate(xs):
        if method.needs_factors or not _of_one_tensor(x):
            need_factors(x, ctx.what, ctx.item(index))
            continue
        if method.needs_matrices:
            need_matrices(x, ctx.what, ctx.item(index))
        if len(x.type.kinds) > 1 and (over == "factors" or not x.type.has_factors):
            raise Fault(
                "PEM0311",
                f"{ctx.what} merges adapters of one kind; `{ctx.item(index)}` is "
                f"{kinds_text(x.type.kinds)}",
                "select the sites of one kind, and join what comes out",
            )
    return alike(ctx, xs, parameters.TERMS.agree if over == "factors" else TERMS.agree)


def _of_one_tensor(x: AdapterNode) -> bool:
    """Whether an adapter is one tensor at every site, or A and B."""
    records = [PARAMETRISATIONS[kind] for kind in x.type.kinds]
    return all(record.factored or len(record.factors) == 1 for record in records)


def _collected(ctx: Context, xs: Sequence[AdapterNode], method: MergeMethod) -> None:
    """Hold adapters to have the statistics that a method needs, of the shapes that it needs."""
    for index, x in enumerate(xs):
        adapter = x.adapter if isinstance(x, Leaf) else None
        if adapter is None or adapter.statistics is None:
            why = "has no statistics.safetensors beside it" if adapter else "is no adapter on disk"
            raise Fault(
                "PEM0327",
                f"`{ctx.what}` merges by statistics of each adapter, and `{ctx.item(index)}` {why}",
                "collect them: pemlang.collect_statistics(model, batches, directory)",
                () if adapter else ("merge the adapters as declared, and scale or select after",),
            )
        for site in x.shapes:
            for what, size in method.statistics_at(x, site).items():
                entry = adapter.statistics.entries.get(f"{site}.{what}")
                fits = entry is not None and entry.shape == size and entry.dtype in FLOATS
                if not fits:
                    present = "none"
                    if entry is not None:
                        present = f"{entry.dtype} {'×'.join(map(str, entry.shape))}"
                    raise Fault(
                        "PEM0328",
                        f"the statistics of `{ctx.item(index)}` have no {what} of "
                        f"{visible(site)} of the shape {'×'.join(map(str, size))}: found {present}",
                        "collect them again, from a model with this adapter",
                    )


def _limit(ctx: Context, like: AdapterNode, rank: Num | str, over: str) -> int | None:
    limit = None if isinstance(rank, str) else whole_rank(rank, "rank")
    if not like.type.has_factors or over == "factors":
        why = "over=factors keeps the rank of the adapters"
        if not like.type.has_factors:
            why = f"these adapters are {kinds_text(like.type.kinds)}, which has none"
        without = ctx.use.without("rank") if ctx.use is not None else None
        message = f"`{ctx.what}` takes no rank here: {why}"
        raise Fault("PEM0326", message, without or "leave the rank out")
    if limit is not None:
        hold_rank(ctx, limit, like.type.ranked_shapes)
    return limit


# --- the node --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Merge(AdapterNode):
    """Several adapters merged by a method.

    Attributes:
        method: the method.
        adapters: the adapters; in key order where they may change places.
        over: `delta` or `factors`.
        limit: the rank that a recipe asks for.
        weights: of the adapters.
        settings: the other parameters, by name.
    """

    kind = "merge"

    method: MergeMethod
    adapters: tuple[AdapterNode, ...]
    over: str
    limit: int | None
    weights: tuple[Num, ...]
    settings: tuple[tuple[str, Num | str | None], ...]

    @property
    def args(self) -> tuple[AdapterNode, ...]:
        return self.adapters

    def parts(self) -> tuple[Part, ...]:
        return (self.method.name, self.over, self.limit, self.weights, self.settings)

    def rebuilt(self, new: Rebuilding) -> Node:
        pairs = [
            (new.adapter(x), new.number(weight))
            for x, weight in zip(self.adapters, self.weights, strict=True)
        ]
        settings = tuple(
            (key, value if value is None or isinstance(value, str) else new.number(value))
            for key, value in self.settings
        )
        return _made(new.graph, self, self.method, pairs, self.over, self.limit, settings)

    @property
    def by_factors(self) -> bool:
        return self.over == "factors"

    def _rank_at(self, site: str, shape: SiteShape) -> int:
        ranks = [max(1, x.ranks[site]) for x in self.adapters]
        if self.over == "factors":
            return ranks[0]
        if self.method.rank is not None:
            return self.method.rank(ranks, shape.full_rank, dict(self.settings))
        return shape.full_rank if self.limit is None else room_for(self.limit, shape)

    def _ranks(self) -> Mapping[str, int]:
        ranks = {site: self._rank_at(site, x) for site, x in self.type.ranked_shapes.items()}
        return {**dict.fromkeys(self.shapes, 0), **ranks}

    def _scales(self) -> Mapping[str, float]:
        if self.over == "factors":
            return self.adapters[0].scales
        return dict.fromkeys(self.shapes, 1.0)

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        if all(args[x] is None for x in self.adapters):
            return None
        from pemlang.kernels.builder import SiteNumber

        parts = [self._part(ctx, x, args[x]) for x in self.adapters]
        statistics = self.method.statistics_at(self, ctx.site)
        numbers = {
            key: ctx.number(value)
            for key, value in self.settings
            if value is not None and not isinstance(value, str)
        }
        seed = numbers.pop("seed", None)
        wide = self.method.kernel.wide or any(part.values[0].dtype == "F64" for part in parts)
        inputs = MergeInputs(
            name=self.method.name,
            parts=[
                (*part.values, *(ctx.statistic(_leaf(x), kind) for kind in statistics))
                for x, part in zip(self.adapters, parts, strict=True)
            ],
            statistics=len(statistics),
            weights=[ctx.number(weight) for weight in self.weights],
            scales=[part.scale for part in parts],
            seeds=[
                0.0 if seed is None else SiteNumber(draw_seed(int(seed), x), ctx.site)
                for x in self.adapters
            ],
            numbers=numbers,
            words={key: x for key, x in self.settings if isinstance(x, str)},
            rank=self.ranks.get(ctx.site, 0),
            over=self.over,
            dtype="F64" if wide else "F32",
        )
        values, cost = self.method.kernel.write(ctx.builder, inputs)
        if self.limit is not None and cost is not None and inputs.rank:
            by = self.shapes[ctx.site].full_rank - self.ranks[ctx.site]
            ctx.truncations[self] = Truncation(cost, by)
        return replace(parts[0], values=tuple(values), scale=self.scales[ctx.site])

    def _part(self, ctx: LoweringContext, x: AdapterNode, part: SiteValues | None) -> SiteValues:
        """The parameters of one of the adapters: zeros where it is zero, padded where need be."""
        if part is None:
            part = ctx.zeros(self, max(1, x.ranks.get(ctx.site, 0)), x.scales.get(ctx.site, 1.0))
        return padded(ctx.builder, part, self.ranks[ctx.site]) if self.by_factors else part

    @property
    def steady(self) -> bool:
        return not self.by_statistics

    @property
    def by_statistics(self) -> bool:
        return self.method.statistics is not None

    @property
    def fills(self) -> bool:
        by_entry = self.method.rank is None and not self.by_factors
        return self.type.has_factors and by_entry and self.limit is None

    @property
    def is_cut(self) -> bool:
        return self.limit is not None

    def cut(self, graph: Graph, rank: int) -> AdapterNode | None:
        """Law: compress(m, rank=k) of a method m that fills the matrix is m with rank=k."""
        return graph.add(replace(self, limit=rank)) if self.fills else None

    def formula(self, write: Formula) -> str:
        pairs = [(write.value(x), w) for x, w in zip(self.adapters, self.weights, strict=True)]
        listed = slice(self.method.ordered, None)
        pairs[listed] = sorted(pairs[listed], key=lambda pair: pair[0])  # not by their content
        named: list[tuple[str, Setting]] = []
        named += [("rank", self.limit)] if self.limit is not None else []
        named += [(key, value) for key, value in self.settings if value is not None]
        named += [("over", self.over)] if self.by_factors else []
        if any(weight != 1 for weight in self.weights):
            named.append(("weights", f"[{', '.join(write.number(weight) for _, weight in pairs)}]"))
        args = [text for text, _ in pairs]
        args[listed] = [f"[{', '.join(args[listed])}]"] if args[listed] else []
        return write.call(self.method.name, args, named)

    def differ(self, old: Node, new: Node, write: Difference) -> list[str] | None:
        if not (isinstance(old, Merge) and isinstance(new, Merge) and old.method is new.method):
            return None
        if any(len(set(x.adapters)) < len(x.adapters) for x in (old, new)):
            return None  # an adapter that stands there twice
        before, after = old._told_settings(), new._told_settings()
        phrases = [
            write.setting(self.name, key, before.get(key), after.get(key))
            for key in sorted(before.keys() | after.keys())
            if told(before.get(key)) != told(after.get(key))
        ]
        inside = write.terms(
            dict(zip(old.adapters, old.weights, strict=True)),
            dict(zip(new.adapters, new.weights, strict=True)),
        )
        return phrases + [f"{self.name}: {phrase}" for phrase in inside] or None

    def _told_settings(self) -> dict[str, Num | str | int | None]:
        return {**dict(self.settings), "over": self.over, "rank": self.limit}

    @property
    def name(self) -> str:
        return self.method.name

    def weight(self, write: Formula, index: int) -> str:
        if all(weight == 1 for weight in self.weights):
            return ""
        return f"weight {write.short(write.number(self.weights[index]))} ·"

    def invariant(self) -> None:
        assert METHODS.get(self.method.name) is self.method
        assert len(self.weights) == len(self.adapters) > 0
        assert self.over in ("delta", "factors")
        assert self.limit is None or self.method.rank is None
        assert [key for key, _ in self.settings] == sorted(key for key, _ in self.settings)
        order = [x.key for x in self.adapters[self.method.ordered :]]
        assert order == sorted(order), "adapters out of order"
        if self.by_factors:
            assert self.type.factored
            assert all(x.ranks == self.ranks for x in self.adapters)


def _leaf(x: AdapterNode) -> Leaf:
    assert isinstance(x, Leaf)
    return x


def draw_seed(seed: int, x: AdapterNode) -> Callable[[str], float]:
    """The seed of what is drawn for an adapter at each site, a whole number that a float holds:
    from the recipe's seed, the site's name, and which adapter files it is made from. So no draw
    depends on an order, on what else is merged, or on how much an adapter is scaled."""
    leaves = [leaf.key for leaf in combined_leaves(x)]

    def at(site: str) -> float:
        digest = hashlib.sha256(" ".join([str(seed), site, *leaves]).encode()).digest()
        return float(int.from_bytes(digest[:8], "little") >> 11)

    return at
