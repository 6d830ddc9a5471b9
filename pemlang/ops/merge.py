"""What the merge methods have in common: their parameters, their type rule, and the node `merge`
that they become. What each of them computes stands beside its record, in `sparse.py`, `signs.py`,
`geometric.py`, `lowrank.py` and `data.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.peft import FLOATS, Adapter
from pemlang.graph.node import Graph, Node, Num, plain
from pemlang.graph.normal import adapter_type
from pemlang.graph.numbers import shown
from pemlang.modules.sites import SiteShape
from pemlang.ops import parameters
from pemlang.ops.agree import TITLES, need_method
from pemlang.ops.exact import TERMS
from pemlang.ops.linear import ADAPTERS, alike, weights_for
from pemlang.ops.record import (
    Context,
    Cut,
    NodeKind,
    Param,
    Run,
    Signature,
    Within,
    node_kind,
    ranks,
    scales,
)
from pemlang.ops.shaping import unmeasured, whole_rank

if TYPE_CHECKING:
    from pemlang.kernels.methods import Method
    from pemlang.modules.factors import Factors

SHARE = Within(Fraction(0), Fraction(1), open=True)
"""A share that is not nothing."""

WEIGHTS = Param("weights", ("[number]",), None)
DENSITY = Param("density", ("number",), within=SHARE)
SCALE = Param("scale", ("number",), Fraction(1))
SEED = Param(
    "seed", ("number",), Fraction(0), within=Within(Fraction(0), Fraction(2**32 - 1), whole=True)
)
OVER = Param("over", ("word",), "delta", words=("delta", "factors"))
RANK = Param("rank", ("number",), None)
PAIR = (Param("x", ("adapter",)), Param("y", ("adapter",)))

RankRule = Callable[[Sequence[int], int, Mapping[str, Any]], int]
"""The ranks of the adapters at a site, min(out, in) and the settings to the rank that comes out."""


@dataclass(frozen=True)
class Kind:
    """How the node of one method behaves.

    Attributes:
        method: what computes it, made when it is first needed: it needs NumPy.
        symmetric: whether the adapters, with their weights, may change places.
        divides: whether it divides by the sum of the weights.
        rank: what rank comes out; None for a method on each element, which takes `rank=`.
        lora: whether it is for LoRA alone.
        statistics: the kinds of statistics that it needs of each adapter, of a LoRA and of (IA)³.
        factors: whether it acts on A and on B, and not on Δ.
    """

    method: Callable[[], Method]
    symmetric: bool = True
    divides: bool = False
    rank: RankRule | None = None
    lora: bool = False
    statistics: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    factors: bool = False


KINDS: dict[str, Kind] = {}


def total_rank(found: Sequence[int], full: int, settings: Mapping[str, Any]) -> int:
    """The rank of a sum."""
    return sum(found)


def signature(name: str, kind: Kind, *params: Param) -> Signature:
    """The signature of a method: its parameters, and a type rule that makes its node."""
    KINDS[name] = kind

    def rule(ctx: Context, *given: Any) -> Node:
        return _merge(ctx, name, kind, dict(zip(params, given, strict=True)))

    return Signature(params, "adapter", rule)


def many(name: str, kind: Kind, *params: Param) -> Signature:
    """The signature of a method on a list of adapters."""
    return signature(name, kind, ADAPTERS, *params)


def pair(name: str, kind: Kind, *params: Param) -> Signature:
    """The signature of a method on two adapters that may not change places."""
    return signature(name, replace(kind, symmetric=False), *PAIR, *params)


def _merge(ctx: Context, name: str, kind: Kind, values: Mapping[Param, Any]) -> Node:
    given = {param.name: value for param, value in values.items()}
    if "xs" in given:
        xs = given.pop("xs")
    else:
        xs, ctx.items = (given.pop("x"), given.pop("y")), ctx.texts
    weights = _weights(ctx, xs, kind, given.pop("weights", None))
    over, rank = given.pop("over", "delta"), given.pop("rank", None)
    if any(adapter_type(x).method != "lora" for x in xs):
        over = "delta"  # one vector is all that such an adapter has
    elif kind.factors:
        over = "factors"
    known = _agreed(ctx, xs, kind, over)
    _collected(ctx, xs, kind)
    settings = dict(sorted(given.items()))
    for param in values:
        if param.within is not None:
            unmeasured(settings[param.name], f"{param.name} of {name}")
    check_settings(name, settings)
    pairs = list(zip(xs, weights, strict=True))
    if kind.symmetric:
        pairs.sort(key=lambda one: (one[0].key, str(plain(one[1]))))
    type_ = adapter_type(known)
    limit = None if rank is None else _limit(ctx, known, rank, over, name)
    attrs = (name, over, limit, tuple(weight for _, weight in pairs), tuple(settings.items()))
    return ctx.graph.add("merge", [x for x, _ in pairs], attrs, type_)


def _weights(
    ctx: Context, xs: Sequence[Node], kind: Kind, given: Sequence[Num] | None
) -> list[Num]:
    weights = weights_for(ctx, xs, given)
    exact = [weight for weight in weights if isinstance(weight, Fraction)]
    if kind.divides and weights and len(exact) == len(weights) and sum(exact) == 0:
        raise Fault(
            "PEM0330",
            f"the weights of `{ctx.what}` sum to zero, and it divides by their sum",
            "give weights whose sum is not zero",
        )
    return weights


def _agreed(ctx: Context, xs: Sequence[Node], kind: Kind, over: str) -> Node:
    if kind.lora:
        for index, x in enumerate(xs):
            need_method(x, "lora", ctx.what, ctx.item(index))
    return alike(ctx, xs, parameters.TERMS.agree if over == "factors" else TERMS.agree)


def _collected(ctx: Context, xs: Sequence[Node], kind: Kind) -> None:
    """Hold adapters to have the statistics that a method needs, of the shapes that it needs."""
    for index, x in enumerate(xs):
        wanted = _statistics(kind, x)
        adapter = x.adapter
        if not wanted:
            continue
        if adapter is None or adapter.statistics is None:
            why = "has no statistics.safetensors beside it" if adapter else "is no adapter on disk"
            raise Fault(
                "PEM0327",
                f"`{ctx.what}` merges by statistics of each adapter, and `{ctx.item(index)}` {why}",
                "collect them: pemlang.collect_statistics(model, batches, directory)",
                () if adapter else ("merge the adapters as declared, and scale or select after",),
            )
        for site, shape in adapter_type(x).shapes.items():
            for what, size in _shapes(adapter, site, shape).items():
                entry = adapter.statistics.entries.get(f"{site}.{what}")
                fits = entry is not None and entry.shape == size and entry.dtype in FLOATS
                if what in wanted and not fits:
                    found = "none"
                    if entry is not None:
                        found = f"{entry.dtype} {'×'.join(map(str, entry.shape))}"
                    raise Fault(
                        "PEM0328",
                        f"the statistics of `{ctx.item(index)}` have no {what} of "
                        f"{visible(site)} of the shape {'×'.join(map(str, size))}: found {found}",
                        "collect them again, from a model with this adapter",
                    )


def _statistics(kind: Kind, x: Node) -> tuple[str, ...]:
    return kind.statistics[0 if adapter_type(x).method == "lora" else 1]


def _shapes(adapter: Adapter, site: str, shape: SiteShape) -> dict[str, tuple[int, ...]]:
    """The shape of each kind of statistic at a site."""
    if adapter.method == "ia3":
        return {"fisher_l": shape.a}
    rank = adapter.layout.ranks[site]
    return {
        "gram": (shape.a[0], shape.a[0]),
        "fisher_A": (rank, *shape.a),
        "fisher_B": (shape.b[0], rank, *shape.b[1:]),
    }


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Raise PEM0326 for settings that do not go together."""
    spread = settings.get("epsilon")
    if spread is None or settings["density"] == 1:
        return
    room = min(settings["density"], 1 - settings["density"])
    if spread >= room:
        raise Fault(
            "PEM0326",
            f"epsilon={shown(spread)} is too wide for density={shown(settings['density'])}: {name} "
            "keeps an entry with a probability from density − epsilon to density + epsilon, which "
            "has to lie between 0 and 1",
            f"epsilon={shown(room / 2)}",
        )


def _limit(ctx: Context, known: Node, rank: Num, over: str, name: str) -> int:
    limit, type_ = whole_rank(rank, "rank"), adapter_type(known)
    if type_.method != "lora" or over == "factors":
        why = "over=factors keeps the rank of the adapters"
        if type_.method != "lora":
            why = f"these adapters are {TITLES[type_.method]}, which has none"
        raise Fault("PEM0326", f"`{name}` takes no rank here: {why}", "leave rank out")
    above = [site for site, shape in type_.shapes.items() if limit > shape.full_rank]
    if above:
        raise Fault(
            "PEM0310",
            f"rank {limit} is above min(out, in) at {listed(above)}",
            f"rank={min(type_.shapes[site].full_rank for site in above)}",
            (f"{visible(above[0])} is {type_.shapes[above[0]]}",),
        )
    return limit


# --- the node ------------------------------------------------------------------------------


def _rank_at(node: Node, site: str, shape: SiteShape) -> int:
    name, over, limit, _, settings = node.attrs
    found = [max(1, ranks(arg)[site]) for arg in node.args]
    if over == "factors":
        return found[0]
    rule = KINDS[name].rank
    if rule is not None:
        return rule(found, shape.full_rank, dict(settings))
    return shape.full_rank if limit is None else limit


def _ranks(node: Node) -> Mapping[str, int]:
    return {s: _rank_at(node, s, shape) for s, shape in adapter_type(node).shapes.items()}


def _scales(node: Node) -> Mapping[str, float]:
    if node.attrs[1] == "factors":
        return scales(node.args[0])
    return dict.fromkeys(adapter_type(node).shapes, 1.0)


def _cut(graph: Graph, node: Node, rank: int) -> Node | None:
    """Law: compress(m, rank=k) of a method m that fills the matrix is m with rank=k."""
    name, over, limit, *rest = node.attrs
    if over == "factors" or limit is not None or KINDS[name].rank is not None:
        return None
    return graph.add("merge", node.args, (name, over, rank, *rest), node.type)


def _lower(run: Run, node: Node, site: str, args: Mapping[Node, Factors | None]) -> Factors | None:
    from pemlang.kernels.methods import METHODS, Elementwise, Request
    from pemlang.modules.factors import Factors, padded, zeros

    name, over, limit, weights, settings = node.attrs
    if all(args[arg] is None for arg in node.args):
        return None
    shape, lora = adapter_type(node).shapes[site], adapter_type(node).method == "lora"
    parts = []
    for arg in node.args:
        part = args[arg]
        if part is None and lora:
            rank, scale = max(1, ranks(arg)[site]), scales(arg)[site]
            part = zeros(run.builder, shape.a, shape.b, rank, scale)
        elif part is None:
            part = Factors(run.builder.const(0.0, "F64", shape.a), None)
        if over == "factors":
            part = padded(run.builder, part, ranks(node)[site])
        parts.append(part)
    method = METHODS.setdefault(name, KINDS[name].method())
    values = [part.a for part in parts]
    wide = not isinstance(method, Elementwise) or any(x.dtype == "F64" for x in values)
    numbers = {key: run.number(x) for key, x in settings if not isinstance(x, str)}
    seed = numbers.pop("seed", None)
    words = tuple((key, x) for key, x in settings if isinstance(x, str))
    rank = ranks(node)[site] if lora else 0
    kinds = _statistics(KINDS[name], node)
    dtype = "F64" if wide else "F32"
    ask = Request(name, over, rank, words, tuple(numbers), dtype, len(kinds))
    given = [run.number(weight) for weight in weights]
    seeds = [0.0 if seed is None else _draw_seed(int(seed), site, arg) for arg in node.args]
    consts = [*given, *(part.scale for part in parts), *seeds, *numbers.values()]
    rows = [
        (part.a, part.b, *(run.statistic(arg, kind) for kind in kinds))
        for arg, part in zip(node.args, parts, strict=True)
    ]
    a, b, cost = run.builder.merge(ask, rows, consts)
    if limit is not None:
        run.cuts[node] = Cut(cost, shape.full_rank - limit)
    return Factors(a, b, scales(node)[site] if lora else 1.0)


def _draw_seed(seed: int, site: str, arg: Node) -> float:
    """The seed of what is drawn for an adapter at a site, a whole number that a float holds: from
    the recipe's seed, the site's name, and which adapter files it is made from. So no draw depends
    on an order, on what else is merged, or on how much an adapter is scaled."""
    leaves, pending = set(), [arg]
    while pending:
        node = pending.pop()
        pending += node.args
        if node.op == "leaf":
            leaves.add(node.key)
    digest = hashlib.sha256(" ".join([str(seed), site, *sorted(leaves)]).encode()).digest()
    return float(int.from_bytes(digest[:8], "little") >> 11)


MERGE = node_kind(
    NodeKind(
        "merge",
        _ranks,
        _scales,
        _lower,
        lambda node: (
            not any(key == "seed" for key, _ in node.attrs[4])
            and not _statistics(KINDS[node.attrs[0]], node)
        ),
        _cut,
    )
)
