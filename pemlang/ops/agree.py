"""When adapters may be combined: same method, same base, same sites, same shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.adapter import kinds_text
from pemlang.graph.node import AdapterNode
from pemlang.graph.types import AdapterType
from pemlang.modules import PARAMETRISATIONS, Shapes
from pemlang.ops.record import Context


def same_space(ctx: Context, left: AdapterNode, right: AdapterNode) -> AdapterType:
    """The common type of two adapters that change the same sites of the same base.

    Raises:
        Fault: PEM0304 methods, PEM0305 bases, PEM0306 sites, PEM0307 shapes.
    """
    type_ = same_base(ctx, left, right)
    sites, others = left.shapes, right.shapes
    if sites != others:
        _same_shapes(ctx, sites, others)
        lack = [
            f"{ctx.text(i)} changes {len(extra)} that {ctx.text(1 - i)} does not: {listed(extra)}"
            for i, extra in enumerate(
                ([s for s in sites if s not in others], [s for s in others if s not in sites])
            )
            if extra
        ]
        message = f"`{ctx.text(0)}` and `{ctx.text(1)}` change different modules"
        raise Fault("PEM0306", message, *_with_sites_of_both(ctx, sites, others, lack))
    return type_


def _with_sites_of_both(
    ctx: Context, left: Shapes, right: Shapes, lack: list[str]
) -> tuple[str | None, list[str]]:
    """What to write where two operands change different modules, and what to know about it."""
    a, b = ctx.left, ctx.text(1)
    if ctx.what in ("+", "-"):
        notes = [*lack, "join counts a site that one of them does not have as zero there"]
        return f"join({a}, {'-' * (ctx.what == '-')}{b})", notes
    if not any(site in right for site in left):
        return None, lack
    a_kept = a if all(site in right for site in left) else f"{operand(a)}[like {ctx.text(1)}]"
    b_kept = b if all(site in left for site in right) else f"{operand(b)}[like {ctx.text(0)}]"
    notes = [*lack, "x[like y] keeps the sites of x that y has too"]
    return ctx.combined(a_kept, b_kept), notes


def operand(text: str) -> str:
    """An expression as written, in brackets where `[…]` would bind to a part of it only."""
    return text if text.replace(".", "").replace("_", "").isalnum() else f"({text})"


def with_base(left: AdapterNode, right: AdapterNode) -> AdapterNode:
    """Of two adapters of one space, one whose base is known if there is one."""
    return right if left.type.base is None else left


def same_base(ctx: Context, left: AdapterNode, right: AdapterNode) -> AdapterType:
    """The common type of two adapters of one method on one base, whatever their sites."""
    type_, other = left.type, right.type
    if type_.kinds != other.kinds:
        raise Fault(
            "PEM0304",
            f"`{ctx.text(0)}` is {kinds_text(type_.kinds)} and `{ctx.text(1)}` is "
            f"{kinds_text(other.kinds)}: their parameters mean different things",
            "combine adapters of one method",
        )
    if type_.base is not None and other.base is not None and type_.base != other.base:
        raise Fault(
            "PEM0305",
            f"`{ctx.text(0)}` belongs to the base {visible(type_.base)!r}, "
            f"`{ctx.text(1)}` to {visible(other.base)!r}",
            "if the two names mean one model, declare it with both: "
            f'base b = ["{visible(type_.base)}", "{visible(other.base)}"], and say `on b`',
        )
    if type_.fan_in_fan_out != other.fan_in_fan_out:
        raise Fault(
            "PEM0307",
            f"only one of `{ctx.text(0)}` and `{ctx.text(1)}` has fan_in_fan_out: "
            "they cannot belong to the same modules",
            "check the adapters' configs",
        )
    return replace(type_, base=type_.base if type_.base is not None else other.base)


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
        raise Fault(
            "PEM0307",
            f"site {visible(site)} is {left[site]} in `{ctx.text(0)}` and {right[site]} in "
            f"`{ctx.text(1)}`",
            "the two do not belong to the same model; check their paths",
            (f"{len(clash)} sites differ so",) if len(clash) > 1 else (),
        )


def same_parameters(ctx: Context, left: AdapterNode, right: AdapterNode) -> None:
    """Hold two LoRAs of one space to what ⊕ needs beyond that: equal rank and scale at every site.

    Raises:
        Fault: PEM0308 ranks, PEM0309 scales.
    """
    a, b = ctx.text(0), ctx.text(1)
    exact = exactly(ctx)
    site = _first_difference(left.ranks, right.ranks)
    if site is not None:
        high = max(*left.ranks.values(), *right.ranks.values())
        padded = [
            text if set(x.ranks.values()) == {high} else f"pad({text}, rank={high})"
            for x, text in ((left, ctx.left), (right, b))
        ]
        if left.scales != right.scales:
            padded[1] = f"rescale({padded[1]}, like={a})"
        raise Fault(
            "PEM0308",
            f"{ctx.what} needs equal ranks: at {visible(site)} `{a}` has rank "
            f"{left.ranks[site]}, `{b}` has rank {right.ranks[site]}",
            ctx.combined(*padded),
            (f"or combine what they do, exactly, at any rank: {exact}",),
        )
    site = _first_difference(left.scales, right.scales)
    if site is not None:
        left_scale, right_scale = left.scales[site], right.scales[site]
        raise Fault(
            "PEM0309",
            f"{ctx.what} needs equal scales: at {visible(site)} `{a}` has scale {left_scale:g}, "
            f"`{b}` has {right_scale:g}",
            ctx.combined(ctx.left, f"rescale({b}, like={a})"),
            (f"or combine what they do, exactly, at any scale: {exact}",),
        )


def exactly(ctx: Context) -> str:
    """The expression that combines what the operands do: + or − for ⊕ or ⊖, and * for ⊗, which
    would scale Δ by the square."""
    sign = "-" if ctx.what == "⊖" else "+"
    # A string may hold the characters of .* in a pattern; it stays as it is.
    return re.sub(
        r'"[^"]*"|⊗|\.\*',
        lambda match: match[0] if match[0].startswith('"') else "*",
        f"{ctx.left} {sign} {ctx.text(1)}",
    )


def _first_difference(left: Mapping[str, float], right: Mapping[str, float]) -> str | None:
    if left == right:
        return None
    return next(site for site in left if left[site] != right.get(site))


def need_factors(x: AdapterNode, what: str, text: str) -> None:
    """Raise PEM0311 unless an adapter is s·B·A at every site: some operators need the factors."""
    if not x.type.factored:
        title = " or ".join(r.title for r in PARAMETRISATIONS.values() if r.factored)
        raise Fault(
            "PEM0311",
            f"{what} is defined for {title}; `{text}` is {kinds_text(x.type.kinds)}",
            f"use it on a {title} adapter",
        )
