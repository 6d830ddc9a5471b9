"""Dense arrays with what rounding may have done to them; pairs of factors; sites chosen."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from support import delta, tensors_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sized:
    """An array, or a number, and its size."""

    value: Any
    size: Any

    def __add__(self, other: Sized) -> Sized:
        return Sized(self.value + other.value, self.size + other.size)

    def __mul__(self, other: Sized) -> Sized:
        return Sized(self.value * other.value, self.size * other.size)

    def __matmul__(self, other: Sized) -> Sized:
        return Sized(self.value @ other.value, self.size @ other.size)

    def __neg__(self) -> Sized:
        return Sized(-self.value, self.size)

    def __sub__(self, other: Sized) -> Sized:
        return Sized(self.value - other.value, self.size + other.size)

    def __truediv__(self, other: Sized) -> Sized:
        return self * Sized(1 / other.value, other.size / other.value**2)


def sized(value: Any) -> Sized:
    return Sized(value, abs(value))


Dense = dict[str, Sized]


@dataclass(frozen=True)
class Pair:
    """A, B and the scale at a site."""

    a: Sized
    b: Sized
    scale: float

    def times(self, alpha: Sized, beta: Sized) -> Pair:
        return Pair(self.a * alpha, self.b * beta, self.scale)

    def plus(self, other: Pair) -> Pair:
        assert math.isclose(self.scale, other.scale)
        return Pair(self.a + other.a, self.b + other.b, self.scale)

    def dense(self) -> Sized:
        return sized(self.scale) * (self.b @ self.a)


ONE = sized(1.0)


def layer(site: str) -> int:
    number = re.search(r"(?:^|\.)(\d+)(?:\.|$)", site)
    assert number is not None
    return int(number[1])


def chosen(selector: tuple[Any, ...], sites: Iterable[str]) -> frozenset[str]:
    """The sites that globs or layers leave."""
    kind, *rest = selector
    if kind == "layers":
        return frozenset(s for s in sites if rest[0] <= layer(s) <= rest[1])
    return frozenset(s for s in sites if any(fnmatch.fnmatchcase(s, glob) for glob in rest))


def pairs_in(directory: Path) -> dict[str, Pair]:
    """A, B and scale at each site of a LoRA directory: the scale is what makes s·B·A its Δ."""
    pairs: dict[str, Pair] = {}
    tensors = tensors_of(directory)
    for site, dense in delta(directory).items():
        a, b = (
            next(v for k, v in tensors.items() if f"{site}.lora_{n}." in k).double().numpy()
            for n in "AB"
        )
        product = b @ a
        at = np.unravel_index(np.argmax(np.abs(product)), product.shape)
        scale = float(dense[at] / product[at]) if product[at] else 1.0
        pairs[site] = Pair(sized(a), sized(b), scale)
    return pairs


def padded(pair: Pair, rank: int) -> Pair:
    more = rank - pair.a.value.shape[0]
    a = np.pad(pair.a.value, ((0, more), (0, 0)))
    b = np.pad(pair.b.value, ((0, 0), (0, more)))
    return Pair(
        Sized(a, np.pad(pair.a.size, ((0, more), (0, 0)))),
        Sized(b, np.pad(pair.b.size, ((0, 0), (0, more)))),
        pair.scale,
    )


def rescaled(pair: Pair, scale: float) -> Pair:
    return Pair(pair.a, pair.b * sized(pair.scale / scale), scale)


def row_overlap(x: Array, y: Array) -> float:
    """‖Q₁ᵀQ₂‖²/min(rank) of the row spaces, through their projections."""
    spaces = [np.linalg.pinv(a, rcond=1e-10) @ a for a in (x, y)]
    ranks = [round(float(np.trace(p))) for p in spaces]
    return float(np.sum(spaces[0] * spaces[1])) / min(ranks) if min(ranks) else 0.0
