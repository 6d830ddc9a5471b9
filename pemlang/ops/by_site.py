"""Operators that take numbers, given schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction

from pemlang.diagnostics import Fault
from pemlang.graph.node import AdapterNode
from pemlang.graph.normal import linear
from pemlang.graph.numbers import shown
from pemlang.ops.exact import restrict
from pemlang.ops.linear import alike
from pemlang.ops.record import Context, Parameter
from pemlang.ops.schedule import Schedule

Rule = Callable[..., AdapterNode]


def by_site(params: Sequence[Parameter], rule: Rule) -> Rule:
    """A type rule of a method on numbers as one that takes schedules in their place.

    Law: a method, which treats each site by itself, is the sum of what it is at the sites that have
    the same numbers.
    """

    def over_sites(ctx: Context, *given: object) -> AdapterNode:
        schedules = dict.fromkeys(x for x in each(given) if isinstance(x, Schedule))
        if not schedules:
            return rule(ctx, *given)
        ctx.items = ctx.items or ctx.texts
        like = alike(ctx, [x for x in each(given) if isinstance(x, AdapterNode)])
        sites = tuple(like.shapes)
        ctx.graph.count(len(schedules) * len(sites))
        numbers = {x: x.over(ctx.graph, sites) for x in schedules}
        groups: dict[tuple[object, ...], list[str]] = {}
        for site in sites:
            here = tuple(number[site] for number in numbers.values())
            groups.setdefault(here, []).append(site)
        parts = []
        for key, group in groups.items():
            by = dict(zip(numbers, key, strict=True))
            fitted = [_fitted(ctx, value, by, frozenset(group)) for value in given]
            for param, value in zip(params, fitted, strict=True):
                _hold_within(ctx, param, value)
            parts.append((Fraction(1), rule(ctx, *fitted)))
        return linear(ctx.graph, like.type, parts)

    return over_sites


def each(given: Sequence[object]) -> Iterator[object]:
    """All that is given, each item of a list by itself."""
    for value in given:
        yield from value if isinstance(value, tuple) else (value,)


def _fitted(
    ctx: Context, value: object, by: Mapping[Schedule, object], sites: frozenset[str]
) -> object:
    """An argument at some sites, at each of which a schedule has the same number."""
    if isinstance(value, tuple):
        return tuple(_fitted(ctx, item, by, sites) for item in value)
    if isinstance(value, AdapterNode):
        return restrict(ctx, value, sites)
    return by[value] if isinstance(value, Schedule) else value


def _hold_within(ctx: Context, param: Parameter, value: object) -> None:
    """Raise PEM0326 for a number of a schedule that a parameter does not take."""
    if param.within and isinstance(value, Fraction) and value not in param.within:
        raise Fault(
            "PEM0326",
            f"{param.name} is {shown(value)} at some sites: it takes {param.within}",
            f"give {ctx.what} a schedule within that",
        )
