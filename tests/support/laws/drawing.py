"""Strategies that draw expressions: well-typed over the pool, of every operator and selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from support.laws.arrays import chosen
from support.laws.expressions import Tree, call, leaf
from support.laws.pool import ALL, GAIN, GAINED, LATE, LIKE, LIKE_RANK, LORAS, OUT, ROWS, TWO, Q, V
from support.laws.reference import is_adapter

Sites = frozenset[str]

# --- numbers and schedules -----------------------------------------------------------------

NUMBERS = ["0.1", "0.2", "0.3", "0.5", "1", "2", "3", "1.25", "7e-2", "1_0e-1", "0.333", "4"]


def numbers(zero: bool = True, depth: int = 2) -> SearchStrategy[Tree]:
    """Exact numbers: literals and arithmetic on them; never zero unless it may be."""
    literals = st.sampled_from([*NUMBERS, *(["0", "0.0"] if zero else [])])
    literal = literals.map(lambda text: Tree("number", data=text))
    if depth == 0:
        return literal
    inner, whole = numbers(zero, depth - 1), numbers(False, depth - 1)
    return st.one_of(
        literal,
        literal,
        inner.map(lambda x: Tree("neg", (x,))),
        st.tuples(inner, inner).map(lambda pair: Tree("*", pair)),
        st.tuples(inner, whole).map(lambda pair: Tree("/", pair)),
        st.tuples(inner, inner).map(lambda pair: Tree("+", pair)) if zero else literal,
        st.tuples(inner, inner).map(lambda pair: Tree("-", pair)) if zero else literal,
    )


@st.composite
def schedules(draw: DrawFn, sites: Sites, zero: bool = True, depth: int = 1) -> Tree:
    """Numbers by site: ramps keep one sign where they may not be zero."""
    number = numbers(zero, depth=1)
    kind = draw(st.sampled_from(["ramp", "steps", "per"] + ["scaled", "added"] * (depth > 0)))
    if kind == "ramp":
        first = draw(number if zero else st.just(Tree("number", data="0.5")))
        last = draw(number if zero else st.just(Tree("number", data="1.5")))
        return call("ramp", first, last)
    if kind == "steps":
        return Tree("steps", tuple(draw(st.lists(number, min_size=1, max_size=4))))
    if kind == "per":
        layer = "0" if sites - LATE else "2"
        names = sorted({f"*.{site.rsplit('.', 1)[1]}" for site in sites} | {f"m.layers.{layer}.*"})
        globs = tuple(draw(st.lists(st.sampled_from(names), max_size=2)))
        return Tree("per", tuple(draw(number) for _ in range(len(globs) + 1)), globs)
    inner = draw(schedules(sites, zero, depth - 1))
    if kind == "scaled" or not zero:
        return Tree(draw(st.sampled_from("*/")), (inner, draw(numbers(False, 1))))
    return Tree(draw(st.sampled_from("+-")), (inner, draw(schedules(sites, zero, depth - 1))))


def factors(sites: Sites, zero: bool = True) -> SearchStrategy[Tree]:
    return st.one_of(numbers(zero), numbers(zero), schedules(sites, zero))


# --- leaves and selections -----------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """What expressions are drawn over: adapters with their sites, and the sets of sites that
    expressions have. `linear` keeps to the exact family over leaves, with exact numbers."""

    leaves: Mapping[str, Sites]
    sets: tuple[Sites, ...]
    selectors: tuple[tuple[Any, ...], ...]
    lora: bool = True
    linear: bool = False
    measured: bool = True


LORA = World(
    LORAS,
    (ALL, Q, V, TWO, Q & TWO, LATE),
    (
        ("globs", *(f"*.{name}" for name in ROWS)),
        ("globs", "*.q"),
        ("globs", "*.v"),
        ("globs", "m.layers.[01].?"),
        ("globs", "m.layers.0.q", "*.1.q"),
        ("layers", 0, 1),
        ("layers", 0, 2),
        ("layers", 1, 2),
        ("like", leaf("t")),
        ("like", leaf("e")),
        ("like", leaf("u")),
    ),
)
GAINS = (("globs", "*.k"), ("layers", 0, 9), ("like", leaf("o")))
IA3 = World(GAINED, (GAIN, OUT), GAINS, lora=False)
EVERY = {**LORAS, **GAINED}
LINEAR = World(LORA.leaves, LORA.sets, LORA.selectors, linear=True)


def _into(world: World, wider: Sites, sites: Sites) -> list[tuple[Any, ...]]:
    """The selectors that leave `sites` of `wider`."""
    selectors = []
    for selector in world.selectors:
        kind, *rest = selector
        kept = EVERY[rest[0].data] & wider if kind == "like" else chosen(selector, wider)
        matches = kind != "globs" or all(chosen(("globs", glob), wider) for glob in rest)
        if kept == sites and matches:
            selectors.append(selector)
    return selectors


@st.composite
def leaves(draw: DrawFn, world: World, sites: Sites) -> Tree:
    """An adapter, restricted to the sites if it has more."""
    fits = {
        name: _into(world, own, sites)
        for name, own in world.leaves.items()
        if own == sites or _into(world, own, sites)
    }
    name = draw(st.sampled_from(sorted(fits)))
    if world.leaves[name] == sites and (not fits[name] or draw(st.booleans())):
        return leaf(name)
    return Tree("select", (leaf(name),), draw(st.sampled_from(fits[name])))


# --- adapters ------------------------------------------------------------------------------


def top_rank(tree: Tree) -> int:
    """No expression has a larger rank than this at any site."""
    if tree.op == "leaf":
        return 5 if tree.data == "g" else 3
    if tree.op in ("⊕", "⊖", "⊗", "pneg"):
        return max(top_rank(arg) for arg in tree.args)
    if tree.op == "call" and tree.data[0] == "pad":
        return int(tree.data[1]["rank"])
    if tree.op == "call" and tree.data[0] in ("rescale", "compress"):
        return top_rank(tree.args[0])
    return sum(top_rank(arg) for arg in tree.args)


@st.composite
def adapters(draw: DrawFn, world: World, sites: Sites | None = None, depth: int = 3) -> Tree:
    """An expression of the exact family, with parameter-wise ones inside it."""
    sites = sites if sites is not None else draw(st.sampled_from(world.sets))
    if depth == 0:
        return draw(leaves(world, sites))
    kinds = ["leaf", "sum", "sum", "scale", "scale", "neg", "select", "join", "let", "def"]
    if not world.linear:
        kinds += ["measured", "measured"] * world.measured
        kinds += ["pair", "pair", "shaped", "shaped"] if world.lora else ["pair"]
    make = _MAKE[draw(st.sampled_from(kinds))]
    return draw(make(world, sites, depth - 1))


@st.composite
def _sum(draw: DrawFn, world: World, sites: Sites, depth: int) -> Tree:
    both = draw(adapters(world, sites, depth)), draw(adapters(world, sites, depth))
    return Tree(draw(st.sampled_from("+-")), both)


@st.composite
def _scale(draw: DrawFn, world: World, sites: Sites, depth: int) -> Tree:
    inner = draw(adapters(world, sites, depth))
    how = draw(st.sampled_from(["left", "right", "divide"]))
    if how == "divide":
        return Tree("/", (inner, draw(factors(sites, zero=False))))
    by = draw(factors(sites))
    return Tree("*", (by, inner) if how == "left" else (inner, by))


@st.composite
def _negate(draw: DrawFn, world: World, sites: Sites, depth: int) -> Tree:
    return Tree("neg", (draw(adapters(world, sites, depth)),))


@st.composite
def _let(draw: DrawFn, world: World, sites: Sites, depth: int) -> Tree:
    return Tree("let", (draw(adapters(world, sites, depth)),))


@st.composite
def _select(draw: DrawFn, world: World, sites: Sites, depth: int) -> Tree:
    ways = [(wider, selector) for wider in world.sets for selector in _into(world, wider, sites)]
    if not ways:
        return draw(leaves(world, sites))
    wider, selector = draw(st.sampled_from(ways))
    return Tree("select", (draw(adapters(world, wider, depth)),), selector)


@st.composite
def _join(draw: DrawFn, world: World, sites: Sites, depth: int) -> Tree:
    parts = [part for part in world.sets if part <= sites]
    first = draw(st.sampled_from(parts))
    second = draw(st.sampled_from([part for part in parts if part | first == sites] or [sites]))
    return call("join", draw(adapters(world, first, depth)), draw(adapters(world, second, depth)))


@st.composite
def _def(draw: DrawFn, world: World, sites: Sites, depth: int) -> Tree:
    name = draw(st.sampled_from(["blend", "undo", "eased", "unlearn"]))
    inner = draw(adapters(world, sites, depth))
    if name == "eased":
        return call(name, inner, draw(factors(sites)))
    if name == "unlearn":
        return call(name, inner, **draw(st.sampled_from([{}, {"weight": "0.5"}])))
    other = draw(adapters(world, sites, depth))
    return call(name, inner, other, **draw(st.sampled_from([{}, {"by": "0.75"}, {"by": 0}])))


@st.composite
def measured(draw: DrawFn, world: World) -> Tree:
    """A number measured from adapters that are not zero, and arithmetic on it."""
    where = draw(st.sampled_from(world.sets))
    x, y = draw(leaves(world, where)), draw(leaves(world, where))
    norm = call("norm", x)
    measures = [call("cosine", x, y), call("distance", x, y), norm]
    if world.lora:
        measures += [call("energy", x, rank=1), call("init_overlap", x, y)]
    m, n = draw(st.sampled_from(measures)), draw(numbers(zero=False, depth=1))
    how = draw(st.sampled_from(["m", "neg", "*", "+", "-", "/", "n-m", "n/m"]))
    if how in ("m", "neg"):
        return m if how == "m" else Tree("neg", (m,))
    return {"n-m": Tree("-", (n, m)), "n/m": Tree("/", (n, norm))}.get(how) or Tree(how, (m, n))


@st.composite
def _measured(draw: DrawFn, world: World, sites: Sites, depth: int) -> Tree:
    return Tree("*", (draw(measured(world)), draw(adapters(world, sites, depth))))


@st.composite
def _shaped(draw: DrawFn, world: World, sites: Sites, depth: int) -> Tree:
    """The same function with other parameters."""
    inner = draw(adapters(world, sites, depth))
    how = draw(st.sampled_from(["pad", "rescale", "compress"]))
    if how == "rescale":
        return call("rescale", inner, draw(leaves(world, sites)))
    if how == "compress" and top_rank(inner) <= 4:
        return call("compress", inner, rank=draw(st.integers(top_rank(inner), 4)))
    return call("pad", inner, rank=top_rank(inner) + draw(st.integers(0, 3)))


# --- the parameter-wise family -------------------------------------------------------------

LIKE_WORLD = World(LIKE, LORA.sets, LORA.selectors)


@st.composite
def _pair(draw: DrawFn, world: World, sites: Sites, depth: int) -> Tree:
    shape = draw(st.sampled_from(["like", "like", "pad", "rescale"])) if world.lora else "like"
    return draw(pairs(world, sites, depth, shape))


@st.composite
def pairs(draw: DrawFn, world: World, sites: Sites, depth: int, shape: str = "like") -> Tree:
    """An expression of the parameter-wise family; all of a shape have one rank and scale."""
    if depth <= 0 and shape != "like":
        inner = draw(pairs(world, sites, 0))
        if shape == "pad":
            return call("pad", inner, rank=LIKE_RANK + 1)
        like = Tree("select", (leaf("r"),), draw(st.sampled_from(_into(LORA, ALL, sites))))
        return call("rescale", inner, like)
    if depth <= 0:
        return draw(leaves(LIKE_WORLD if world.lora else world, sites))
    kind = draw(st.sampled_from(["⊕", "⊖", "⊗", "⊗", "pneg", "scale", "merge", "fold", "let"]))
    inner = draw(pairs(world, sites, depth - 1, shape))
    if kind in ("pneg", "let"):
        return Tree(kind, (inner,))
    if kind == "scale":
        return Tree("*", (draw(factors(sites, zero=False)), inner))
    if kind == "⊗":
        by = draw(factors(sites))
        return Tree("⊗", draw(st.sampled_from([(by, inner), (inner, by)])))
    other = draw(pairs(world, sites, depth - 1, shape))
    if kind == "merge":
        return call("merge", inner, other, **draw(st.sampled_from([{}, {"weight": 0}])))
    return call("fold", inner, other) if kind == "fold" else Tree(kind, (inner, other))


_MAKE = {
    "leaf": lambda world, sites, depth: leaves(world, sites),
    "sum": _sum,
    "scale": _scale,
    "neg": _negate,
    "select": _select,
    "join": _join,
    "let": _let,
    "def": _def,
    "measured": _measured,
    "pair": _pair,
    "shaped": _shaped,
}


# --- refactorings --------------------------------------------------------------------------


@st.composite
def refactored(draw: DrawFn, tree: Tree) -> Tree:
    """The same value: operands that commute swapped, parts named with `let`."""
    args = tuple(draw(refactored(arg)) if is_adapter(arg) else arg for arg in tree.args)
    joins = tree.op == "call" and tree.data[0] == "join"
    if (tree.op in ("+", "⊕") or joins) and draw(st.booleans()):
        args = args[::-1]
    same = Tree(tree.op, args, tree.data)
    return Tree("let", (same,)) if draw(st.booleans()) else same
