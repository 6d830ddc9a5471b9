"""Models made for tests. Nothing that makes them uses pemlang's own readers or writers."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

import pemlang

SHAPES = {
    "model.embed_tokens.weight": (30, 12),
    "model.layers.0.self_attn.q_proj.weight": (12, 12),
    "model.layers.0.self_attn.q_proj.bias": (12,),
    "model.layers.0.mlp.up_proj.weight": (20, 12),
    "model.layers.0.norm.weight": (12,),
    "model.layers.1.self_attn.q_proj.weight": (12, 12),
    "model.layers.1.self_attn.q_proj.bias": (12,),
    "model.layers.1.mlp.up_proj.weight": (20, 12),
    "model.layers.1.norm.weight": (12,),
    "lm_head.weight": (30, 12),
    "scale": (),
}
POSITIONS = "model.positions"
"""A buffer: whole numbers, which nothing is added to."""

DECLARED = 'base b = "b"\nmodel m on b = "m"\nmodel n on b = "n"\n'

Weights = dict[str, NDArray[np.float64]]


def model(
    directory: Path,
    tuned: int = 0,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    **config: object,
) -> Path:
    """A model directory: a base, or a fine-tune of it by a number that tells it from others."""
    base, own = np.random.default_rng(0), np.random.default_rng(tuned)
    tensors = {POSITIONS: torch.arange(6)}
    for name, shape in shapes.items():
        weights = base.normal(size=shape) + (0.1 * own.normal(size=shape) if tuned else 0)
        tensors[name] = torch.as_tensor(weights).to(dtype)
    directory.mkdir(parents=True, exist_ok=True)
    names = sorted(tensors)
    parts = [names[first::shards] for first in range(shards)]
    files = [f"model-{n + 1:05}-of-{shards:05}.safetensors" for n in range(shards)]
    files = ["model.safetensors"] if shards == 1 else files
    for file, part in zip(files, parts, strict=True):
        save_file({name: tensors[name] for name in part}, directory / file, {"format": "pt"})
    if shards > 1:
        where = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        index = {"metadata": {"total_size": 0}, "weight_map": where}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    fields = {"model_type": "llama", "torch_dtype": str(dtype).removeprefix("torch."), **config}
    (directory / "config.json").write_text(json.dumps(fields))
    (directory / "tokenizer.json").write_text('{"version": "1.0"}')
    return directory


def weights_of(directory: Path) -> Weights:
    """The weights of a model in float64, but for its buffers."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(file)
    return {k: x.double().numpy() for k, x in tensors.items() if x.is_floating_point()}


def away(left: Weights, right: Weights) -> float:
    """The largest difference of two models' weights."""
    assert left.keys() == right.keys()
    return max(float(np.abs(left[key] - right[key]).max()) for key in left)


def left(folder: Path) -> list[Path]:
    """The hidden folders beside the outputs in `out`."""
    return [path for path in (folder / "out").iterdir() if path.name.startswith(".")]


def stopped(folder: Path, after: int = 3) -> Path:
    """What a build leaves that finds no space once it has finished some shards."""

    def flush(*args: object) -> None:
        nonlocal after
        after -= 1
        if after < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pemlang.artifact.staging.Stage.flush", flush)
        with pytest.raises(pemlang.PemError) as caught:
            pemlang.load(folder / "recipe.pem").build()
    [told] = caught.value.diagnostics
    assert told.code == "PEM0512" and "`pem build --resume`" in told.notes[0]
    return left(folder)[0]
