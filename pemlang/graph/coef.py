"""Coefficients of a normal form: one number, or a number for each site."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from fractions import Fraction

from pemlang.graph.dag import Graph
from pemlang.graph.node import Coef, Num
from pemlang.graph.numbers import combine

ONE = Fraction(1)


def at(coef: Coef, site: str) -> Num:
    """The number at a site."""
    if not isinstance(coef, tuple):
        return coef
    index = bisect_left(coef, (site,))  # the shorter tuple sorts first
    present = index < len(coef) and coef[index][0] == site
    return coef[index][1] if present else Fraction(0)


def expand(coef: Coef, sites: Mapping[str, object]) -> dict[str, Num]:
    """A number for every site."""
    if isinstance(coef, tuple):
        return dict(coef)
    return dict.fromkeys(sites, coef)


def collapse(numbers: Mapping[str, Num], sites: Mapping[str, object]) -> Coef:
    """The one canonical form: a single number where all of `sites` have the same one."""
    kept = {site: number for site, number in numbers.items() if site in sites and number != 0}
    values = set(kept.values())
    if not kept:
        return Fraction(0)
    if len(values) == 1 and len(kept) == len(sites):
        return values.pop()
    return tuple(sorted(kept.items(), key=lambda item: item[0]))


def scaled(graph: Graph, coef: Coef, by: Coef) -> Coef:
    """The product of two coefficients, site by site. Law: 1·c = c."""
    if coef == 1 or by == 1:
        return by if coef == 1 else coef
    if not isinstance(coef, tuple) and not isinstance(by, tuple):
        return combine(graph, "*", coef, by)
    if not isinstance(coef, tuple):
        coef, by = by, coef
    assert isinstance(coef, tuple)
    graph.count(len(coef))
    factors = dict(by) if isinstance(by, tuple) else None
    products = []
    for site, number in coef:
        factor = by if factors is None else factors.get(site, Fraction(0))
        assert not isinstance(factor, tuple)
        product = combine(graph, "*", number, factor)
        if product != 0:
            products.append((site, product))
    return tuple(products)


def added(graph: Graph, left: Coef, right: Coef, sites: Mapping[str, object]) -> Coef:
    """The sum of two coefficients over the same sites."""
    if not isinstance(left, tuple) and not isinstance(right, tuple):
        return combine(graph, "+", left, right)
    total = expand(left, sites)
    graph.count(len(total))
    for site, number in expand(right, sites).items():
        total[site] = combine(graph, "+", total.get(site, Fraction(0)), number)
    return collapse(total, sites)


def fitted(coef: Coef, old: Mapping[str, object], new: Mapping[str, object]) -> Coef:
    """A coefficient over the sites `old` as one over `new`: zero where it was not."""
    if not new:
        return Fraction(0)
    if not isinstance(coef, tuple) and (old is new or all(site in old for site in new)):
        return coef
    return collapse(expand(coef, old), new)
