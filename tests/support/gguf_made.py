"""LoRAs of llama.cpp: written and read by its own `gguf` package, as its converter does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

SITES = {
    f"blk.{i}.{name}": shape
    for i in range(2)
    for name, shape in {
        "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "ffn_down": (32, 48),
    }.items()
}  # fmt: skip
EMBEDDING = {"token_embd": (32, 40)}
FLOATS: dict[str, Any] = {"f32": np.float32, "f16": np.float16}
Deltas = Mapping[str, NDArray[np.float64]]


def gguf_lora(
    path: Path,
    seed: int,
    sites: Mapping[str, tuple[int, int]] = SITES,
    rank: int = 4,
    alpha: Any = 8.0,
    architecture: str = "llama",
    dtype: str = "f32",
    extra: Mapping[str, Any] | None = None,
    fields: Mapping[str, str | int] | None = None,
    kind: str = "adapter",
    method: str = "lora",
    tokens: Any = None,
    quantised: bool = False,
) -> Path:
    """A random LoRA; sites are (out, in)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(kind)
    writer.add_string(gguf.Keys.Adapter.TYPE, method)
    if isinstance(alpha, str):
        writer.add_string(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    elif alpha is not None:
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for key, value in (fields or {}).items():
        add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint64}
        add[type(value)](key, value)
    if tokens is not None:
        writer.add_array(gguf.Keys.Adapter.ALORA_INVOCATION_TOKENS, tokens)
    tensors: dict[str, Any] = {}
    for site, (out, in_) in sites.items():
        a, b = random.normal(size=(rank, in_)), random.normal(size=(out, rank))
        tensors[f"{site}.weight.lora_a"] = a.T if site in EMBEDDING else a
        tensors[f"{site}.weight.lora_b"] = b
    for name, tensor in tensors.items():
        _add(writer, name, tensor, dtype, quantised)
    for name, tensor in (extra or {}).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: Any, name: str, tensor: Any, dtype: str, quantised: bool) -> None:
    if quantised:
        wide = np.resize(tensor, (len(tensor), 32)).astype("f4")
        raw = gguf.quants.quantize(wide, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    elif dtype == "bf16":
        raw = gguf.quants.quantize(tensor.astype("f4"), gguf.GGMLQuantizationType.BF16)
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    else:
        writer.add_tensor(name, np.ascontiguousarray(tensor, FLOATS[dtype]))


def gguf_tensors(path: Path) -> dict[str, NDArray[np.float64]]:
    """The tensors of a file, as the `gguf` package reads them."""
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype("f8")
        for tensor in gguf.GGUFReader(path).tensors
    }


def gguf_fields(path: Path) -> dict[str, Any]:
    """What a file says of itself, as the `gguf` package reads it."""
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}


def gguf_deltas(path: Path) -> Deltas:
    """The Δ of each site in float64, (out, in), by llama.cpp's arithmetic: α over the rank of
    lora_b, and 1 where α is 0 or not said."""
    tensors, alpha = gguf_tensors(path), gguf_fields(path).get(gguf.Keys.Adapter.LORA_ALPHA)
    deltas = {}
    for key, a in tensors.items():
        if key.endswith(".lora_a"):
            b = tensors[key.replace("lora_a", "lora_b")]
            site = key.removesuffix(".weight.lora_a")
            scale = alpha / b.shape[1] if alpha else 1.0
            deltas[site] = scale * b @ (a.T if site in EMBEDDING else a)
    return deltas


# --- what is wrong with one ------------------------------------------------------------------


def pair(a: tuple[int, ...], b: tuple[int, ...], dtype: str = "f4") -> dict[str, Any]:
    """Two factors of a site of their own."""
    shapes = {"a": a, "b": b}
    return {f"output.weight.lora_{x}": np.ones(shape, dtype) for x, shape in shapes.items()}


BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "a model": ("PEM0410", {"kind": "model"}),
    "a weight": ("PEM0416", {"extra": {"blk.0.attn_norm.weight": np.ones(4, "f4")}}),
    "half a site": ("PEM0417", {"extra": {"output.weight.lora_a": np.ones((4, 32), "f4")}}),
    "what does not fit": ("PEM0417", {"extra": pair((4, 32), (40, 3))}),
    "an empty factor": ("PEM0417", {"extra": pair((0, 32), (40, 0))}),
    "nothing": ("PEM0418", {"sites": {}}),
    "quantised": ("PEM0419", {"quantised": True}),
    "whole numbers": ("PEM0419", {"extra": pair((4, 32), (40, 4), "i4")}),
    "experts": ("PEM0421", {"extra": pair((2, 4, 32), (2, 40, 4))}),
    "another method": ("PEM0421", {"method": "control_vector"}),
    "an activated LoRA": ("PEM0421", {"tokens": [1, 2]}),
    "an alpha of text": ("PEM0425", {"alpha": "16"}),
    "an endless alpha": ("PEM0425", {"alpha": float("inf")}),
}
"""The code of each, and what is other than in `gguf_lora`."""
