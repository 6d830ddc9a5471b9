"""PEFT's config: read, and held to what arithmetic on the tensors alone can keep true."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, nearest, visible
from pemlang.disk import is_dir, open_plain
from pemlang.formats.peft_names import CONFIG
from pemlang.formats.transformers import is_model
from pemlang.tensorfiles.digests import not_fetched
from pemlang.tensorfiles.jsons import parse_json

MAX_CONFIG = 4 << 20

# Initialisations that leave the base as it is. Any other makes Δ relative to a changed base.
PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")

# Fields that do not change what a saved adapter does.
IGNORED = frozenset(
    "peft_type task_type auto_mapping peft_version revision base_model_name_or_path "
    "inference_mode lora_dropout target_modules exclude_modules modules_to_save "
    "layers_to_transform layers_pattern r lora_alpha rank_pattern alpha_pattern "
    "fan_in_fan_out use_rslora use_dora lora_bias bias trainable_token_indices init_lora_weights "
    "init_ia3_weights feedforward_modules "
    "megatron_config megatron_core loftq_config eva_config corda_config lora_ga_config "
    "qalora_group_size runtime_config".split()
)

TRAINED_BIASES = ("none", "all", "lora_only")
"""What `bias` may be."""

# What PEFT calls the methods that are composed, and what of the fields of each changes nothing that
# is saved, or is read by itself.
METHODS = {"LORA": "lora", "IA3": "ia3", "ADALORA": "adalora", "LOHA": "loha", "LOKR": "lokr"}
_LYCORIS = "alpha rank_dropout module_dropout init_weights use_effective_conv2d"
_OF_METHOD = {
    "lora": "target_parameters",
    "adalora": "init_r target_r tinit tfinal deltaT beta1 beta2 orth_reg_weight total_step",
    "loha": _LYCORIS,
    "lokr": f"{_LYCORIS} decompose_both decompose_factor rank_dropout_scale",
}

# Fields that make a module more than the Δ of its factors, and what they add.
UNSUPPORTED = {
    "kasa_config": "KaSA rescales the singular values of the base",
    "layer_replication": "its sites are copies of the base's layers",
    "alora_invocation_tokens": "it acts only after its invocation tokens",
    "arrow_config": "its modules are routed between at run time",
    "use_bdlora": "its factors are block-diagonal",
    "use_qalora": "its A acts on pooled inputs",
    "monteclora_config": "its weights are sampled",
    "velora_config": "its activations are compressed",
    "enable_lora": "its factors change parts of a fused module, each with rows of A of its own",
    "ensure_weight_tying": "its weights are tied to another module's",
}

# Methods that change no weights: nothing of theirs is a Δ.
OF_PROMPTS = frozenset(
    "PROMPT_TUNING MULTITASK_PROMPT_TUNING P_TUNING PREFIX_TUNING ADAPTION_PROMPT CPT "
    "CARTRIDGE".split()
)

_MERGED = (
    'merge it into its base with PEFT, model.merge_and_unload().save_pretrained("merged"); '
    'what it changes is then m - b, of model m = "merged" and a model b, its base'
)
_INSTEAD = {
    "enable_lora": "train it anew with a later PEFT, which adapts a fused module as a whole",
}


def instead_of(field: str) -> str:
    """What to do with an adapter that has a feature which is refused."""
    return _INSTEAD.get(field, f"use an adapter trained without `{field}`")


class Scaling(NamedTuple):
    """What a config says of the ranks of its sites, and of their scales."""

    rank: int
    alpha: float
    rank_pattern: tuple[tuple[str, int], ...] = ()
    alpha_pattern: tuple[tuple[str, float], ...] = ()
    rslora: bool = False
    adalora: bool = False

    def scale(self, rank: int, alpha: float) -> float:
        """s = α/r, or α/√r with rsLoRA. With AdaLoRA r is the rank before any was pruned, and s a
        little less (PEFT, `tuners/adalora/layer.py`)."""
        if self.adalora:
            return (alpha if alpha > 0 else rank) / (self.rank + 1e-5)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


@dataclass(frozen=True)
class Config:
    """The part of a config that arithmetic needs, checked; `kind` is the parametrisation, or the
    stored form of one."""

    kind: str
    base: str | None
    raw: Mapping[str, object]
    scaling: Scaling
    fan_in_fan_out: bool
    feedforward: str | tuple[str, ...]
    modules_to_save: tuple[str, ...]
    lora_bias: bool = False


def read_config(directory: Path) -> Config:
    """The config of an adapter directory.

    Raises:
        Fault: PEM0410 not an adapter directory, PEM0411 unreadable, PEM0414 not JSON of the right
            types, PEM0420 another method, PEM0421 a feature the algebra cannot keep, PEM0422 an
            initialisation that changes the base, PEM0423 an unknown field.
    """
    path = directory / CONFIG
    try:
        with open_plain(path) as file:
            data = file.read(MAX_CONFIG + 1)
    except FileNotFoundError:
        raise _no_config(directory) from None
    except OSError as error:
        raise Fault(
            "PEM0411", f"cannot read {visible(path)}: {error.strerror or error}", "check the path"
        ) from None
    try:
        return parse_config(data, str(path))
    except Fault as fault:
        raise not_fetched(path) or fault from None


def _no_config(directory: Path) -> Fault:
    """What to say of a place without a config, and what it is."""
    help = "give the directory that PEFT's save_pretrained wrote"
    what = f"has no {CONFIG}" if is_dir(directory) else "does not exist"
    if is_model(directory):
        what = f"is a model: it has whole weights and no {CONFIG}"
        help = "declare it as a model: model m = …; an adapter is a directory that PEFT wrote"
    return Fault("PEM0410", f"{visible(directory)} {what}", help)


def parse_config(data: bytes, name: str) -> Config:
    """The config in the bytes of a file; `name` is what messages call it."""
    try:
        raw = parse_json(data) if len(data) <= MAX_CONFIG else None
    except ValueError:
        raw = None
    if not isinstance(raw, dict):
        raise Fault(
            "PEM0414", f"{visible(name)} is not a JSON object", "save the adapter again with PEFT"
        )
    read = _Reader(raw, name)
    kind = read("peft_type", str, "")
    if kind not in METHODS:
        what = f"is of peft_type {visible(kind, 40)!r}" if kind else "has no peft_type"
        composed = (f"pemlang composes adapters of {listed(list(METHODS), len(METHODS))}",)
        raise Fault("PEM0420", f"{visible(name)} {what}", _way_out(kind, raw), composed)
    _refuse_features(raw, name, METHODS[kind])
    alpha = "alpha" if kind in ("LOHA", "LOKR") else "lora_alpha"
    if kind != "IA3" and raw.get(alpha, ...) is None:
        raise read.wrong(alpha, None, _WANTED[float])
    for field in ("target_modules", "exclude_modules", "target_parameters"):
        read.names(field)  # matched as they are, later
    feedforward = read.names("feedforward_modules")
    read("bias", str, "none", TRAINED_BIASES.__contains__, " or ".join(TRAINED_BIASES))
    dora = read("use_dora", bool, False)
    if dora and kind != "LORA":
        raise read.wrong("use_dora", dora, f"false for {kind}")
    return Config(
        kind="dora" if dora else METHODS[kind],
        base=read("base_model_name_or_path", str, None) or None,
        raw=raw,
        scaling=_pruned(read) if kind == "ADALORA" else _scaling(read, alpha),
        fan_in_fan_out=read("fan_in_fan_out", bool, False),
        feedforward=feedforward,
        modules_to_save=_as_tuple(read.names("modules_to_save")),
        lora_bias=read("lora_bias", bool, False),
    )


def _scaling(read: _Reader, alpha: str) -> Scaling:
    """What a config says of ranks and scales, where `alpha` is what it calls α."""
    return Scaling(
        read("r", int, 8, lambda r: r >= 1, _WANTED[int]),
        read(alpha, float, 8.0, math.isfinite, _WANTED[float]),
        tuple(read.pattern("rank_pattern", int, lambda r: r >= 1).items()),
        tuple(read.pattern("alpha_pattern", float, math.isfinite).items()),
        alpha == "lora_alpha" and read("use_rslora", bool, False),
    )


def _pruned(read: _Reader) -> Scaling:
    """The same of AdaLoRA, whose `rank_pattern` says of each singular value whether it is kept."""
    ranks = []
    for key, kept in read("rank_pattern", dict, {}).items():
        if not isinstance(kept, list) or not all(isinstance(x, bool) for x in kept):
            raise read.wrong(f"rank_pattern[{visible(key, 60)}]", kept, "a list of true and false")
        module = key.partition(".lora_E")[0]
        ranks.append((f"^{re.escape(module)}", sum(kept)))
    return Scaling(
        read("init_r", int, 12, lambda r: r >= 1, _WANTED[int]),
        read("lora_alpha", float, 8.0, math.isfinite, _WANTED[float]),
        tuple(ranks),
        adalora=True,
    )


def _way_out(kind: str, raw: Mapping[str, object]) -> str:
    """What to do with an adapter of another method."""
    if not kind:
        return "give the directory of an adapter that PEFT saved"
    if kind in OF_PROMPTS:
        return "use an adapter that changes weights: this one changes what the model is asked"
    if kind == "VERA":
        # Its A and B are as wide as the widest module, and its file says no module's inputs.
        rank = raw.get("r") if type(raw.get("r")) is int else 256
        return (
            "convert it in PEFT, where its base says how many inputs each module has; at its own "
            f"rank that is exact: peft.save_as_lora(directory, model, rank={rank})"
        )
    return (
        "convert it in PEFT, where its method can be: peft.save_as_lora(directory, model, rank=16)"
    )


def _as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


class _Reader:
    """Fields of a config with their types checked; a null is a field left out."""

    def __init__(self, raw: Mapping[str, object], name: str) -> None:
        self._raw, self._name = raw, name

    def __call__(
        self,
        field: str,
        type_: type,
        default: Any,
        holds: Callable[[Any], bool] = lambda _: True,
        wanted: str = "",
    ) -> Any:
        value = self._raw.get(field)
        if value is None:
            return default
        if not _is(value, type_) or not holds(value):
            raise self.wrong(field, value, wanted or _WANTED[type_])
        return value

    def wrong(self, field: str, value: object, wanted: str) -> Fault:
        shown = visible(json.dumps(value), 60)
        return Fault(
            "PEM0414",
            f"{visible(self._name)}: `{field}` is {shown}, it should be {wanted}",
            "save the adapter again with PEFT, or mend the field",
        )

    def pattern(self, field: str, type_: type, holds: Callable[[Any], bool]) -> dict[str, Any]:
        value = self(field, dict, {})
        for key, entry in value.items():
            if not _is(entry, type_) or not holds(entry):
                raise self.wrong(f"{field}[{visible(key, 60)}]", entry, _WANTED[type_])
        return dict(value)

    def names(self, field: str) -> str | tuple[str, ...]:
        value = self._raw.get(field)
        if isinstance(value, str):
            return value
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(field, value, "a string or a list of strings")
        return tuple(value)


_WANTED = {
    int: "a whole number of at least 1",
    float: "a finite number",
    bool: "true or false",
    str: "a string",
    dict: "an object",
}


def _is(value: object, type_: type) -> bool:
    if type_ is float:
        # A whole number of any size is JSON; one that no float holds is not a usable α.
        return type(value) is float or (type(value) is int and abs(value) < 1 << 53)
    return type(value) is type_


def _refuse_features(raw: Mapping[str, object], name: str, method: str) -> None:
    for field, why in UNSUPPORTED.items():
        value = raw.get(field)
        # An empty list of invocation tokens is still an aLoRA, and an empty object is a config of
        # defaults; everything else is off when falsy.
        on = value == {} or (field == "alora_invocation_tokens" and value is not None)
        if value or on:
            raise Fault(
                "PEM0421",
                f"{visible(name)} has `{field}`: {why}",
                instead_of(field),
            )
    init = raw.get("init_lora_weights")
    if not any(
        init is plain or (isinstance(plain, str) and init == plain) for plain in PLAIN_INITS
    ):
        raise Fault(
            "PEM0422",
            f"{visible(name)} was initialised with {visible(json.dumps(init), 40)}: its Δ is "
            "relative to a base that this initialisation changed",
            "convert it in PEFT, with the adapter as it was saved before training: "
            'model.save_pretrained("out", path_initial_model_for_weight_conversion="initial")',
        )
    ignored = IGNORED.union(_OF_METHOD.get(method, "").split())
    for field, value in raw.items():
        if value and field not in ignored and field not in UNSUPPORTED:
            close = nearest(field, ignored)
            raise Fault(
                "PEM0423",
                f"{visible(name)} has the field `{visible(field, 60)}`, which this version does "
                "not know: it may change what the adapter does",
                f"did it mean `{close}`?"
                if close
                else "remove it from the file if it does not change the adapter",
            )
