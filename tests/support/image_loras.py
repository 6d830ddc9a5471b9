"""One-file LoRAs of image models, made and read without pemlang, and as diffusers loads them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

Shape = tuple[tuple[int, ...], tuple[int, ...]]
"""A without its rank axis, (in, …), and B without it, (out, …)."""

ENDS = {
    "kohya": (".lora_down.weight", ".lora_up.weight"),
    "peft": (".lora_A.weight", ".lora_B.weight"),
    "older": (".lora.down.weight", ".lora.up.weight"),
}


def factors(
    sites: Mapping[str, Shape], seed: int, rank: int = 4, dtype: str = "f4"
) -> dict[str, tuple[Any, Any]]:
    """Random A and B of each site."""
    random = np.random.default_rng(seed)
    return {
        site: (
            random.normal(size=(rank, *a)).astype(dtype),
            random.normal(size=(b[0], rank, *b[1:])).astype(dtype),
        )
        for site, (a, b) in sites.items()
    }


def image_lora(
    path: Path,
    pairs: Mapping[str, tuple[Any, Any]],
    alphas: Mapping[str, float] | float | None = 2.0,
    ends: tuple[str, str] = ENDS["kohya"],
    metadata: dict[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """Write a file of some factors; the Δ of each site in float64."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors, deltas = {}, {}
    for site, pair in pairs.items():
        alpha = alphas.get(site) if isinstance(alphas, Mapping) else alphas
        for end, factor in zip(ends, pair, strict=True):
            tensors[site + end] = factor
        if alpha is not None:
            tensors[f"{site}.alpha"] = np.array(alpha, "f4")
        deltas[site] = product(*pair) * (1 if alpha is None else alpha / len(pair[0]))
    save_file(tensors, path, metadata)
    return deltas


def product(a: Any, b: Any) -> np.ndarray:
    """B·A in float64."""
    whole: np.ndarray = b.reshape(len(b), -1).astype("f8") @ a.reshape(len(a), -1).astype("f8")
    return whole


def image_deltas(path: Path, ends: tuple[str, str] = ENDS["kohya"]) -> dict[str, np.ndarray]:
    """The Δ of each site of a file in float64, by the arithmetic of its readers: α/r where α is
    there, else 1."""
    tensors = load_file(path)
    deltas = {}
    for key, a in tensors.items():
        if key.endswith(ends[0]):
            site = key.removesuffix(ends[0])
            alpha = tensors.get(f"{site}.alpha")
            scale = 1.0 if alpha is None else float(alpha.item()) / len(a)
            deltas[site] = scale * product(a, tensors[site + ends[1]])
    return deltas


def metadata_of(path: Path) -> dict[str, str]:
    """What a file says of itself."""
    with safe_open(path, "np") as file:
        return dict(file.metadata() or {})


# --- diffusers -------------------------------------------------------------------------------


@cache
def small_unet() -> Any:
    """A UNet of the make of Stable Diffusion 1.5, small."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=12,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def unet_sites() -> dict[str, Shape]:
    """The modules of its transformers that trainers adapt, linear and 1×1 convolutions."""
    sites = {}
    for name, module in small_unet().named_modules():
        weight = getattr(module, "weight", None)
        if "attentions" in name and weight is not None and weight.ndim in (2, 4):
            out, in_, *kernel = weight.shape
            sites[name] = ((in_, *kernel), (out, *(1 for _ in kernel)))
    return sites


def as_diffusers_loads(path: Path) -> dict[str, np.ndarray]:
    """The Δ of each module of the small UNet in float64, as diffusers loads a file."""
    from diffusers import UNet2DConditionModel
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    state, alphas, metadata = StableDiffusionLoraLoaderMixin.lora_state_dict(
        str(path.parent), weight_name=path.name, return_lora_metadata=True
    )
    unet = UNet2DConditionModel.from_config(small_unet().config)
    unet.load_lora_adapter(
        state, prefix="unet", network_alphas=alphas, metadata=metadata, adapter_name="x"
    )
    return loaded_deltas(unet)


def loaded_deltas(model: Any) -> dict[str, np.ndarray]:
    """The Δ of each module that an adapter `x` of a model changes, in float64."""
    deltas = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and "x" in module.lora_A:
            a, b = (getattr(module, x)["x"].weight.detach().numpy() for x in ("lora_A", "lora_B"))
            deltas[name] = module.scaling["x"] * product(a, b)
    return deltas
