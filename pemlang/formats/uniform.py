"""One rank and one scale for all sites of an output: `r` and `lora_alpha` say all of both then."""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Iterable, Mapping

from pemlang.formats.adapter import alpha_of
from pemlang.formats.peft_patterns import module_of
from pemlang.formats.readers import OutputReader
from pemlang.modules import PARAMETRISATIONS, Shapes

LITTLE = 1.25
"""Rows of zeros that make an output no larger than this many times are added unasked."""

_EXPERT = re.compile(r"\.experts\.\d+\.")


def experts_apart(sites: Iterable[str]) -> list[str]:
    """Those of some sites that are each of one expert. Where transformers 5 has all experts of a
    layer in one parameter, PEFT stacks them, by `r` and `lora_alpha` alone."""
    return [site for site in sites if _EXPERT.search(site)]


def equal_ranks(
    shapes: Shapes, ranks: Mapping[str, int], reader: OutputReader | None
) -> Mapping[str, int]:
    """The ranks that sites are stored with: one for all where a reader needs that, or where nobody
    says who reads it and it costs little; else as they are, but for sites that are stored together.

    Args:
        shapes, ranks: of the sites.
        reader: who is to load it, where that is known.
    """
    same = dict.fromkeys(ranks, max(ranks.values()))
    if reader is not None:
        wanted = reader.one_rank
    else:
        wanted = _numbers(shapes, same) <= LITTLE * _numbers(shapes, ranks)
    if wanted:
        return same
    together: dict[str, int] = {}
    for site, rank in ranks.items():
        name = _stored_with(site)
        together[name] = max(rank, together.get(name, 0))
    return {site: together[_stored_with(site)] for site in ranks}


def equal_scales(scales: Mapping[str, float]) -> Mapping[str, float]:
    """The most common of some scales for all sites: B carries the rest. As they are where all are
    0, which no B can make up for."""
    counts = Counter(scale for scale in scales.values() if scale)
    return dict.fromkeys(scales, counts.most_common(1)[0][0]) if counts else scales


def equal_alphas(ranks: Mapping[str, int], scales: Mapping[str, float]) -> Mapping[str, float]:
    """Scales for which all sites have one α, the most common one of what they have."""
    alphas = Counter(
        float32(alpha_of(scales[site], rank)) for site, rank in ranks.items() if scales[site]
    )
    [(alpha, _)] = alphas.most_common(1) or [(1.0, 0)]
    return {site: alpha / rank for site, rank in ranks.items()}


def float32(number: float) -> float:
    """The nearest number of float32; 1 where there is none but zero or infinity."""
    try:
        near = float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        return 1.0
    return near or 1.0


def module_scales(scales: Mapping[str, float]) -> Mapping[str, float]:
    """One scale for the sites of a module: PEFT has one for both layers of an
    nn.MultiheadAttention; and one for all experts."""
    own: dict[str, float] = {}
    for site, scale in scales.items():
        own[module_of(site)] = own.get(module_of(site)) or scale
    modules = {site: own[module_of(site)] for site in scales}
    return {**modules, **equal_scales({site: modules[site] for site in experts_apart(scales)})}


def _stored_with(site: str) -> str:
    """What sites of one rank have in common: being of one expert each, or one module; PEFT has one
    rank for both layers of an nn.MultiheadAttention."""
    return "" if experts_apart([site]) else module_of(site)


def _numbers(shapes: Shapes, ranks: Mapping[str, int]) -> int:
    """How many numbers the factors hold."""
    return sum(
        math.prod(factor)
        for site, rank in ranks.items()
        for factor in PARAMETRISATIONS[shapes[site].kind].shapes(shapes[site], rank)
    )
