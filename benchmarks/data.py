"""The adapters that the benchmarks read: LoRA on every linear layer of a 7B model, bf16.

    python data.py FOLDER COUNT RANK LAYERS

makes them; with 0 layers they have one module, 4096×4096, with −1 one of 11008×4096.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HIDDEN, INNER, LAYERS = 4096, 11008, 32
SCALE = 2.0
"""lora_alpha / r of all of them."""


def linears(layers: int) -> Iterator[tuple[str, int, int]]:
    """Name, in and out of each linear layer."""
    if layers <= 0:
        yield "q_proj", HIDDEN, INNER if layers else HIDDEN
    for layer in range(layers):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"model.layers.{layer}.self_attn.{name}", HIDDEN, HIDDEN
        for name in ("gate_proj", "up_proj"):
            yield f"model.layers.{layer}.mlp.{name}", HIDDEN, INNER
        yield f"model.layers.{layer}.mlp.down_proj", INNER, HIDDEN


def make(
    folder: Path, count: int, rank: int, sites: Sequence[tuple[str, int, int]], drawn: int = 3
) -> None:
    """Adapters 0, 1, … in a folder, unless they are there.

    Their A factors share a draw, as those of one initialisation do. The first `drawn` are drawn
    from a normal distribution; the others are the first with other low bits, which is quicker.
    """
    names = sorted(
        (f"base_model.model.{site}.lora_{factor}.weight", shape)
        for site, in_, out in sites
        for factor, shape in (("A", (rank, in_)), ("B", (out, rank)))
    )
    header = _header(names)
    for number in range(count):
        directory = folder / f"{number:03}"
        if (directory / "adapter_config.json").exists():
            continue
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "adapter_model.safetensors").open("wb") as file:
            file.write(header)
            for key, shape in names:
                file.write(_numbers(key, shape, number, drawn).tobytes())
        (directory / "adapter_config.json").write_text(json.dumps(_config(rank, sites)))


def _header(names: Sequence[tuple[str, tuple[int, int]]]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (rows, columns) in names:
        size = 2 * rows * columns
        header[name] = {
            "dtype": "BF16", "shape": [rows, columns], "data_offsets": [at, at + size],
        }  # fmt: skip
        at += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def _numbers(key: str, shape: tuple[int, int], number: int, drawn: int) -> NDArray[np.uint16]:
    seed = [ord(letter) for letter in key]
    own = np.random.default_rng([*seed, 1 + number])
    if number >= drawn:
        flips = own.integers(0, 1 << 16, shape, np.uint16) & np.uint16(0x003F)
        return _numbers(key, shape, 0, drawn) ^ flips
    found = own.standard_normal(shape, dtype=np.float32) * np.float32(0.01)
    if ".lora_A." in key:
        shared = np.random.default_rng([*seed, 0]).standard_normal(shape, dtype=np.float32)
        found += shared * np.float32(0.02)
    return (found.view(np.uint32) >> 16).astype(np.uint16)


def _config(rank: int, sites: Sequence[tuple[str, int, int]]) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": "benchmark",
        "r": rank,
        "lora_alpha": SCALE * rank,
        "target_modules": sorted({site.rpartition(".")[2] for site, _, _ in sites}),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def recipe(path: Path, adapters: Sequence[Path], expression: str, save: str) -> Path:
    """A recipe over adapters called a0, a1, …"""
    lines = ["language 1", *(f'adapter a{i} = "{a}"' for i, a in enumerate(adapters))]
    path.write_text("\n".join([*lines, expression, save, ""]), encoding="utf-8")
    return path


if __name__ == "__main__":
    place, count, rank, layers = sys.argv[1:]
    make(Path(place), int(count), int(rank), list(linears(int(layers))))
