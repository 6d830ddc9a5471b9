"""A value as PEFT stores it: the tensors with their keys, and the adapter_config.json."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pemlang.build.evaluate import Evaluator
from pemlang.diagnostics import Fault, visible
from pemlang.formats.adapter import FLOATS, PREFIX, Adapter
from pemlang.formats.patterns import look_up, module_of
from pemlang.formats.sites import SiteShape
from pemlang.graph.node import AdapterType, Node
from pemlang.graph.normal import adapter_type
from pemlang.kernels.dtypes import Array, decode, encode
from pemlang.kernels.factors import Factors, zeros
from pemlang.ops.record import scales

Tensor = tuple[str, str, tuple[int, ...], bytes]
"""Key, dtype, shape, little-endian bytes."""

# Fields of the inputs' configs that choose modules; kept when they choose the same ones.
_TARGETING = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


@dataclass(frozen=True)
class PeftAdapter:
    """What a PEFT directory holds.

    Attributes:
        config: the adapter_config.json.
        tensors: sorted by key.
        ranks: the rank at each site written; 0 for (IA)³.
        is_zero: it does nothing: every coefficient is zero, or every B.
        rounding: how much the dtype of the file changes it, relative to its norm: the larger of A
            and B, or l − 1.
    """

    config: Mapping[str, Any]
    tensors: Sequence[Tensor]
    ranks: Mapping[str, int]
    is_zero: bool
    rounding: float


def adapters_of(leaves: Sequence[Node]) -> list[Adapter]:
    """The files behind some leaves."""
    return [leaf.adapter for leaf in leaves if leaf.adapter is not None]


def default_dtype(adapters: Sequence[Adapter]) -> str:
    """The inputs' dtype where they share one; else the widest, at least F32.

    A zero made from nothing is F32.
    """
    found = frozenset[str]().union(*(adapter.layout.dtypes for adapter in adapters))
    if len(found) == 1:
        return next(iter(found))
    return "F64" if "F64" in found else "F32"


def as_peft(
    evaluator: Evaluator,
    node: Node,
    leaves: Sequence[Node],
    heads: Sequence[Node],
    dtype: str | None,
) -> PeftAdapter:
    """Evaluate a node into PEFT's form.

    Args:
        evaluator: of the node's graph.
        node: an adapter.
        leaves: what it is made from.
        heads: leaves with equal heads; the first one's are kept.
        dtype: of the factors; the inputs' own when None.

    Raises:
        Fault: PEM0502 a number that is not finite, PEM0503 one too large for the dtype, PEM0505
            heads that differ, PEM0421 two layers of one nn.MultiheadAttention that differ.
    """
    type_ = adapter_type(node)
    adapters = adapters_of(leaves)
    dtype = dtype or default_dtype(adapters)
    ranks: dict[str, int] = {}
    tensors: list[Tensor] = []
    rounded = _Rounding()
    for site, shape in type_.shapes.items():
        [part] = evaluator.factors([node], site)
        if part is not None:
            ranks[site] = 0 if part.b is None else part.a.shape[0]
            tensors += _tensors(site, shape, part, dtype, rounded)
    is_zero = not ranks
    if is_zero:  # an adapter without tensors would not load
        ranks = dict.fromkeys(type_.shapes, 1 if type_.method == "lora" else 0)
        for site, shape in type_.shapes.items():
            tensors += _tensors(site, shape, _nothing(shape, type_.method), dtype, rounded)
    tensors += _heads(evaluator, heads, ranks)
    config = _common(type_, adapters, heads)
    config |= _targeting(adapters, list(ranks)) | {"fan_in_fan_out": type_.fan_in_fan_out}
    if type_.method == "lora":
        config |= _lora(ranks, {site: 1.0 if is_zero else scales(node)[site] for site in ranks})
    else:
        inputs = [site for site in ranks if type_.shapes[site].layer == "gain_in"]
        outputs = [site for site in ranks if site not in inputs]
        config |= {"feedforward_modules": _feedforward(adapters, config, inputs, outputs)}
    idle = type_.method == "lora" and not any(scales(node)[site] for site in ranks)
    dead = is_zero or idle or rounded.is_zero
    return PeftAdapter(dict(sorted(config.items())), sorted(tensors), ranks, dead, rounded.worst)


class _Rounding:
    """What encoding changes, kept apart for A, B and l − 1."""

    def __init__(self) -> None:
        self._lost: defaultdict[str, float] = defaultdict(float)
        self._norm: defaultdict[str, float] = defaultdict(float)
        self._kept: Counter[str] = Counter()

    def encode(self, what: str, array: Array, dtype: str, zero: float = 0.0) -> bytes:
        """The bytes of zero + array."""
        data = encode(array + zero if zero else array, dtype)
        exact = array.astype(np.float64)
        read = decode(memoryview(data), dtype, array.shape, np.dtype(np.float64)) - zero
        self._lost[what] += float(np.sum((read - exact) ** 2))
        self._norm[what] += float(np.sum(exact**2))
        self._kept[what] += int(read.any())
        return data

    @property
    def worst(self) -> float:
        return max(
            (math.sqrt(self._lost[w] / norm) for w, norm in self._norm.items() if norm), default=0.0
        )

    @property
    def is_zero(self) -> bool:
        return not all(self._kept.values())


def _nothing(shape: SiteShape, method: str) -> Factors:
    if method == "ia3":
        return Factors(np.zeros(shape.a), None)
    return zeros(shape.a, shape.b, 1, 1.0)


def _tensors(
    site: str, shape: SiteShape, part: Factors, dtype: str, rounded: _Rounding
) -> list[Tensor]:
    if part.b is None:
        data = rounded.encode("l", part.a, dtype, zero=1.0)
        return [(f"{PREFIX}{site}.ia3_l", dtype, part.a.shape, data)]
    ends = ("lora_A.weight", "lora_B.weight")
    if shape.layer == "embedding":
        ends = ("lora_embedding_A", "lora_embedding_B")
    return [
        (f"{PREFIX}{site}.{end}", dtype, array.shape, rounded.encode(end, array, dtype))
        for end, array in zip(ends, (part.a, part.b), strict=True)
    ]


def _heads(evaluator: Evaluator, heads: Sequence[Node], sites: Collection[str]) -> list[Tensor]:
    adapters = adapters_of(heads)
    if not adapters:
        return []
    first = adapters[0]
    found: list[Tensor] = []
    for key, entry in first.layout.heads.items():
        raw = evaluator.tensors.raw(first, key)
        for other in adapters[1:]:
            if evaluator.tensors.raw(other, key) != raw:
                raise Fault(
                    "PEM0505",
                    f"the adapters' heads differ in {visible(key)}: a sum has no meaning there",
                    "choose whose to keep: with heads=NAME",
                )
        if entry.dtype in FLOATS:
            evaluator.tensors.array(first, key)  # raises where a number is not finite
        found.append((_head_key(key, sites), entry.dtype, entry.shape, bytes(raw)))
    return found


def _head_key(key: str, sites: Collection[str]) -> str:
    """The key of a whole tensor: PEFT moves the weight of a module that it adapts into its
    `base_layer`."""
    name, _, end = key.removeprefix(PREFIX).rpartition(".")
    module = name.removesuffix(".base_layer")
    return f"{PREFIX}{module}{'.base_layer' * (module in sites)}.{end}"


# --- configs -------------------------------------------------------------------------------


def _shared(adapters: Sequence[Adapter], field: str) -> Any:
    """A field all inputs agree on; None otherwise."""
    values = [adapter.config.raw.get(field) for adapter in adapters]
    return values[0] if values and all(value == values[0] for value in values) else None


def _common(
    type_: AdapterType, adapters: Sequence[Adapter], heads: Sequence[Node]
) -> dict[str, Any]:
    chosen = adapters_of(heads)
    names = sorted(chosen[0].config.modules_to_save) if chosen else None
    return {
        "peft_type": {"lora": "LORA", "ia3": "IA3"}[type_.method],
        "task_type": _shared(adapters, "task_type"),
        "auto_mapping": _shared(adapters, "auto_mapping"),
        "base_model_name_or_path": type_.base,
        "revision": _shared(adapters, "revision"),
        "inference_mode": True,
        "modules_to_save": names,
    }


def _targeting(adapters: Sequence[Adapter], sites: Sequence[str]) -> dict[str, Any]:
    """The inputs' own target_modules when they say the same and every site is kept; else the
    full names of the sites."""
    specs = [
        {field: _unordered(adapter.config.raw.get(field)) for field in _TARGETING}
        for adapter in adapters
    ]
    same = all(spec == specs[0] for spec in specs)
    whole = all(set(adapter.layout.shapes) == set(sites) for adapter in adapters)
    if specs and same and whole:
        return {field: value for field, value in specs[0].items() if value is not None}
    kept = {module_of(site) for site in sites}
    known = {module_of(site) for adapter in adapters for site in adapter.layout.shapes}
    return {"target_modules": _names(kept, ".", known - kept)}


def _names(sites: Collection[str], before: str, others: Collection[str]) -> list[str] | str:
    """Names of sites that name none of the others: a list, of which PEFT takes every module
    whose name ends in an entry after `before`; a pattern where another name ends so."""
    ends = tuple(before + site for site in sites)
    if any(other.endswith(ends) for other in others):
        return "|".join(re.escape(site) for site in sorted(sites))
    return sorted(sites)


def _unordered(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value


def _feedforward(
    adapters: Sequence[Adapter],
    config: Mapping[str, Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Any:
    """Which targets are feed-forward modules: named as target_modules are."""
    raws = [adapter.config.raw for adapter in adapters]
    chosen = config.get("target_modules")
    kept = all(_unordered(raw.get("target_modules")) == chosen for raw in raws)
    own = [_unordered(raw.get("feedforward_modules")) for raw in raws]
    if own and kept and all(value == own[0] for value in own):
        return own[0]
    return _names(inputs, "", outputs)


def _by_module(values: Mapping[str, float]) -> dict[str, Any]:
    """Ranks or scales by the name a config has for a site; raises PEM0421 where two sites of one
    name differ."""
    found: dict[str, Any] = {}
    for site, value in values.items():
        name = module_of(site)
        if found.setdefault(name, value) != value:
            raise Fault(
                "PEM0421",
                f"{visible(name)} is an nn.MultiheadAttention: PEFT has one rank and one α for "
                "both its layers, and here they differ",
                "give both layers the same weight and the same rank",
            )
    return found


def _lora(ranks: Mapping[str, int], scales: Mapping[str, float]) -> dict[str, Any]:
    """r, lora_alpha and their patterns, so that PEFT finds each site's rank and scale."""
    ranks, scales = _by_module(ranks), _by_module(scales)
    alphas = {site: _alpha(scales[site], rank) for site, rank in ranks.items()}
    r = Counter(ranks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    patterns: dict[str, dict[str, Any]] = {}
    for field, values, usual in (("rank_pattern", ranks, r), ("alpha_pattern", alphas, alpha)):
        # PEFT takes the first key that a name ends with; in a file the keys are sorted.
        pattern = {site: values[site] for site in sorted(ranks) if values[site] != usual}
        if any(look_up(pattern, site, usual) != values[site] for site in ranks):
            pattern = {f"^{re.escape(site)}": value for site, value in pattern.items()}
        patterns[field] = pattern
    return {
        "r": r,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        **patterns,
    }


def _alpha(scale: float, rank: int) -> float | int:
    """The α for which α/rank is the scale, to the last bit where there is one."""
    alpha = scale * rank
    for near in (alpha, math.nextafter(alpha, math.inf), math.nextafter(alpha, -math.inf)):
        if near / rank == scale:
            alpha = near
            break
    return int(alpha) if alpha.is_integer() else alpha
