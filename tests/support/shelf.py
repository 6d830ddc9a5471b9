"""Adapters and models that recipes in tests/messages name: good ones, and one for each way in
which a directory can be wrong."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from support import PREFIX, SITES, base_shelf, fused_shelf, ia3, image_shelf, lora, save

Make = Callable[[Path], object]

QUERY = "encoder.layer.0.attention.self.query"
HEAD = f"{PREFIX}classifier.weight"
LAYER_0 = {site: shape for site, shape in SITES.items() if ".0." in site}
ONE = {QUERY: (12, 16)}
ATTENTION = {"attn": (12, 16), "attn.base_layer.out_proj": (12, 12)}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
WHOLE_HEAD = {"extra": {HEAD: np.ones((2, 12), "i4")}, "modules_to_save": ["classifier"]}
SQUARE = {QUERY: (16, 16)}


def stock(root: Path) -> None:
    """Write everything below `root/adapters` and `root/models`, and what cases import."""
    shutil.copytree(Path(__file__).parents[1] / "messages" / "library", root / "library")
    for name, make in ADAPTERS.items():
        make(root / "adapters" / name)
    models = root / "models"
    weights = {"layer.0.q.weight": (4, 4), "layer.0.q.bias": (4,)}
    for name in ("base", "chat", "codes"):
        model(models / name, weights)
    model(models / "wider", {"layer.0.q.weight": (4, 6), "layer.0.q.bias": (4,)})
    of_sites = {f"{site}.weight": shape for site, shape in SITES.items()}
    model(models / "whole", {**of_sites, "classifier.weight": (2, 12)})
    model(models / "rehearsed", {**of_sites, "classifier.weight": (2, 12)}, torch.float16)
    model(models / "unheaded", of_sites)
    model(models / "biased", {**of_sites, f"{QUERY}.bias": (12,)})
    model(models / "prefixed", {f"bert.{name}": shape for name, shape in of_sites.items()})
    model(models / "narrow", dict.fromkeys(of_sites, (12, 14)))
    model(models / "labels", {**of_sites, "classifier.weight": (3, 12)})
    towers = {f"{tower}.{name}": of_sites[name] for tower in "ab" for name in of_sites}
    model(models / "towers", towers)
    model(models / "tied", {"model.embed_tokens.weight": (12, 16)})
    config = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
    (models / "tied" / "config.json").write_text(json.dumps(config))
    model(models / "half", weights, torch.bfloat16)
    _with_tokens(models, weights)
    model(models / "more", {**weights, "layer.1.q.weight": (4, 4)})
    model(models / "empty", {"layer.0.q.weight": (0, 4)})
    quantised = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (models / "codes" / "config.json").write_text(json.dumps(quantised))
    scaled = {"layer.0.q.weight": torch.ones(4, 4).to(torch.float8_e4m3fn)}
    scaled["layer.0.q.weight_scale_inv"] = torch.ones(1, 1)
    (models / "Base-1B-FP8").mkdir()
    save_file(scaled, models / "Base-1B-FP8" / "model.safetensors")
    (models / "counts").mkdir()
    save_file({"steps": torch.arange(3)}, models / "counts" / "model.safetensors")
    model(models / "twice", weights)
    (models / "twice" / "model.safetensors").rename(models / "twice" / "1.safetensors")
    shutil.copy(models / "twice" / "1.safetensors", models / "twice" / "2.safetensors")
    both = {"weight_map": {name: f"{n}.safetensors" for n, name in enumerate(weights, 1)}}
    (models / "twice" / "model.safetensors.index.json").write_text(json.dumps(both))
    shutil.copytree(models / "twice", models / "partly")
    (models / "partly" / "2.safetensors").unlink()
    save_file({"layer.1.q.weight": torch.ones(4, 4)}, models / "partly" / "2.safetensors")
    said = {"weight_map": {"layer.0.q.weight": "1.safetensors", "norm.weight": "2.safetensors"}}
    (models / "partly" / "model.safetensors.index.json").write_text(json.dumps(said))
    (models / "shards").mkdir()
    index = {"weight_map": {"w": "../elsewhere.safetensors"}}
    (models / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    (styles := root / "styles").mkdir()
    image_shelf.stock(styles)
    for shelf in (base_shelf, fused_shelf):
        shelf.stock(root)
    for name, key in {"lora": "q.lora_A.weight", "other": "q"}.items():
        save_file({key: torch.ones(2, 2)}, styles / f"{name}.safetensors")


def _with_tokens(models: Path, weights: Mapping[str, tuple[int, ...]]) -> None:
    """Models with an embedding of tokens, and tokenizers of all kinds."""
    model(models / "tokens", {"model.embed_tokens.weight": (40, 16)})
    vocabulary = {
        "model": {"vocab": {"a": 0, "b": 38}},
        "added_tokens": [{"id": 39, "content": "c"}],
    }
    (models / "tokens" / "tokenizer.json").write_text(json.dumps(vocabulary))
    tokenizers = {"many": {f"t{number}": number for number in range(6)}, "few": {"t0": 0, "t1": 1}}
    tokenizers["other"] = {"t1": 0, "t0": 1}
    for name, tokens in tokenizers.items():
        model(models / name, {"embed_tokens.weight": (len(tokens), 4), **weights})
        table = {"model": {"type": "WordLevel", "vocab": tokens}}
        (models / name / "tokenizer.json").write_text(json.dumps(table))
    for name in ("mute", "pieces", "garbled", "gaps"):
        model(models / name, {"embed_tokens.weight": (7, 4), **weights})
    model(models / "lines", {"embed_tokens.weight": (2, 4), **weights})
    (models / "lines" / "vocab.txt").write_text("t1\nt0\n")
    (models / "pieces" / "tokenizer.model").write_bytes(b"\n\x0e")
    (models / "garbled" / "tokenizer.json").write_text('{"model": {"vocab": {"a": "b"}}}')
    (models / "gaps" / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0, "b": 5}}}')


def model(
    directory: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype = torch.float32
) -> None:
    """A model directory of ones."""
    directory.mkdir(parents=True)
    save_file(
        {k: torch.ones(s, dtype=dtype) for k, s in shapes.items()}, directory / "model.safetensors"
    )


def _attention(layer: str) -> dict[str, tuple[int, int]]:
    return {f"{layer}.self_attn.{name}": (12, 16) for name in ("q_proj", "v_proj")}


def _heads(value: float, name: str = HEAD) -> dict[str, Any]:
    return {"extra": {name: np.full((2, 12), value, "f4")}, "modules_to_save": ["classifier"]}


def _with_tensor(name: str, shape: tuple[int, ...] = (1,), **config: Any) -> Make:
    return lambda at: lora(at, sites=ONE, extra={PREFIX + name: np.ones(shape, "f4")}, **config)


def _tensors(shapes: Mapping[str, tuple[int, ...]], **config: Any) -> Make:
    """A LoRA of tensors of these shapes, whatever sense they make."""
    fields = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query"]}
    tensors = {f"{PREFIX}{key}": np.ones(shape, "f4") for key, shape in shapes.items()}
    return lambda at: save(at, tensors, fields | config)


def _factors(a: tuple[int, ...], b: tuple[int, ...]) -> Make:
    return _tensors({f"{QUERY}.lora_A.weight": a, f"{QUERY}.lora_B.weight": b})


def _config(text: str | Mapping[str, Any], *empty: str) -> Make:
    """A directory with nothing but an adapter_config.json, and files that are empty."""

    def make(at: Path) -> None:
        at.mkdir(parents=True)
        content = text if isinstance(text, str) else json.dumps(text)
        (at / "adapter_config.json").write_text(content)
        for name in empty:
            (at / name).touch()

    return make


def _weights(change: Callable[[bytes], bytes]) -> Make:
    """A LoRA whose file of tensors is damaged."""

    def make(at: Path) -> None:
        file = lora(at, sites=ONE) / "adapter_model.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return make


def _header(header: object) -> Callable[[bytes], bytes]:
    text = header if isinstance(header, str) else json.dumps(header)
    return lambda _: struct.pack("<Q", len(text)) + text.encode() + b"\0" * 8


def _entry(**entry: Any) -> Callable[[bytes], bytes]:
    return _header({"w": entry})


def _pickled(write: Make) -> Make:
    """A LoRA whose tensors are in an adapter_model.bin."""

    def make(at: Path) -> None:
        (lora(at, sites=ONE) / "adapter_model.safetensors").unlink()
        write(at / "adapter_model.bin")

    return make


def _torch(value: object) -> Make:
    return _pickled(lambda file: torch.save(value, file))


def _compressed(file: Path) -> None:
    torch.save({"w": torch.ones(1000)}, file)
    with zipfile.ZipFile(file) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as smaller:
        for name, data in members.items():
            smaller.writestr(name, data)


def _holed(value: float) -> Make:
    """A LoRA with one number that is not finite."""

    def make(at: Path) -> None:
        b = np.ones((12, 4), "f4")
        b[3, 2] = value
        tensors = {
            f"{PREFIX}{QUERY}.lora_A.weight": np.ones((4, 16), "f4"),
            f"{PREFIX}{QUERY}.lora_B.weight": b,
        }
        save(at, tensors, {"peft_type": "LORA", "r": 4, "lora_alpha": 8})

    return make


def _no_config(at: Path) -> None:
    (lora(at) / "adapter_config.json").unlink()


def _occupied(at: Path) -> None:
    at.mkdir(parents=True)
    (at / "notes.txt").write_text("mine")


def _collected(at: Path, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Statistics beside an adapter: Gram matrices, some of other sizes."""
    grams = {site: np.eye(in_) for site, (_, in_) in SITES.items()}
    grams |= {site: np.zeros(size) for site, size in sizes.items()}
    tensors = {
        f"{site}.gram": torch.as_tensor(gram, dtype=torch.float32) for site, gram in grams.items()
    }
    save_file(tensors, at / "statistics.safetensors")


def _readme(at: Path) -> None:
    at.mkdir(parents=True)
    (at / "README.md").write_text("mine")


def _stored(kind: str, kept: object, **shapes: tuple[int, ...]) -> Make:
    config = {"peft_type": kind, "rank_pattern": {"q.lora_E": kept} if kept else {}}
    tensors = {f"{PREFIX}q.{key}": np.ones(shape, "f4") for key, shape in shapes.items()}
    return lambda at: save(at, tensors, config)


PRUNED = {"lora_A": (3, 8), "lora_B": (6, 3), "lora_E": (3, 1)}
ADAPTERS: dict[str, Make] = {
    # Good ones: a and b fit each other in every way, the others each differ in one.
    "a": lora,
    "b": lambda at: lora(at, seed=1),
    "collected": lambda at: _collected(lora(at, seed=1), {}),
    "ill_collected": lambda at: _collected(lora(at, seed=1), {QUERY: (3, 3)}),
    "apart": lambda at: lora(at, seed=2, init=9),
    "rank8": lambda at: lora(at, seed=3, rank=8, alpha=16),
    "ranks": lambda at: lora(at, rank=dict(zip(SITES, (8, 4, 4, 4), strict=True))),
    "alpha16": lambda at: lora(at, seed=4, alpha=16),
    "small": lambda at: lora(at, sites={**SITES, "classifier": (2, 16)}),
    "layer_0": lambda at: lora(at, sites=LAYER_0),
    "other_sites": lambda at: lora(
        at, sites=ONE | {"encoder.layer.0.attention.self.key": (12, 16)}
    ),
    "no_site_of_a": lambda at: lora(at, sites={"encoder.layer.0.output.dense": (12, 16)}),
    "wider": lambda at: lora(at, sites=dict.fromkeys(SITES, (12, 20))),
    "tokens_40": lambda at: lora(at, sites={**SITES, "lm_head": (40, 16)}),
    "tokens_44": lambda at: lora(at, sites={**SITES, "lm_head": (44, 16)}),
    "wider_query": lambda at: lora(at, sites={**SITES, QUERY: (12, 20)}),
    "square": lambda at: lora(at, sites=SQUARE),
    "square_transposed": lambda at: lora(at, 1, sites=SQUARE, fan_in_fan_out=True),
    "resized": lambda at: lora(
        at, extra={f"{PREFIX}embed.base_layer.weight": np.ones((20, 16), "f4")}
    ),
    "zero3": lambda at: lora(at, extra={HEAD: np.ones((0,), "f4")}, modules_to_save=["classifier"]),
    "fused": lambda at: lora(at, enable_lora=[True, False, True]),
    "other_base": lambda at: lora(at, base_model_name_or_path="another/base"),
    "slashed": lambda at: lora(at, base_model_name_or_path="some/base/"),
    "capital": lambda at: lora(at, base_model_name_or_path="Some/Base"),
    "cached": lambda at: lora(
        at,
        base_model_name_or_path="/home/me/.cache/hub/models--some--base/snapshots/1f",
    ),
    "quantised": lambda at: lora(at, base_model_name_or_path="unsloth/Base-8b-unsloth-bnb-4bit"),
    "copied": lambda at: lora(at, base_model_name_or_path="/data/base"),
    "outside_layers": lambda at: lora(at, sites=LAYER_0 | {"head.query": (12, 16)}),
    "no_layers": lambda at: lora(at, sites={"query": (12, 16)}),
    "nested": lambda at: lora(at, sites={f"model.{site}": size for site, size in SITES.items()}),
    "moved": lambda at: lora(at, sites=_attention("language_model.model.layers.0")),
    "moved_since": lambda at: lora(at, 1, sites=_attention("model.language_model.layers.0")),
    "text": lambda at: lora(at, sites=_attention("model.layers.0")),
    "parallel": lambda at: lora(at, sites={f"module.{site}": size for site, size in SITES.items()}),
    "wrapped_in_part": lambda at: lora(at, sites=SITES | {f"_orig_mod.{QUERY}": (12, 16)}),
    "small_head": lambda at: lora(at, rank=2, sites=SITES | {"encoder.classifier": (2, 16)}),
    "zero_alpha": lambda at: lora(at, alpha=0),
    "double": lambda at: lora(at, sites=ONE, dtype=torch.float64),
    "half": lambda at: lora(at, dtype=torch.bfloat16),
    "ia3": ia3,
    "gains_bf16": lambda at: ia3(at, dtype=torch.bfloat16),
    "heads": lambda at: lora(at, **_heads(1)),
    "counted_heads": lambda at: lora(
        at, extra={HEAD: np.ones((2, 12), "i4")}, modules_to_save=["classifier"]
    ),
    "query_in_query": lambda at: lora(
        at, sites={"query": (12, 16), "encoder.query": (12, 16)}, target_modules=".*query"
    ),
    "other_heads": lambda at: lora(at, seed=1, **_heads(2)),
    "wild_heads": lambda at: lora(at, **_heads(1, f"{PREFIX}\x1b[31m\nhead.weight")),
    "other_wild_heads": lambda at: lora(at, **_heads(2, f"{PREFIX}\x1b[31m\nhead.weight")),
    "whole_head": lambda at: lora(at, **WHOLE_HEAD),
    "output": lambda at: lora(at, sites={"lm_head": (12, 16)}),
    "inside_a_head": lambda at: lora(at, sites={"classifier.dense": (12, 16)}),
    "attention": lambda at: lora(at, sites=ATTENTION, target_modules=["attn"]),
    # Directories that are none, or not whole.
    "empty": lambda at: at.mkdir(parents=True),
    "no_config": _no_config,
    "of_a_run": lambda at: [lora(at / f"checkpoint-{step}") for step in (500, 1000)],
    "of_a_run_of_one": lambda at: lora(at / "run" / "default"),
    "no_weights": _config({"peft_type": "LORA"}),
    "weights_renamed": _config({"peft_type": "LORA"}, "ink.safetensors"),
    "weights_in_shards": _config({"peft_type": "LORA"}, "1.safetensors", "2.safetensors"),
    "config_is_a_folder": lambda at: (at / "adapter_config.json").mkdir(parents=True),
    "occupied": _occupied,
    "readme": _readme,
    # Configs that are wrong.
    "config_not_json": _config("{"),
    "config_is_a_list": _config("[]"),
    "r_is_text": lambda at: lora(at, r="4"),
    "alpha_is_text": lambda at: lora(at, lora_alpha="8"),
    "rslora_is_text": lambda at: lora(at, use_rslora="yes"),
    "base_is_a_number": lambda at: lora(at, base_model_name_or_path=7),
    "pattern_is_text": lambda at: lora(at, rank_pattern="query=8"),
    "rank_pattern_of_zero": lambda at: lora(at, rank_pattern={"query": 0}),
    "heads_are_numbers": lambda at: lora(at, modules_to_save=[1]),
    "prompts": _config({"peft_type": "PROMPT_TUNING"}),
    "vera": _config({"peft_type": "VERA"}),
    "no_peft_type": _config({"r": 4}),
    "says_rank_8": lambda at: lora(at, r=8),
    "wrong_feedforward": lambda at: ia3(at, feedforward_modules=["key"]),
    "no_feedforward": lambda at: ia3(at, feedforward_modules=None),
    "untargeted": lambda at: lora(at, target_modules=["query"]),
    "slow_pattern": lambda at: lora(at, rank_pattern={"(?!b)(?:.|..)+[#-&]": 4}),
    "broken_pattern": lambda at: lora(at, rank_pattern={"(": 4}),
    # Features that arithmetic on the factors cannot keep.
    "alora": lambda at: lora(at, alora_invocation_tokens=[]),
    "pissa": lambda at: lora(at, init_lora_weights="pissa"),
    "misspelt_field": lambda at: lora(at, use_rslorra=True),
    "new_field": lambda at: lora(at, zigzag=True),
    # Tensors that are wrong.
    "dora_tensor": _with_tensor(f"{QUERY}.lora_magnitude_vector", (12,)),
    "bias_tensor": _with_tensor(f"{QUERY}.lora_B.bias", (12,)),
    "token_tensor": _with_tensor("embed.token_adapter.base_layer.weight", (2, 12)),
    "narrow_bias": _with_tensor(f"{QUERY}.lora_B.bias", (5,)),
    "biased": _with_tensor(f"{QUERY}.lora_B.bias", (12,), lora_bias=True),
    "foreign_tensor": _with_tensor(f"{QUERY}.hada_w1_a", (2, 12)),
    "experts_tensor": _tensors({"mlp.experts.base_layer.lora_A.weight": (4, 16)}),
    "lokr_of_one_axis": _stored("LOKR", {}, lokr_w1=(2, 2), lokr_w2=(3, 2, 5)),
    "pruned_otherwise": _stored("ADALORA", [True, False], **PRUNED),
    "lokr_of_everything": _stored("LOKR", {}, lokr_w1=(400, 400), lokr_w2=(400, 400)),
    "pruned_by_number": _stored("ADALORA", 2, **PRUNED),
    "no_B": _tensors({f"{QUERY}.lora_A.weight": (4, 16)}),
    "empty_factor": _factors((0,), (0,)),
    "empty_gain": lambda at: save(
        at, {f"{PREFIX}k.ia3_l": np.ones((0,), "f4")}, {"peft_type": "IA3"}
    ),
    "unfit": _factors((4, 16), (12, 5)),
    "grouped": _factors((4, 16, 3, 3), (12, 2, 1, 1)),
    "no_factors": _tensors({"classifier.weight": (2, 12)}),
    "no_gains": lambda at: save(at, {HEAD: np.ones((2, 12), "f4")}, {"peft_type": "IA3"}),
    "whole_numbers": lambda at: lora(at, sites=ONE, dtype=torch.int32),
    "nan": _holed(float("nan")),
    "infinite": _holed(float("inf")),
    # Files that are damaged.
    "short": _weights(lambda data: data[:5]),
    "truncated": _weights(lambda data: data[:-20]),
    "header_not_json": _weights(_header("{]")),
    "header_is_a_list": _weights(_header([])),
    "entry_not_whole": _weights(_entry(dtype="F32", shape=[2])),
    "entry_of_other_size": _weights(_entry(dtype="F32", shape=[2], data_offsets=[0, 4])),
    "entry_with_a_gap": _weights(_entry(dtype="F32", shape=[1], data_offsets=[4, 8])),
    "weights_are_a_folder": lambda at: (
        _config({"peft_type": "LORA"})(at),
        (at / "adapter_model.safetensors").mkdir(),
    ),
    "pickle_of_old": _pickled(
        lambda file: torch.save({"w": torch.ones(2)}, file, _use_new_zipfile_serialization=False)
    ),
    "pointer": _weights(lambda data: POINTER),
    "pointer_pickle": _pickled(lambda file: file.write_bytes(POINTER)),
    "pointer_config": _config(POINTER.decode()),
    "pickle_not_zip": _pickled(lambda file: file.write_bytes(b"not a zip file")),
    "pickle_of_code": _torch({"w": Counter()}),
    "pickle_of_a_list": _torch([torch.ones(2)]),
    "pickle_of_a_number": _torch({"w": 3}),
    "pickle_transposed": _torch({"w": torch.ones(2, 3).T}),
    "pickle_compressed": _pickled(_compressed),
    "pickle_is_a_folder": _pickled(lambda file: file.mkdir()),
}


def clear(root: Path) -> None:
    """Remove what a recipe built."""
    shutil.rmtree(root / "out", ignore_errors=True)
