"""A model as transformers stores it: its files of tensors, its index and its config."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from pemlang.diagnostics import Fault, visible
from pemlang.formats.record import AdapterSpec, OutputLayout, OutputTensor
from pemlang.formats.transformers import (
    CONFIG,
    INDEX,
    SINGLE,
    TOKENIZER,
    StoredModel,
    config_of,
    token_rows,
    tokenizer_files,
)
from pemlang.formats.vocabulary import with_new_tokens
from pemlang.modules.sites import layer_of
from pemlang.tensorfiles.dtypes import DTYPES

_DTYPE_FIELDS = ("dtype", "torch_dtype")
"""Where a config says the dtype of its weights, in newer and in older transformers."""


def model_layout(spec: AdapterSpec) -> OutputLayout:
    """The files of a model: laid out as those of the model that it is made from, or in shards of a
    size; raises Fault PEM0353 for layers that a config cannot say."""
    model = spec.origin
    assert isinstance(model, StoredModel)
    as_there = _depth(spec.shapes) == _depth(model.layout.shapes)
    files = _as_there(model, spec) if as_there else {"": _restacked(model, spec)}
    if spec.shard is not None or not as_there:
        files = _resharded(files.values(), spec.shard or _SHARD)
    if len(files) == 1:
        files = {SINGLE: next(iter(files.values()))}
    texts = {} if len(files) == 1 else {INDEX: _index(files)}
    copies = {path.name: path for path in model.beside}
    if spec.tokenizer is not None:
        copies = {name: path for name, path in copies.items() if name not in TOKENIZER}
        copies |= {path.name: path for path in tokenizer_files(spec.tokenizer)}
    elif spec.vocabulary is not None:
        texts |= with_new_tokens(model.directory, spec.vocabulary)
    if CONFIG in copies and (spec.dtype_given or spec.vocabulary is not None or not as_there):
        config = config_of(copies.pop(CONFIG).parent)
        if not as_there:
            config = _with_layers(config, model, spec)
        if spec.vocabulary is not None:
            before, after = map(token_rows, (model.layout.shapes, spec.shapes))
            config = _with_rows(config, before, after)
        texts[CONFIG] = json.dumps(_with_dtype(config, spec), indent=2, ensure_ascii=False) + "\n"
    return OutputLayout(files, texts, {x: path for x, path in copies.items() if x not in texts})


def _as_there(model: StoredModel, spec: AdapterSpec) -> dict[str, list[OutputTensor]]:
    """The tensors of each file of a model, in their order."""
    files = {}
    for file, header in model.shards.items():
        in_order = sorted(header.entries.items(), key=lambda item: item[1].start)
        files[_as_safetensors(file.name)] = [
            _tensor(name, spec)
            if name in spec.shapes
            else OutputTensor(name, entry.dtype, entry.shape, None, name)
            for name, entry in in_order
            if name in spec.shapes or name in model.layout.heads
        ]
    return {name: tensors for name, tensors in files.items() if tensors}


def _as_safetensors(name: str) -> str:
    """What a shard is called once it is no pickle: as transformers calls it."""
    if not name.endswith(".bin"):
        return name
    return f"{name.removesuffix('.bin').removeprefix('pytorch_')}.safetensors"


def _tensor(site: str, spec: AdapterSpec) -> OutputTensor:
    entry = spec.stored[site]
    dtype = spec.dtype if spec.dtype_given else entry.dtype
    [(factor, _, around)] = spec.factors(site)
    return OutputTensor(site, dtype, entry.shape, site, factor, around)


def _resharded(files: Iterable[Iterable[OutputTensor]], most: int) -> dict[str, list[OutputTensor]]:
    """The tensors of some files, in their order, in others of at most so many bytes of them; one
    that is larger has a file of its own."""
    shards: list[list[OutputTensor]] = []
    room = 0
    for tensor in chain.from_iterable(files):
        if tensor.size > room:
            shards.append([])
            room = most
        shards[-1].append(tensor)
        room -= tensor.size
    return {
        f"model-{number:05}-of-{len(shards):05}.safetensors": shard
        for number, shard in enumerate(shards, 1)
    }


def _index(files: Mapping[str, Sequence[OutputTensor]]) -> str:
    """The index of shards, as transformers writes it."""
    tensors = [tensor for shard in files.values() for tensor in shard]
    where = {tensor.key: name for name, shard in files.items() for tensor in shard}
    total = {"total_size": sum(tensor.size for tensor in tensors)}
    index = {"metadata": total, "weight_map": dict(sorted(where.items()))}
    return json.dumps(index, indent=2, ensure_ascii=False) + "\n"


def _with_dtype(config: Mapping[str, object], spec: AdapterSpec) -> dict[str, object]:
    """A config that says the dtype of an output, where a recipe says one."""
    if not spec.dtype_given:
        return dict(config)
    names = [name for name in _DTYPE_FIELDS if name in config] or ["torch_dtype"]
    return {**config, **dict.fromkeys(names, DTYPES[spec.dtype].torch)}


def _with_rows(config: dict[str, object], before: object, after: object) -> dict[str, object]:
    """A config that says how many rows an embedding of tokens has, at its top or inside."""
    inner = {key: _with_rows(x, before, after) for key, x in config.items() if isinstance(x, dict)}
    own = {_ROWS: after} if config.get(_ROWS) == before else {}
    return {**config, **inner, **own}


# --- models of other layers than the one whose files they take ------------------------------

_SHARD = 5 << 30
"""Bytes of a shard of a model that is laid out as no other."""

_ROWS = "vocab_size"

_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers")


def _restacked(model: StoredModel, spec: AdapterSpec) -> list[OutputTensor]:
    """The tensors of a model of other layers; raises Fault PEM0353 where those of the first model
    cannot be numbered anew."""
    if model.layout.heads:
        raise Fault(
            "PEM0353",
            f"{visible(model.directory)} has tensors that hold no floats, and layers are numbered "
            f"anew: {visible(next(iter(model.layout.heads)))}",
            "stack models that have none",
        )
    return [_tensor(site, spec) for site in spec.shapes]


def _with_layers(
    config: Mapping[str, object], model: StoredModel, spec: AdapterSpec
) -> dict[str, object]:
    """A config that says the number of layers of an output; raises Fault PEM0353 where it says
    something of each layer."""
    before, after = _depth(model.layout.shapes), _depth(spec.shapes)
    said = [key for key in _LAYER_COUNTS if config.get(key) == before]
    each = {key: x for key, x in config.items() if isinstance(x, list) and len(x) == before > 1}
    unlike = [key for key, x in each.items() if any(item != x[0] for item in x)]
    if unlike or not said:
        what = f"{unlike[0]} of each layer" if unlike else "no number of layers at its top"
        raise Fault(
            "PEM0353",
            f"the config of {visible(model.directory)} says {visible(what)}",
            "stack models whose layers are all alike",
        )
    alike = {key: [x[0]] * after for key, x in each.items()}
    return {**config, **dict.fromkeys(said, after), **alike}


def _depth(sites: Iterable[str]) -> int:
    """How many layers the names of tensors tell of."""
    return len({layer for site in sites if (layer := layer_of(site)) is not None})
