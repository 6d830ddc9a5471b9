"""A value as PEFT stores it: the names, dtypes and shapes of its tensors, and the
adapter_config.json."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pemlang.diagnostics import Fault, visible
from pemlang.formats.peft import PREFIX, Adapter
from pemlang.formats.peft_patterns import look_up, module_of
from pemlang.graph.node import AdapterType, Node
from pemlang.graph.normal import adapter_type
from pemlang.modules.factors import Factors
from pemlang.modules.sites import SiteShape
from pemlang.ops.record import scales

# Fields of the inputs' configs that choose modules; kept when they choose the same ones.
_TARGETING = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of an output.

    Attributes:
        key, dtype, shape: as in the file.
        site: what it belongs to; None for a head.
        what: the factor it is, `a`, `b` or `l`; for a head its key in the inputs.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    site: str | None
    what: str


@dataclass(frozen=True)
class PeftLayout:
    """All of a PEFT directory but the numbers in its tensors.

    Attributes:
        config: the adapter_config.json.
        tensors: sorted by key.
        ranks: the rank at each site written; 0 for (IA)³.
        heads: adapters whose heads must be equal; the first one's are written.
        idle: it does nothing whatever its tensors hold: every coefficient or scale is zero.
    """

    config: Mapping[str, Any]
    tensors: Sequence[Tensor]
    ranks: Mapping[str, int]
    heads: Sequence[Adapter]
    idle: bool


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


def peft_layout(
    node: Node,
    leaves: Sequence[Node],
    heads: Sequence[Node],
    dtype: str | None,
    factors: Mapping[str, Factors],
) -> PeftLayout:
    """What the directory of an output holds.

    Args:
        node: an adapter.
        leaves: what it is made from.
        heads: leaves with equal heads; the first one's are kept.
        dtype: of the factors; the inputs' own when None.
        factors: its parameters at each site where it is not zero.

    Raises:
        Fault: PEM0421 two layers of one nn.MultiheadAttention that differ.
    """
    type_ = adapter_type(node)
    adapters = adapters_of(leaves)
    dtype = dtype or default_dtype(adapters)
    is_zero = not factors
    if is_zero:  # an adapter without tensors would not load
        ranks = dict.fromkeys(type_.shapes, 1 if type_.method == "lora" else 0)
    else:
        ranks = {site: part.rank for site, part in factors.items()}
    tensors = [
        tensor
        for site, rank in ranks.items()
        for tensor in _tensors(site, type_.shapes[site], type_.method, rank, dtype)
    ]
    lenders = adapters_of(heads)
    if lenders:
        tensors += [
            Tensor(_head_key(key, ranks), entry.dtype, entry.shape, None, key)
            for key, entry in lenders[0].layout.heads.items()
        ]
    config = _common(type_, adapters, heads)
    config |= _targeting(adapters, list(ranks)) | {"fan_in_fan_out": type_.fan_in_fan_out}
    if type_.method == "lora":
        config |= _lora(ranks, {site: 1.0 if is_zero else scales(node)[site] for site in ranks})
    else:
        inputs = [site for site in ranks if type_.shapes[site].layer == "gain_in"]
        outputs = [site for site in ranks if site not in inputs]
        config |= {"feedforward_modules": _feedforward(adapters, config, inputs, outputs)}
    idle = type_.method == "lora" and not any(scales(node)[site] for site in ranks)
    return PeftLayout(
        dict(sorted(config.items())),
        sorted(tensors, key=lambda tensor: tensor.key),
        ranks,
        lenders,
        is_zero or idle,
    )


def _tensors(site: str, shape: SiteShape, method: str, rank: int, dtype: str) -> list[Tensor]:
    if method == "ia3":
        return [Tensor(f"{PREFIX}{site}.ia3_l", dtype, shape.a, site, "l")]
    ends = ("lora_A.weight", "lora_B.weight")
    if shape.layer == "embedding":
        ends = ("lora_embedding_A", "lora_embedding_B")
    shapes = ((rank, *shape.a), (shape.b[0], rank, *shape.b[1:]))
    return [
        Tensor(f"{PREFIX}{site}.{end}", dtype, found, site, what)
        for end, found, what in zip(ends, shapes, "ab", strict=True)
    ]


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
