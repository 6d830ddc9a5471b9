"""Adapters made for tests. Nothing here uses pemlang's own readers or
writers: files are written and read with the safetensors package, Δ is formed densely in NumPy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

PREFIX = "base_model.model."
SITES = {
    "encoder.layer.0.attention.self.query": (12, 16),
    "encoder.layer.0.attention.self.value": (12, 16),
    "encoder.layer.1.attention.self.query": (12, 16),
    "encoder.layer.1.attention.self.value": (12, 16),
}

Dense = dict[str, NDArray[np.float64]]


def save(directory: Path, tensors: Mapping[str, Any], config: Mapping[str, Any]) -> Path:
    """Write an adapter directory as PEFT does."""
    directory.mkdir(parents=True, exist_ok=True)
    whole = {key: torch.as_tensor(value).contiguous() for key, value in tensors.items()}
    save_file(whole, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    text = json.dumps({key: value for key, value in config.items() if value is not ...})
    (directory / "adapter_config.json").write_text(text)
    return directory


def lora(
    directory: Path,
    seed: int = 0,
    sites: Mapping[str, tuple[int, int]] = SITES,
    rank: int | Mapping[str, int] = 4,
    alpha: float = 8,
    dtype: torch.dtype = torch.float32,
    init: int = 0,
    extra: Mapping[str, Any] | None = None,
    **config: Any,
) -> Path:
    """A random LoRA of Linear modules; sites are (out, in).

    Adapters of one `init` share an initialisation: their A factors are one draw, a little moved.
    `extra` are further tensors; a config field given as ... is left out.
    """
    shared, own = np.random.default_rng(init), np.random.default_rng(1000 + seed)
    tensors: dict[str, Any] = dict(extra or {})
    for site, (out, in_) in sites.items():
        r = rank if isinstance(rank, int) else rank[site]
        a = shared.normal(size=(r, in_)) + 0.1 * own.normal(size=(r, in_))
        b = own.normal(size=(out, r))
        for name, array in (("A", a), ("B", b)):
            tensors[f"{PREFIX}{site}.lora_{name}.weight"] = torch.as_tensor(array).to(dtype)
    fields = {
        "peft_type": "LORA",
        "r": rank if isinstance(rank, int) else max(rank.values()),
        "lora_alpha": alpha,
        "target_modules": sorted({site.rsplit(".", 1)[-1] for site in sites}),
        "base_model_name_or_path": "some/base",
    }
    if not isinstance(rank, int):
        fields["rank_pattern"] = dict(rank)
    return save(directory, tensors, fields | config)


def ia3(
    directory: Path,
    seed: int = 0,
    outputs: Mapping[str, int] | None = None,
    inputs: Mapping[str, int] | None = None,
    dtype: torch.dtype = torch.float32,
    extra: Mapping[str, Any] | None = None,
    **config: Any,
) -> Path:
    """A random (IA)³: vectors over the outputs of some modules, over the inputs of others."""
    outputs = {"layer.0.key": 6, "layer.1.key": 6} if outputs is None else outputs
    inputs = {"layer.0.down": 10, "layer.1.down": 10} if inputs is None else inputs
    rng = np.random.default_rng(seed)
    tensors: dict[str, Any] = dict(extra or {})
    shapes = {site: (n, 1) for site, n in outputs.items()} | {s: (1, n) for s, n in inputs.items()}
    for site, shape in shapes.items():
        vector = 1 + 0.3 * rng.normal(size=shape)
        tensors[f"{PREFIX}{site}.ia3_l"] = torch.as_tensor(vector).to(dtype)
    fields = {
        "peft_type": "IA3",
        "target_modules": sorted({site.rsplit(".", 1)[-1] for site in shapes}),
        "feedforward_modules": sorted({site.rsplit(".", 1)[-1] for site in inputs}),
        "base_model_name_or_path": "some/base",
    }
    return save(directory, tensors, fields | config)


def config_of(directory: Path) -> dict[str, Any]:
    """The adapter_config.json of a directory."""
    found: dict[str, Any] = json.loads((directory / "adapter_config.json").read_text())
    return found


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    """The tensors of a directory."""
    return load_file(directory / "adapter_model.safetensors")


def delta(directory: Path) -> Dense:
    """Dense Δ at each site of a LoRA of Linear modules, from its files, in float64: s·B·A with
    s = α/r or α/√r, ranks and alphas as PEFT finds them."""
    from peft.utils.other import get_pattern_key

    config, tensors = config_of(directory), tensors_of(directory)
    found: Dense = {}
    for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
        site = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        a = tensors[key].to(torch.float64).numpy()
        b = tensors[key.replace("lora_A", "lora_B")].to(torch.float64).numpy()
        alphas = config.get("alpha_pattern") or {}
        alpha = alphas.get(get_pattern_key(alphas.keys(), site), config["lora_alpha"])
        r = a.shape[0]
        scale = alpha / math.sqrt(r) if config.get("use_rslora") else alpha / r
        found[site] = scale * b @ a
    return found


def gains(directory: Path) -> Dense:
    """l at each site of an (IA)³, in float64."""
    return {
        key.removeprefix(PREFIX).removesuffix(".ia3_l"): value.to(torch.float64).numpy()
        for key, value in tensors_of(directory).items()
        if key.endswith(".ia3_l")
    }
