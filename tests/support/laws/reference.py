"""What a drawn expression means, computed apart from the compiler: dense, in float64.

The exact family acts on Δ (on g = l − 1 for (IA)³), the parameter-wise family on the pair (A, B).
Beside each number goes its size, the same sum with every term positive: the error that rounding
may have made is a small share of it.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from support import config_of, gains
from support.laws.arrays import (
    ONE,
    Dense,
    Pair,
    Sized,
    chosen,
    layer,
    padded,
    pairs_in,
    rescaled,
    row_overlap,
    sized,
)
from support.laws.expressions import Tree


class Reference:
    """Interprets trees over the adapters of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._dense: dict[str, Dense] = {}
        self._pairs: dict[str, dict[str, Pair]] = {}

    # --- leaves ----------------------------------------------------------------------------

    def dense_of(self, name: str) -> Dense:
        """Δ or g of an adapter of the folder."""
        if name not in self._dense:
            at = self._folder / name
            if config_of(at)["peft_type"] == "IA3":
                self._dense[name] = {site: sized(x - 1) for site, x in gains(at).items()}
            else:
                self._dense[name] = {s: pair.dense() for s, pair in self.pair_of(name).items()}
        return self._dense[name]

    def pair_of(self, name: str) -> dict[str, Pair]:
        """A, B and scale of a LoRA of the folder; the scale is what makes s·B·A its Δ."""
        if name not in self._pairs:
            self._pairs[name] = pairs_in(self._folder / name)
        return self._pairs[name]

    # --- the exact family ------------------------------------------------------------------

    def delta(self, tree: Tree) -> Dense:
        """Δ (or g) at every site."""
        if tree.op in ("⊕", "⊖", "⊗", "pneg") or _names(tree, "fold", "merge"):
            return self._parameters(tree)
        act: Callable[[Tree], Dense] = getattr(self, f"_{_WORDS.get(tree.op, tree.op)}")
        return act(tree)

    def _leaf(self, tree: Tree) -> Dense:
        return dict(self.dense_of(tree.data))

    def _let(self, tree: Tree) -> Dense:
        return self.delta(tree.args[0])

    def _neg(self, tree: Tree) -> Dense:
        return {site: -x for site, x in self.delta(tree.args[0]).items()}

    def _plus(self, tree: Tree) -> Dense:
        left, right = (self.delta(arg) for arg in tree.args)
        assert left.keys() == right.keys()
        sign = -1.0 if tree.op == "-" else 1.0
        return {site: left[site] + sized(sign) * right[site] for site in left}

    def _times(self, tree: Tree) -> Dense:
        left, right = tree.args
        x, by = (right, left) if is_adapter(right) else (left, right)
        delta = self.delta(x)
        factors = self.factors(by, delta)
        if tree.op == "/":
            factors = {site: ONE / factor for site, factor in factors.items()}
        return {site: factors[site] * value for site, value in delta.items()}

    def _select(self, tree: Tree) -> Dense:
        delta = self.delta(tree.args[0])
        kept = self.kept(tree, delta)
        return {site: value for site, value in delta.items() if site in kept}

    def kept(self, tree: Tree, sites: Mapping[str, object]) -> frozenset[str]:
        """The sites that the selection at the root of a tree leaves."""
        if tree.data[0] == "like":
            return frozenset(self.delta(tree.data[1])) & sites.keys()
        return chosen(tree.data, sites)

    def _call(self, tree: Tree) -> Dense:
        name, options = tree.data
        deltas = [self.delta(arg) for arg in tree.args if is_adapter(arg)]
        if name in ("pad", "rescale", "compress"):
            return deltas[0]
        if name == "join":
            return reduce(_union, deltas)
        weights = {"blend": "by", "undo": "by", "unlearn": "weight"}
        by = float(options.get(weights.get(name), {"blend": 0.25}.get(name, 1)))
        if name == "eased":
            factors = self.factors(tree.args[1], deltas[0])
            return {site: factors[site] * x for site, x in deltas[0].items()}
        if name == "unlearn":
            return {site: sized(-by) * x for site, x in deltas[0].items()}
        first, second = (sized(by), sized(1 - by)) if name == "blend" else (ONE, sized(-by))
        return {site: first * deltas[0][site] + second * deltas[1][site] for site in deltas[0]}

    # --- the parameter-wise family ---------------------------------------------------------

    def _parameters(self, tree: Tree) -> Dense:
        if self.is_gain(tree):
            return self._gains(tree)
        return {site: pair.dense() for site, pair in self.pair(tree).items()}

    def is_gain(self, tree: Tree) -> bool:
        """Whether an expression is (IA)³."""
        if tree.op == "leaf":
            return "lora_alpha" not in config_of(self._folder / tree.data)
        return self.is_gain(next(arg for arg in tree.args if is_adapter(arg)))

    def _gains(self, tree: Tree) -> Dense:
        """⊕ ⊖ ⊗ of (IA)³: l₁ + l₂ − 1, 2 − l and 1 + λ(l − 1), which is g's own arithmetic."""
        total: Dense = {}
        for _, beta, x in mixture(tree):
            part = self.delta(x)
            by = self._product(beta, part)
            total = _union(total, {site: by[site] * value for site, value in part.items()})
        return total

    def pair(self, tree: Tree) -> dict[str, Pair]:
        """A and B at every site."""
        if tree.op == "leaf":
            return dict(self.pair_of(tree.data))
        if tree.op == "let":
            return self.pair(tree.args[0])
        if tree.op == "select":
            pairs = self.pair(tree.args[0])
            return {site: pairs[site] for site in pairs if site in self.kept(tree, pairs)}
        if tree.op == "*":
            by, x = tree.args
            pairs = self.pair(x)
            factors = self.factors(by, pairs)
            return {site: pair.times(ONE, factors[site]) for site, pair in pairs.items()}
        if _names(tree, "pad"):
            return {s: padded(p, tree.data[1]["rank"]) for s, p in self.pair(tree.args[0]).items()}
        if _names(tree, "rescale"):
            pairs, like = (self.pair(arg) for arg in tree.args)
            return {site: rescaled(pair, like[site].scale) for site, pair in pairs.items()}
        return self._mixed(tree)

    def _mixed(self, tree: Tree) -> dict[str, Pair]:
        total: dict[str, Pair] = {}
        for alpha, beta, x in mixture(tree):
            part = self.pair(x)
            alphas, betas = self._product(alpha, part), self._product(beta, part)
            for site, pair in part.items():
                term = pair.times(alphas[site], betas[site])
                total[site] = total[site].plus(term) if site in total else term
        return total

    def _product(self, factors: Iterable[Tree | float], sites: Mapping[str, object]) -> Dense:
        product: Dense = dict.fromkeys(sites, ONE)
        for factor in factors:
            by = (
                dict.fromkeys(sites, sized(factor))
                if isinstance(factor, float)
                else self.factors(factor, sites)
            )
            product = {site: product[site] * by[site] for site in sites}
        return product

    # --- numbers ---------------------------------------------------------------------------

    def factors(self, tree: Tree, sites: Mapping[str, object]) -> Dense:
        """The number of a number or schedule at each site."""
        values = {site: self.number(tree, site, sites) for site in sites}
        return {s: x if isinstance(x, Sized) else sized(float(x)) for s, x in values.items()}

    def number(self, tree: Tree, site: str, sites: Mapping[str, object]) -> Fraction | Sized:
        """The exact number at a site, or the measured one."""
        if tree.op == "number":
            return Fraction(str(tree.data).replace("_", ""))
        if tree.op == "call" and tree.data[0] != "ramp":
            return self.measure(tree)
        values = [self.number(arg, site, sites) for arg in tree.args]
        if tree.op == "neg":
            return -values[0]
        if tree.op == "per":
            return next(
                (
                    value
                    for glob, value in zip(tree.data, values, strict=False)
                    if fnmatch.fnmatchcase(site, glob)
                ),
                values[-1],
            )
        if tree.op in ("ramp", "call", "steps"):
            return _by_depth(tree, values, site, sites)
        if any(isinstance(value, Sized) for value in values):
            values = [x if isinstance(x, Sized) else sized(float(x)) for x in values]
        return _ARITHMETIC[tree.op](*values)

    def measure(self, tree: Tree) -> Sized:
        """A measure of dense Δ."""
        name, options = tree.data
        xs = [self.delta(arg) for arg in tree.args]
        if name == "init_overlap":
            pairs = [self.pair(arg) for arg in tree.args]
            shares = [row_overlap(*(p[site].a.value for p in pairs)) for site in pairs[0]]
            return sized(float(np.mean(shares)))
        if name == "energy":
            squares = [np.linalg.svd(x.value, compute_uv=False) ** 2 for x in xs[0].values()]
            kept = sum(float(s[: options["rank"]].sum()) for s in squares)
            return sized(kept / sum(float(s.sum()) for s in squares))
        flat = [np.concatenate([x[site].value.ravel() for site in sorted(x)]) for x in xs]
        if name == "cosine":
            return Sized(flat[0] @ flat[1] / math.prod(map(np.linalg.norm, flat)), 1.0)
        size = sum(float(np.linalg.norm(s.size)) for x in xs for s in x.values())
        return Sized(
            float(np.linalg.norm(flat[0] - flat[1] if name == "distance" else flat[0])), size
        )


_WORDS = {"+": "plus", "-": "plus", "*": "times", "/": "times"}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
}
MEASURES = ("cosine", "distance", "norm", "energy", "init_overlap")


def _names(tree: Tree, *names: str) -> bool:
    return tree.op == "call" and tree.data[0] in names


def is_adapter(tree: Tree) -> bool:
    """Whether a tree is an adapter, not a number or a schedule."""
    if tree.op in ("leaf", "select"):
        return True
    if tree.op in ("number", "steps", "per") or _names(tree, "ramp", *MEASURES):
        return False
    return any(is_adapter(arg) for arg in tree.args)


def _union(x: Dense, y: Dense) -> Dense:
    both = {site: x[site] + y[site] for site in x.keys() & y.keys()}
    return {**x, **y, **both}


def _by_depth(tree: Tree, values: list[Any], site: str, sites: Iterable[str]) -> Fraction:
    """A ramp or steps: how deep the site's layer lies among the sites decides."""
    layers = sorted({layer(s) for s in sites})
    if tree.op == "steps":
        return values[layers.index(layer(site)) * len(values) // len(layers)]
    span = max(1, layers[-1] - layers[0])
    return values[0] + Fraction(layer(site) - layers[0], span) * (values[1] - values[0])


def mixture(tree: Tree) -> list[tuple[list[Tree | float], list[Tree | float], Tree]]:
    """An expression of ⊕ ⊖ ⊗ as terms: the factors of A, those of B, and of what."""
    if tree.op == "⊗":
        left, right = tree.args
        x, by = (right, left) if is_adapter(right) else (left, right)
        return [([*a, by], [*b, by], leaf) for a, b, leaf in mixture(x)]
    if tree.op == "pneg":
        return [(a, [*b, -1.0], leaf) for a, b, leaf in mixture(tree.args[0])]
    if tree.op in ("⊕", "⊖") or _names(tree, "fold"):
        left, right = (mixture(arg) for arg in tree.args)
        sign = [] if tree.op == "⊕" else [-1.0]
        return [*left, *((a, [*b, *sign], leaf) for a, b, leaf in right)]
    if _names(tree, "merge"):
        by = float(tree.data[1].get("weight", 0.5))
        weights = zip((by, 1 - by), tree.args, strict=True)
        return [([*a, w], [*b, w], leaf) for w, x in weights for a, b, leaf in mixture(x)]
    return [([], [], tree)]
