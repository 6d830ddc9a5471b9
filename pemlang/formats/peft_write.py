"""An adapter as PEFT stores it: the names, dtypes and shapes of its tensors, and its config."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from pemlang.diagnostics import Fault
from pemlang.formats.adapter import Adapter, alpha_of
from pemlang.formats.patterns import one_config
from pemlang.formats.peft_bias import KEY as BIAS
from pemlang.formats.peft_dora import MAGNITUDE
from pemlang.formats.peft_experts import adapted_modules, flat_shape, parameters_of
from pemlang.formats.peft_names import CONFIG, PREFIX, WEIGHTS
from pemlang.formats.peft_patterns import look_up, module_of
from pemlang.formats.peft_trained import trained_fields
from pemlang.formats.record import AdapterSpec, OutputLayout, OutputTensor
from pemlang.formats.uniform import experts_apart
from pemlang.modules import Shapes
from pemlang.modules.sites import bias_of, module_of_bias

# Fields of the inputs' configs that choose modules; kept when they choose the same ones.
_KEPT_FIELDS = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


def peft_layout(spec: AdapterSpec) -> OutputLayout:
    """What the directory of an output holds.

    Raises:
        Fault: PEM0367 targets that a reader does not take.
    """
    sites = spec.shapes.modules
    kind = spec.shapes[sites[0]].kind
    experts = parameters_of(spec.shapes)
    tensors = [t for site in spec.shapes for t in _tensors(spec, site, experts.get(site))]
    biased = len(sites) < len(spec.shapes)
    config = _common(spec, kind)
    config |= _targeting(spec, adapted_modules(spec.shapes))
    config |= {"fan_in_fan_out": spec.fan_in_fan_out}
    config |= {"target_parameters": sorted(experts)} if experts else {}
    if kind != "ia3":
        config |= _lora({s: spec.ranks[s] for s in sites}, spec.scales)
        config |= {"lora_bias": biased, "use_dora": kind == "dora"}
    else:
        inputs = [site for site in sites if spec.shapes[site].layer == "gain_in"]
        outputs = [site for site in sites if site not in inputs]
        config |= {"feedforward_modules": _feedforward(spec.inputs, config, inputs, outputs)}
    if spec.heads:
        config |= trained_fields(spec.heads[0], spec.shapes)
        tensors += [
            OutputTensor(_head_key(key, sites), entry.dtype, entry.shape, None, key)
            for key, entry in spec.heads[0].layout.heads.items()
        ]
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    tensors.sort(key=lambda tensor: tensor.key)
    zeros = _no_biases(spec) if biased else []
    return OutputLayout({WEIGHTS: [*zeros, *tensors]}, {CONFIG: text + "\n"})


def _tensors(spec: AdapterSpec, site: str, place: str | None) -> list[OutputTensor]:
    """Those of a site; `place` is where they stand of one of experts, which has two axes there."""
    return [
        OutputTensor(
            PREFIX + key,
            spec.dtype,
            flat_shape(factor, shape) if place else shape,
            site,
            factor,
            around,
        )
        for key, (factor, shape, around) in zip(
            _keys(site, spec.shapes, place or site), spec.factors(site), strict=True
        )
    ]


def _no_biases(spec: AdapterSpec) -> list[OutputTensor]:
    """Zeros for those LoRAs that have no bias where others have one: all are to have one."""
    return [
        OutputTensor(f"{PREFIX}{s}.{BIAS}", spec.dtype, shape.b[:1], bias_of(s), "x", value=0.0)
        for s, shape in spec.shapes.only(frozenset(spec.shapes.modules)).items()
        if bias_of(s) not in spec.shapes
    ]


def _keys(site: str, shapes: Shapes, place: str) -> list[str]:
    """What PEFT calls the tensors of a site that stand in some place."""
    if module_of_bias(site) in shapes:
        return [f"{module_of_bias(site)}.{BIAS}"]
    shape = shapes[site]
    ends = ["lora_A.weight", "lora_B.weight"]
    if shape.layer == "embedding":
        ends = ["lora_embedding_A", "lora_embedding_B"]
    ends += [MAGNITUDE] * (shape.kind == "dora")
    return [f"{place}.{end}" for end in (["ia3_l"] if shape.kind == "ia3" else ends)]


def _head_key(key: str, sites: Collection[str]) -> str:
    """The key of a whole tensor: PEFT moves the weight of a module that it adapts into its
    `base_layer`."""
    name, _, end = key.removeprefix(PREFIX).rpartition(".")
    module = name.removesuffix(".base_layer")
    return f"{PREFIX}{module}{'.base_layer' * (module in sites)}.{end}"


# --- configs -------------------------------------------------------------------------------


def _shared(adapters: Sequence[Adapter], field: str) -> object:
    """A field all inputs agree on; None otherwise."""
    values = [adapter.fields.get(field) for adapter in adapters]
    return values[0] if values and all(value == values[0] for value in values) else None


def _common(spec: AdapterSpec, kind: str) -> dict[str, object]:
    names = sorted(spec.heads[0].whole_modules) if spec.heads else None
    return {
        "peft_type": "IA3" if kind == "ia3" else "LORA",
        "task_type": _shared(spec.inputs, "task_type"),
        "auto_mapping": _shared(spec.inputs, "auto_mapping"),
        "base_model_name_or_path": spec.base,
        "revision": _shared(spec.inputs, "revision"),
        "inference_mode": True,
        "modules_to_save": names,
    }


def _targeting(spec: AdapterSpec, sites: Sequence[str]) -> dict[str, object]:
    """The inputs' own target_modules when they say the same and every site is kept, or those of
    their names that mean the sites and no other; else the full names of the sites. Raises PEM0367
    where a reader wants a list and none means these sites."""
    adapters, listed = spec.inputs, spec.reader is not None and spec.reader.listed
    specs = [
        {field: _unordered(adapter.fields.get(field)) for field in _KEPT_FIELDS}
        for adapter in adapters
    ]
    same = all(spec == specs[0] for spec in specs)
    own = [adapted_modules(adapter.layout.shapes) for adapter in adapters]
    whole = all(set(modules) == set(sites) for modules in own)
    target = specs[0]["target_modules"] if specs else None
    if same and whole and target is not None and (isinstance(target, list) or not listed):
        return {field: value for field, value in specs[0].items() if value is not None}
    kept = {module_of(site) for site in sites}
    others = {module_of(site) for modules in own for site in modules} - kept
    # PEFT wants each name in feedforward_modules among those of target_modules.
    short = [] if spec.shapes.kinds == ("ia3",) else _short_names(adapters, kept, others)
    names = short or _names(kept, ".", others)
    if listed and isinstance(names, str):
        assert spec.reader is not None
        raise Fault(
            "PEM0367",
            f"{spec.reader.title} takes no pattern for `target_modules`, and a list of names would "
            "mean other modules too",
            "save all modules whose names end so, or save it with reader=peft",
        )
    return {"target_modules": names}


def _short_names(
    adapters: Sequence[Adapter], kept: Collection[str], others: Collection[str]
) -> list[str]:
    """Those names in the lists of some adapters that mean what is kept and nothing else; none where
    they do not. A name in a list means every module of the base that ends so, and PEFT saves all of
    them: those that an adapter has are all there are."""
    names, meant = set(), set()
    for adapter in adapters:
        listed = adapter.fields.get("target_modules")
        narrowed = any(adapter.fields.get(field) for field in _KEPT_FIELDS[1:])
        if not isinstance(listed, list) or narrowed or adapter.stored is not None:
            continue
        own = {module_of(site) for site in adapted_modules(adapter.layout.shapes)}
        for name in map(str, listed):
            here = {module for module in own if f".{module}".endswith(f".{name}")}
            if here and here <= set(kept):
                names.add(name)
                meant |= here
    ends = tuple(f".{name}" for name in names)
    if meant < set(kept) or any(f".{other}".endswith(ends) for other in others):
        return []
    return sorted(names)


def _names(sites: Collection[str], before: str, others: Collection[str]) -> list[str] | str:
    """Names of sites that name none of the others: a list, of which PEFT takes every module
    whose name ends in an entry after `before`; a pattern where another name ends so."""
    ends = tuple(before + site for site in sites)
    if any(other.endswith(ends) for other in others):
        return "|".join(re.escape(site) for site in sorted(sites))
    return sorted(sites)


def _unordered(value: object) -> object:
    return sorted(value) if isinstance(value, list) else value


def _feedforward(
    adapters: Sequence[Adapter],
    config: Mapping[str, object],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> object:
    """Which targets are feed-forward modules: named as target_modules are."""
    raws = [adapter.fields for adapter in adapters]
    chosen = config.get("target_modules")
    kept = all(_unordered(raw.get("target_modules")) == chosen for raw in raws)
    own = [_unordered(raw.get("feedforward_modules")) for raw in raws]
    if own and kept and all(value == own[0] for value in own):
        return own[0]
    return _names(inputs, "", outputs)


def _lora(ranks: Mapping[str, int], scales: Mapping[str, float]) -> dict[str, object]:
    """r, lora_alpha and their patterns, so that PEFT finds each site's rank and scale."""
    ranks = {module_of(site): rank for site, rank in ranks.items()}
    scales = {module_of(site): scale for site, scale in scales.items()}
    alphas = {site: alpha_of(scales[site], rank) for site, rank in ranks.items()}
    # Readers of these two alone take lora_alpha / r for the scale, and make room for r; PEFT itself
    # goes by no more where it stacks experts.
    experts = experts_apart(ranks)
    r = ranks[experts[0]] if experts else max(ranks.values())
    usual_alphas = [alphas[site] for site in experts or ranks if ranks[site] == r]
    alpha = Counter(usual_alphas).most_common(1)[0][0]
    patterns: dict[str, Mapping[str, float]] = {}
    for field, values, usual in (("rank_pattern", ranks, r), ("alpha_pattern", alphas, alpha)):
        # PEFT takes the first key that a name ends with; in a file the keys are sorted.
        pattern = {site: values[site] for site in sorted(ranks) if values[site] != usual}
        with one_config():
            right = all(look_up(pattern.items(), site, usual) == values[site] for site in ranks)
        if not right:
            pattern = {f"^{re.escape(site)}": value for site, value in pattern.items()}
        patterns[field] = pattern
    return {
        "r": r,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "init_lora_weights": True,
        **patterns,
    }
