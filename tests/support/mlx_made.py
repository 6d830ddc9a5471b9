"""Adapters of mlx-lm: made and loaded by mlx-lm itself where it is installed, else by its rules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

SITES = {
    f"model.layers.{i}.{name}": shape
    for i in range(2)
    for name, shape in {
        "self_attn.q_proj": (32, 32),
        "self_attn.v_proj": (16, 32),
        "mlp.down_proj": (32, 48),
    }.items()
}
KEYS = ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"]
WEIGHTS = "adapters.safetensors"
Deltas = Mapping[str, NDArray[np.float64]]


def mlx_lora(
    folder: Path,
    seed: int,
    sites: Mapping[str, tuple[int, int]] = SITES,
    rank: int = 4,
    parameters: Mapping[str, Any] | None = None,
    dtype: str = "f4",
    extra: Mapping[str, Any] | None = None,
    **config: Any,
) -> Path:
    """A random LoRA in the layout of mlx_lm.lora; sites are (out, in). A field of the config that
    is given as ... is left out."""
    random = np.random.default_rng(seed)
    tensors: dict[str, Any] = {}
    for site, (out, in_) in sites.items():
        tensors[f"{site}.lora_a"] = random.normal(size=(in_, rank)).astype(dtype)
        tensors[f"{site}.lora_b"] = random.normal(size=(rank, out)).astype(dtype)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({**tensors, **(extra or {})}, folder / WEIGHTS, {"format": "mlx"})
    fields = {
        "fine_tune_type": "lora",
        "lora_parameters": {"rank": rank, "scale": 10.0, "dropout": 0.0, "keys": KEYS},
        "model": "some/base",
        "num_layers": 2,
        "learning_rate": 1e-5,
        **config,
    }
    if parameters is not None:
        fields["lora_parameters"] = {
            key: value
            for key, value in {**fields["lora_parameters"], **parameters}.items()
            if value is not ...
        }
    text = json.dumps({key: value for key, value in fields.items() if value is not ...}, indent=4)
    (folder / "adapter_config.json").write_text(text)
    return folder


def mlx_deltas(folder: Path) -> Deltas:
    """The Δ of each site in float64: scale·(a·b)ᵀ, (out, in); of an embedding the transpose."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = {key: x.astype("f8") for key, x in load_file(folder / WEIGHTS).items()}
    return {
        key.removesuffix(".lora_a"): config["lora_parameters"]["scale"]
        * (a @ tensors[key.replace("lora_a", "lora_b")]).T
        for key, a in tensors.items()
        if key.endswith(".lora_a")
    }


# --- what is wrong with one ------------------------------------------------------------------

EXPERTS = {f"model.layers.0.mlp.switch_mlp.up_proj.lora_{x}": np.ones((4, 2, 2)) for x in "ab"}
M = {"model.layers.0.self_attn.q_proj.m": np.ones(32)}
BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "DoRA": ("PEM0421", {"fine_tune_type": "dora"}),
    "DoRA by its tensors": ("PEM0421", {"extra": M}),
    "whole weights": ("PEM0421", {"fine_tune_type": "full"}),
    "experts": ("PEM0421", {"extra": EXPERTS}),
    "another method": ("PEM0414", {"fine_tune_type": "prefix"}),
    "no type": ("PEM0414", {"fine_tune_type": ["lora"]}),
    "no parameters": ("PEM0414", {"lora_parameters": ...}),
    "no scale": ("PEM0414", {"parameters": {"scale": ..., "alpha": 16}}),
    "a scale that is none": ("PEM0414", {"parameters": {"scale": float("nan")}}),
    "a huge scale": ("PEM0414", {"parameters": {"scale": 10**400}}),
    "a truth": ("PEM0414", {"parameters": {"scale": True}}),
    "no rank": ("PEM0414", {"parameters": {"rank": 0}}),
    "another rank": ("PEM0415", {"parameters": {"rank": 8}}),
    "other keys": ("PEM0415", {"parameters": {"keys": ["self_attn.q_proj"]}}),
    "no keys": ("PEM0414", {"parameters": {"keys": "self_attn.q_proj"}}),
    "a weight": ("PEM0416", {"extra": {"model.norm.weight": np.ones(4)}}),
    "half a site": ("PEM0417", {"extra": {"lm_head.lora_a": np.ones((32, 4))}}),
    "what does not fit": (
        "PEM0417",
        {"extra": {"lm_head.lora_a": np.ones((32, 4)), "lm_head.lora_b": np.ones((8, 40))}},
    ),
    "nothing": ("PEM0418", {"sites": {}}),
    "whole numbers": (
        "PEM0419",
        {"extra": {f"lm_head.lora_{x}": np.ones((4, 4), "i4") for x in "ab"},
         "parameters": {"keys": [*KEYS, "lm_head"]}},
    ),
}  # fmt: skip
"""The code of each, and what is other than in `mlx_lora`."""


# --- mlx-lm itself ---------------------------------------------------------------------------


def mlx_model() -> Any:
    """A model of two layers, of the shape of peft_made.llama."""
    from mlx_lm.models.llama import Model, ModelArgs

    return Model(
        ModelArgs(
            model_type="llama", hidden_size=32, num_hidden_layers=2, intermediate_size=48,
            num_attention_heads=4, num_key_value_heads=2, vocab_size=40, rms_norm_eps=1e-6,
            tie_word_embeddings=False,
        )
    )  # fmt: skip


def trained(folder: Path, seed: int, keys: list[str], scale: float, rank: int = 4) -> Path:
    """An adapter as `mlx_lm.lora` saves it: its own layers, its own config and its own writer."""
    import mlx.core as mx
    from mlx.utils import tree_flatten, tree_map
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import save_config

    mx.random.seed(seed)
    model, folder = mlx_model(), Path(folder)
    parameters = {"rank": rank, "scale": scale, "dropout": 0.0, "keys": keys}
    model.freeze()
    linear_to_lora_layers(model, 2, parameters)
    model.update(
        tree_map(lambda x: x + 0.1 * mx.random.normal(x.shape), model.trainable_parameters())
    )
    folder.mkdir(parents=True)
    args = {
        "model": "some/base", "fine_tune_type": "lora", "num_layers": 2, "iters": 1000,
        "lora_parameters": parameters, "lr_schedule": None, "optimizer_config": {"adam": {}},
    }  # fmt: skip
    save_config(args, folder / "adapter_config.json")
    mx.save_safetensors(str(folder / WEIGHTS), dict(tree_flatten(model.trainable_parameters())))
    return folder


def as_mlx_loads(folder: Path) -> Deltas:
    """The Δ of each adapted module in float64, (out, in), as mlx-lm loads an adapter; of a module
    that it adapts and that has none in the files it is zero, and left out."""
    from mlx_lm.tuner.utils import load_adapters

    model = load_adapters(mlx_model(), str(folder))
    adapted = {name: x for name, x in model.named_modules() if "lora_a" in x}
    whole = {
        name: module.scale * (np.array(module.lora_a, "f8") @ np.array(module.lora_b, "f8")).T
        for name, module in adapted.items()
    }
    return {name: delta for name, delta in whole.items() if delta.any()}
