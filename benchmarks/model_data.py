"""The models that the benchmarks read: Llama-shaped, bf16, in one file or in shards.

    python model_data.py FOLDER HIDDEN LAYERS SHARDS

makes a base, two fine-tunes of it, `m1` and `m2`, and one of low rank and some noise, `low`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

VOCABULARY = 8192
HEAD = 64
RANK = 32
"""Of what the fine-tune of low rank adds to a matrix."""

POOL = (1 << 24) + 43
"""Draws that all weights are made of: each tensor begins somewhere else in them."""

Float = NDArray[np.float32]
Shape = tuple[int, ...]


def shapes(hidden: int, layers: int) -> Iterator[tuple[str, Shape]]:
    """Name and shape of each tensor."""
    inner = 11 * hidden // 4
    yield "lm_head.weight", (VOCABULARY, hidden)
    yield "model.embed_tokens.weight", (VOCABULARY, hidden)
    for layer in range(layers):
        place = f"model.layers.{layer}"
        for name in "qkvo":
            yield f"{place}.self_attn.{name}_proj.weight", (hidden, hidden)
        for name in ("gate", "up"):
            yield f"{place}.mlp.{name}_proj.weight", (inner, hidden)
        yield f"{place}.mlp.down_proj.weight", (hidden, inner)
        for name in ("input", "post_attention"):
            yield f"{place}.{name}_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)


class Draws:
    """Normally distributed numbers by the name of what they are for."""

    def __init__(self) -> None:
        self._pool = np.random.default_rng(0).standard_normal(POOL, dtype=np.float32)

    def of(self, shape: Shape, *name: object) -> Float:
        """Numbers of a shape."""
        seed = [ord(letter) for letter in repr(name)]
        start = int(np.random.default_rng(seed).integers(POOL))
        return np.resize(np.roll(self._pool, -start), shape)


def weights(draws: Draws, model: str, name: str, shape: Shape) -> Float:
    """A tensor of a model, before it is rounded."""
    base = np.float32(0.02) * draws.of(shape, name)
    if model == "base":
        return base
    if model != "low":
        return base + np.float32(0.002) * draws.of(shape, model, name)
    noise = base + np.float32(1e-4) * draws.of(shape, model, name)
    if len(shape) < 2:
        return noise
    b, a = draws.of((shape[0], RANK), "b", name), draws.of((RANK, shape[1]), "a", name)
    return noise + np.float32(0.002 / RANK**0.5) * (b @ a)


def make(folder: Path, hidden: int, layers: int, shards: int) -> None:
    """All models, unless they are there."""
    names = list(shapes(hidden, layers))
    models = ("base", "m1", "m2") if shards > 1 else ("base", "m1", "m2", "low")
    if all((folder / model / "config.json").exists() for model in models):
        return
    draws = Draws()
    for model in models:
        directory = folder / model
        directory.mkdir(parents=True, exist_ok=True)
        each = -(-len(names) // shards)
        parts = [names[first : first + each] for first in range(0, len(names), each)]
        files = [f"model-{n + 1:05}-of-{len(parts):05}.safetensors" for n in range(len(parts))]
        files = ["model.safetensors"] if len(parts) == 1 else files
        for file, part in zip(files, parts, strict=True):
            write(directory / file, draws, model, part)
        if len(parts) > 1:
            where = {
                name: file for file, part in zip(files, parts, strict=True) for name, _ in part
            }
            index = {"metadata": {}, "weight_map": where}
            (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        (directory / "config.json").write_text(json.dumps(config(hidden, layers)))


def write(path: Path, draws: Draws, model: str, tensors: Sequence[tuple[str, Shape]]) -> None:
    """One file of weights."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors:
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name, shape in tensors:
            bits = weights(draws, model, name, shape).view(np.uint32)
            file.write(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).data)


def config(hidden: int, layers: int) -> Mapping[str, object]:
    """What `from_pretrained` needs."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 11 * hidden // 4,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // HEAD,
        "num_key_value_heads": hidden // HEAD,
        "head_dim": HEAD,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


if __name__ == "__main__":
    place, *numbers = sys.argv[1:]
    make(Path(place), *map(int, numbers))
