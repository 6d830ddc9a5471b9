"""What modules of transformers are called in GGUF, and in which order their rows stand there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.disk import is_file, open_plain
from pemlang.formats.adapter import MODEL_CONFIG, Adapter
from pemlang.modules import Shapes
from pemlang.modules.sites import layer_start
from pemlang.tensorfiles.jsons import parse_json

MODULES, GGUF = "modules", "gguf"
"""The two namings."""

ARCHITECTURE = "general.architecture"
HEADS = (".attention.head_count", ".attention.head_count_kv")
"""What keys of a GGUF file end in that say how many heads q and k have."""

_MAX_CONFIG = 4 << 20
_MOST_HEADS = 1 << 20
_FIELDS = ("architectures", "num_attention_heads", "num_key_value_heads")

_LAYER, _BLOCK = "model.layers.", "blk."
_IN_LAYERS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_ROTATED = ("attn_q", "attn_k")
_EMBEDDING, _HEAD = {"model.embed_tokens": "token_embd"}, {"lm_head": "output"}


@dataclass(frozen=True, eq=False)
class Architecture:
    """A kind of model, with the names that the converter of llama.cpp has for its modules
    (`conversion/*.py` there, and `TensorNameMap` of the package gguf).

    Attributes:
        name: in GGUF.
        models: the classes of transformers.
        outside: the modules in no layer.
        rotated: whether rows of q and k are regrouped: transformers rotates the first half of a
            head with the second, llama.cpp each row with the next.
    """

    name: str
    models: tuple[str, ...]
    outside: Mapping[str, str]
    rotated: bool = False


ARCHITECTURES = (
    Architecture(
        "llama", ("LlamaForCausalLM", "MistralForCausalLM"), _EMBEDDING | _HEAD, rotated=True
    ),
    Architecture("qwen2", ("Qwen2ForCausalLM",), _EMBEDDING | _HEAD),
    Architecture("qwen3", ("Qwen3ForCausalLM",), _EMBEDDING | _HEAD),
    Architecture("gemma", ("GemmaForCausalLM",), _EMBEDDING),
    Architecture("gemma2", ("Gemma2ForCausalLM",), _EMBEDDING),
    Architecture("gemma3", ("Gemma3ForCausalLM",), {}),
)
"""All that are known. Of the gemmas llama.cpp has no head of its own, and gemma3's embedding is
stored without some of its rows."""


class Swap(NamedTuple):
    """Another order of rows: seen as blocks × rows × the rest, the last two change places."""

    blocks: int
    rows: int


class RenamedSite(NamedTuple):
    """What a site is called in files of another naming, and how the rows of its B stand there."""

    name: str
    swap: Swap | None = None


def model_beside(directory: Path) -> Mapping[str, object]:
    """What the config of a model says that lies beside an adapter; empty where there is none, or
    the model is none of those that are known."""
    path = directory / MODEL_CONFIG
    if not is_file(path):
        return {}
    try:
        with open_plain(path) as file:
            text = file.read(_MAX_CONFIG + 1)
        fields = parse_json(text) if len(text) <= _MAX_CONFIG else None
    except (OSError, ValueError):
        return {}
    return known_model(fields)


def known_model(fields: object) -> Mapping[str, object]:
    """Those fields of a config that say what is to be known; none of a model that is not."""
    if not isinstance(fields, dict) or _of_class(fields) is None:
        return {}
    counts = {name: n for name in _FIELDS[1:] if (n := fields.get(name)) is not None}
    if not all(map(_count, counts.values())):
        return {}
    return {"architectures": fields["architectures"][:1], **counts}


def _of_class(fields: Mapping[str, object]) -> Architecture | None:
    names = fields.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    return next((known for known in ARCHITECTURES if name in known.models), None)


def fields_of_model(adapter: Adapter) -> Mapping[str, str | int]:
    """What a GGUF file has to say of the model of an adapter: its architecture, and how many heads
    it has where that is known and counts."""
    stated, architecture = adapter.fields.get(ARCHITECTURE), _architecture(adapter)
    if architecture is None:
        return {ARCHITECTURE: stated} if isinstance(stated, str) else {}
    heads = _heads(adapter, architecture) or ()
    keys = (architecture.name + end for end in HEADS)
    return {ARCHITECTURE: architecture.name, **dict(zip(keys, heads, strict=False))}


def _architecture(adapter: Adapter) -> Architecture | None:
    name = adapter.fields.get(ARCHITECTURE)
    if name is None:
        return _of_class(adapter.model)
    return next((known for known in ARCHITECTURES if known.name == name), None)


def _heads(adapter: Adapter, architecture: Architecture) -> tuple[int, int] | None:
    """How many heads q and k have, where that counts: by its own file, or by a config beside it."""
    own = [adapter.fields.get(architecture.name + end) for end in HEADS]
    if not any(own) and _of_class(adapter.model) is architecture:
        own = [adapter.model.get(name) for name in _FIELDS[1:]]
    queries = _count(own[0])
    keys = queries if own[1] is None else _count(own[1])
    return (queries, keys) if architecture.rotated and queries and keys else None


def _count(number: object) -> int:
    """How many heads a field says; 0 where it says none that a module can have."""
    if not isinstance(number, int) or isinstance(number, bool):
        return 0
    return number if 0 < number < _MOST_HEADS else 0


def renamed_sites(shapes: Shapes, inputs: Sequence[Adapter], naming: str) -> dict[str, RenamedSite]:
    """What sites are called in files of the other naming; raises Fault PEM0354 where that is not
    known.

    Args:
        shapes: the sites.
        inputs: the adapters that they are of.
        naming: of the files.
    """
    known = {_architecture(adapter) for adapter in inputs}
    architecture = known.pop() if len(known) == 1 else None
    if architecture is None:
        raise _unknown(inputs, "say which one architecture the model is of")
    counts = {_heads(adapter, architecture) for adapter in inputs}
    heads = counts.pop() if len(counts) == 1 else None
    renamed = {}
    for site, shape in shapes.items():
        name = _renamed(site, architecture, naming)
        if name is None:
            raise Fault(
                "PEM0354",
                f"it has {visible(site)}, and no other name is known for that, of a model of "
                f"{architecture.name}",
                "leave such modules out: select those of attention, of the MLP and the embedding",
            )
        module = (name if naming == GGUF else site).rpartition(".")[2]
        swap = None
        if architecture.rotated and module in _ROTATED:
            count = None if heads is None else heads[_ROTATED.index(module)]
            swap = _swap(count, shape.b[0], naming)
            if swap is None:
                raise _unknown(inputs, f"say how many heads the {shape.b[0]} rows of {module} are")
        renamed[site] = RenamedSite(name, swap)
    return renamed


def _renamed(site: str, architecture: Architecture, naming: str) -> str | None:
    """The other name of a site; None where it has none."""
    ways = (_IN_LAYERS, architecture.outside)
    if naming == GGUF:
        (before, after), (inside, outside) = (_LAYER, _BLOCK), ways
    else:
        before, after = _BLOCK, _LAYER
        inside, outside = ({new: old for old, new in names.items()} for names in ways)
    start = layer_start(site)
    if start is None:
        return outside.get(site)
    number, _, module = site[start:].partition(".")
    known = site[:start] == before and module in inside
    return f"{after}{number}.{inside[module]}" if known else None


def _swap(heads: int | None, rows: int, naming: str) -> Swap | None:
    """The other order of the rows of q or k; None where they are no such heads."""
    if heads is None or rows % (2 * heads):
        return None
    return Swap(heads, 2 if naming == GGUF else rows // heads // 2)


def _unknown(inputs: Sequence[Adapter], what: str) -> Fault:
    """What to say where it is not known which model adapters are of."""
    places = [visible(adapter.place) for adapter in inputs]
    models = [model for known in ARCHITECTURES for model in known.models]
    return Fault(
        "PEM0354",
        f"names and rows of llama.cpp go by the model, and {listed(places)} does not {what}",
        f"have each in a folder of yours, the {MODEL_CONFIG} of the model beside it: of "
        + listed(models, len(models)),
    )
