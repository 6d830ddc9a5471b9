"""When adapters may be combined: same method, same base, same sites, same shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.adapter import how_kinds_act, kinds_text
from pemlang.formats.transformers import is_of_tokens
from pemlang.graph.node import AdapterNode
from pemlang.graph.types import AdapterType
from pemlang.modules import PARAMETRISATIONS, Parametrisation, Shapes, SiteShape
from pemlang.ops.bases import declared_with, likeness
from pemlang.ops.fused import same_modules
from pemlang.ops.mend import brought_together, exactly, joined
from pemlang.ops.names import names_of_one, naming_of
from pemlang.ops.record import Context


def same_space(
    ctx: Context, left: AdapterNode, right: AdapterNode, factors: bool = False
) -> AdapterType:
    """The common type of two adapters that change the same sites of the same base. `factors` says
    whether their factors are combined.

    Raises:
        Fault: PEM0304 methods, PEM0305 bases, PEM0306 sites, PEM0307 shapes.
    """
    type_ = same_base(ctx, left, right)
    sites, others = left.shapes, right.shapes
    if sites != others:
        _same_shapes(ctx, sites, others)
        extras = [
            [site for site in one if site not in other]
            for one, other in ((sites, others), (others, sites))
        ]
        lack = [
            f"{ctx.text(i)} changes {len(extra)} that {ctx.text(1 - i)} does not: {listed(extra)}"
            for i, extra in enumerate(extras)
            if extra
        ]
        message = f"`{ctx.text(0)}` and `{ctx.text(1)}` change different modules"
        if naming_of(left) != naming_of(right):
            raise Fault("PEM0306", message, names_of_one(ctx.graph, left, right), lack)
        twins = same_modules(left, right)
        if twins is not None:
            raise Fault("PEM0306", message, twins.help(ctx.graph), [*lack, twins.note])
        raise Fault("PEM0306", message, *_with_sites_of_both(ctx, factors, lack))
    return type_


def _with_sites_of_both(ctx: Context, factors: bool, lack: list[str]) -> tuple[str, list[str]]:
    """What to write where operands change different modules, and what to know about it."""
    if ctx.fixed is not None:
        return ctx.fixed, lack
    if ctx.what in ("+", "-"):
        join = "join counts a site that one of them does not have as zero there"
        return joined(ctx) or "put them together with join(x, y)", [*lack, join]
    like = "x[like y] keeps the sites of x that y has too"
    text = brought_together(ctx, factors)
    if text is not None:
        return text, [*lack, like]
    return "give adapters that change the same modules; x[like y] selects what y has too", lack


def with_base(left: AdapterNode, right: AdapterNode) -> AdapterNode:
    """Of two adapters of one space, one whose base is known if there is one."""
    return right if left.type.base is None else left


def same_base(ctx: Context, left: AdapterNode, right: AdapterNode) -> AdapterType:
    """The common type of two adapters of one method on one base, whatever their sites."""
    type_, other = left.type, right.type
    kinds, others = _families(type_.kinds), _families(other.kinds)
    if not (kinds <= others or others <= kinds):
        raise Fault(
            "PEM0304",
            f"`{ctx.text(0)}` is {kinds_text(type_.kinds)} and `{ctx.text(1)}` is "
            f"{kinds_text(other.kinds)}: what the two do has no sum",
            "combine adapters of one method; to use both, merge one into the base in PEFT "
            "(merge_and_unload), and load the other on that",
            how_kinds_act(type_.kinds, other.kinds),
        )
    if type_.base is not None and other.base is not None and type_.base != other.base:
        operands = ctx.use.adapters if ctx.use is not None else ()
        named = [type_.base, other.base, *(x.type.base for x in operands if x.type.base)]
        names = list(dict.fromkeys(named))
        raise Fault(
            "PEM0305",
            f"`{ctx.text(0)}` belongs to the base {visible(type_.base)!r}, "
            f"`{ctx.text(1)}` to {visible(other.base)!r}",
            declared_with("b", names, ", and say `on b` of each adapter"),
            [why for name in names[1:9] for why in likeness(name, names[:1])],
        )
    return replace(type_, base=type_.base if type_.base is not None else other.base)


def _families(kinds: Iterable[str]) -> set[str]:
    return {PARAMETRISATIONS[kind].family or kind for kind in kinds}


def union(ctx: Context, left: AdapterNode, right: AdapterNode) -> Shapes:
    """The sites of both; raises PEM0307 where a site of both has two shapes."""
    sites, others = left.shapes, right.shapes
    if sites == others:
        return sites
    _same_shapes(ctx, sites, others)
    return Shapes({**sites, **others})


def _same_shapes(ctx: Context, left: Shapes, right: Shapes) -> None:
    clash = [site for site in left if site in right and left[site] != right[site]]
    if clash:
        site = clash[0]
        if all(is_of_tokens(x) and _one_side(left[x], right[x]) for x in clash):
            raise Fault(
                "PEM0307",
                f"site {visible(site)} is {left[site]} in `{ctx.text(0)}` and {right[site]} in "
                f"`{ctx.text(1)}`: the two were trained with different tokens",
                'leave it out of both, as in x["*.q_proj"], or go by tokens through the models '
                "they belong to: n + y + ((m + x)[like n] - m[like n])",
            )
        raise Fault(
            "PEM0307",
            f"site {visible(site)} is {left[site]} in `{ctx.text(0)}` and {right[site]} in "
            f"`{ctx.text(1)}`",
            "the two do not belong to the same model; check their paths",
            (f"{len(clash)} sites differ so",) if len(clash) > 1 else (),
        )


def _one_side(shape: SiteShape, other: SiteShape) -> bool:
    """Whether two shapes differ in their inputs or in their outputs alone."""
    return shape.layer == other.layer and (shape.a == other.a) != (shape.b == other.b)


def same_parameters(ctx: Context, left: AdapterNode, right: AdapterNode) -> None:
    """Hold two LoRAs of one space to what ⊕ needs beyond that: equal rank and scale at every site.

    Raises:
        Fault: PEM0308 ranks, PEM0309 scales.
    """
    sites = left.type.ranked_shapes
    for code, what, numbers, others in (
        ("PEM0308", "rank", left.ranks, right.ranks),
        ("PEM0309", "scale", left.scales, right.scales),
    ):
        site = next((site for site in sites if numbers[site] != others[site]), None)
        if site is not None:
            exact = exactly(ctx)
            raise Fault(
                code,
                f"{ctx.what} needs equal {what}s: at {visible(site)} `{ctx.text(0)}` has {what} "
                f"{numbers[site]:g}, `{ctx.text(1)}` has {what} {others[site]:g}",
                brought_together(ctx, factors=True)
                or ctx.fixed
                or "bring them together with pad(x, rank=…) and rescale(x, like=y)",
                (f"or combine what they do, at any {what}: {exact}",) if exact else (),
            )


def need_factors(x: AdapterNode, what: str, text: str, everywhere: bool = True) -> None:
    """Raise PEM0311 unless an adapter is s·B·A at every site, or at some: some operators need the
    factors."""
    if not (x.type.factored if everywhere else x.type.has_factors):
        _hold_kinds(x, what, text, lambda record: record.factored)


def need_pair(x: AdapterNode, what: str, text: str) -> None:
    """Raise PEM0311 unless an adapter has A and B at some site, of its own or of each expert."""
    if not x.type.ranked:
        _hold_kinds(x, what, text, lambda record: record.ranked)


def need_matrices(x: AdapterNode, what: str, text: str) -> None:
    """Raise PEM0311 for an adapter whose kind is never a matrix: some operators are about those."""
    _hold_kinds(x, what, text, lambda record: record.matrices)


def _hold_kinds(
    x: AdapterNode, what: str, text: str, taken: Callable[[Parametrisation], bool]
) -> None:
    """Raise PEM0311 unless all parametrisations of an adapter are taken."""
    if x.type.kinds and all(taken(PARAMETRISATIONS[kind]) for kind in x.type.kinds):
        return
    records = [r for r in PARAMETRISATIONS.values() if taken(r)]
    title = " or ".join(r.title for r in records if not (r.family or r.needs_base))
    some = any(taken(PARAMETRISATIONS[kind]) for kind in x.type.kinds)
    raise Fault(
        "PEM0311",
        f"{what} is defined for {title}; `{text}` is {kinds_text(x.type.kinds)}",
        f"use it on a {title} adapter"
        + (': select such sites, as in x["*.q_proj"], and join what comes out' if some else ""),
    )
