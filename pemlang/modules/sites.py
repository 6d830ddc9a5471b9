"""What an adapter changes: its sites and their shapes."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

_LAYER = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")


def layer_of(site: str) -> int | None:
    """The number of the layer a site is in: the first whole number in its dotted name."""
    match = _LAYER.search(site)
    return int(match[1]) if match and len(match[1]) < 10 else None


def layer_start(site: str) -> int | None:
    """Where that number stands in the name."""
    match = _LAYER.search(site)
    return match.start(1) if match else None


EXPERTS = "experts"
"""The layer of a site that is a parameter with a matrix of each expert."""

_BIAS = ".bias"


def bias_of(module: str) -> str:
    """The site of a module's bias: the tensor that it is in a model."""
    return module + _BIAS


def module_of_bias(site: str) -> str:
    """The module whose bias a site is by its name; of any other the empty name."""
    return site.removesuffix(_BIAS) if site.endswith(_BIAS) else ""


class SiteShape(NamedTuple):
    """The shape of one site, with the rank left out.

    kind: the name of the parametrisation.
    layer: `linear`, `embedding`, `conv1d`, `conv2d`, `conv3d` for LoRA, `experts` for one of each
        expert; `gain_out`, `gain_in` for (IA)³ (a vector over a module's outputs, or over its
        inputs); `dense` for a tensor of a model, that of a bias too; for a whole weight of a module
        what its LoRA has, or `norm`.
    a: LoRA: the shape of A without its rank axis, (in,) or (in, k, k), of experts (experts, in).
        Others: the shape of their tensor.
    b: LoRA: the shape of B without its rank axis, (out,) or (out, 1, 1), of experts (out, experts).
        Others: ().
    """

    kind: str
    layer: str
    a: tuple[int, ...]
    b: tuple[int, ...] = ()

    @property
    def full_rank(self) -> int:
        """min(out, in): no LoRA of this site needs a larger rank."""
        if self.layer == EXPERTS:
            return min(self.a[1], self.b[0])
        return min(math.prod(self.a), math.prod(self.b))

    @property
    def outputs(self) -> int:
        """The rows of B, or of what is one tensor."""
        return (self.b or self.a)[0]

    def with_outputs(self, count: int) -> SiteShape:
        """The same with as many outputs."""
        if self.b:
            return self._replace(b=(count, *self.b[1:]))
        return self._replace(a=(count, *self.a[1:]))

    def __str__(self) -> str:
        if self.layer == EXPERTS:
            return f"{self.a[0]} {self.layer} of {self.b[0]}×{self.a[1]}"
        if self.b:
            return f"{self.layer} {math.prod(self.b)}×{math.prod(self.a)}"
        return f"{self.layer} {'×'.join(map(str, self.a))}"


LORA_LAYERS = {2: "linear", 3: "conv1d", 4: "conv2d", 5: "conv3d"}
"""Kinds of layers that have a LoRA, by the axes of their weights."""


def layer_of_weight(weight: tuple[int, ...]) -> str | None:
    """The kind of layer whose weight has a shape, as far as that tells; a vector is a norm's."""
    return {1: "norm", **LORA_LAYERS}.get(len(weight))


def lora_shape(a: tuple[int, ...], b: tuple[int, ...]) -> SiteShape | None:
    """The shape of a site by those of its A (r, in, …) and B (out, r, 1, …), of no embedding; None
    where they do not fit each other."""
    fits = len(a) == len(b) and all(n == 1 for n in b[2:])
    if not fits or len(a) not in LORA_LAYERS or b[1] != a[0]:
        return None
    return SiteShape("lora", LORA_LAYERS[len(a)], a[1:], (b[0], *b[2:]))


class Shapes(Mapping[str, SiteShape]):
    """The sites of an adapter in name order, with their shapes. Immutable, compared by content."""

    def __init__(self, sites: Mapping[str, SiteShape]) -> None:
        self._sites = dict(sorted(sites.items()))
        self._hash: int | None = None

    def __getitem__(self, site: str) -> SiteShape:
        return self._sites[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def __contains__(self, site: object) -> bool:
        return site in self._sites

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._sites.items()))
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Shapes) and self._sites == other._sites

    @cached_property
    def digest(self) -> str:
        """The same for equal shapes. A kind that all sites share is told with the type."""
        mixed = len(self.kinds) > 1
        told = {
            site: [shape.layer, shape.a, shape.b, *([shape.kind] * mixed)]
            for site, shape in self._sites.items()
        }
        return hashlib.sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Its sites but the biases that are beside others."""
        return tuple(site for site in self._sites if module_of_bias(site) not in self._sites)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The names of the parametrisations of its sites."""
        return tuple(sorted({shape.kind for shape in self._sites.values()}))

    def only(self, sites: frozenset[str]) -> Shapes:
        """These sites alone."""
        if all(site in sites for site in self._sites):
            return self
        return Shapes({site: shape for site, shape in self._sites.items() if site in sites})
