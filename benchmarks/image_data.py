"""The LoRAs of an image model that the benchmarks read: of SDXL's shapes, by kohya's names, fp16.

    python image_data.py FOLDER RANK

makes two, 0.safetensors and 1.safetensors, on all modules that sd-scripts trains: the attention of
the UNet, and both text encoders.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# Channels, depth, and places of the UNet's transformers, by the names of SDXL's checkpoint.
TRANSFORMERS = (
    (640, 2, ("input_blocks_4_1", "input_blocks_5_1")),
    (1280, 10, ("input_blocks_7_1", "input_blocks_8_1", "middle_block_1")),
    (1280, 10, ("output_blocks_0_1", "output_blocks_1_1", "output_blocks_2_1")),
    (640, 2, ("output_blocks_3_1", "output_blocks_4_1", "output_blocks_5_1")),
)
CONTEXT = 2048
# Of the text encoders: width and layers.
ENCODERS = {"te1": (768, 12), "te2": (1280, 32)}

Module = tuple[str, int, int]


def modules() -> Iterator[Module]:
    """Name, in and out of each module."""
    for width, depth, places in TRANSFORMERS:
        for place in places:
            yield from _transformer(f"lora_unet_{place}", width, depth)
    for encoder, (width, layers) in ENCODERS.items():
        for layer in range(layers):
            name = f"lora_{encoder}_text_model_encoder_layers_{layer}"
            for part in "qkv":
                yield f"{name}_self_attn_{part}_proj", width, width
            yield f"{name}_self_attn_out_proj", width, width
            yield f"{name}_mlp_fc1", width, 4 * width
            yield f"{name}_mlp_fc2", 4 * width, width


def _transformer(name: str, width: int, depth: int) -> Iterator[Module]:
    yield f"{name}_proj_in", width, width
    yield f"{name}_proj_out", width, width
    for block in range(depth):
        inner = f"{name}_transformer_blocks_{block}"
        for attention, in_ in (("attn1", width), ("attn2", CONTEXT)):
            yield f"{inner}_{attention}_to_q", width, width
            yield f"{inner}_{attention}_to_k", in_, width
            yield f"{inner}_{attention}_to_v", in_, width
            yield f"{inner}_{attention}_to_out_0", width, width
        yield f"{inner}_ff_net_0_proj", width, 8 * width
        yield f"{inner}_ff_net_2", 4 * width, width


def make(file: Path, rank: int, alpha: float, seed: int) -> None:
    """A LoRA with normal numbers, unless it is there."""
    if file.exists():
        return
    shapes: dict[str, tuple[int, ...]] = {}
    for name, in_, out in modules():
        shapes[f"{name}.alpha"] = ()
        shapes[f"{name}.lora_down.weight"] = (rank, in_)
        shapes[f"{name}.lora_up.weight"] = (out, rank)
    header: dict[str, object] = {"__metadata__": {"ss_network_dim": str(rank)}}
    at = 0
    for key, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    file.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    new = file.with_suffix(".new")
    with new.open("wb") as opened:
        opened.write(len(raw).to_bytes(8, "little") + raw)
        for key, shape in shapes.items():
            drawn = 0.02 * draw.standard_normal(shape, dtype=np.float32)
            numbers = np.float16(alpha) if key.endswith(".alpha") else drawn
            opened.write(np.asarray(numbers, "<f2").tobytes())
    new.replace(file)


if __name__ == "__main__":
    place, words = Path(sys.argv[1]), sys.argv[2:]
    for number, share in enumerate((1.0, 0.5)):
        make(place / f"{number}.safetensors", int(words[0]), share * int(words[0]), number)
