"""Adapters and models in which several modules are one, for cases of messages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from support.adapters import PREFIX, lora, save
from support.models import model

Shape = tuple[int, int]
ATTENTION = "layers.0.self_attn"


def stock(root: Path) -> None:
    """Write them below `root/adapters` and `root/models`."""
    lora(root / "adapters" / "in_one", sites={f"{ATTENTION}.qkv_proj": (12, 16)})
    parts = {f"{ATTENTION}.{x}_proj": (size, 16) for x, size in (("q", 6), ("v", 3))}
    lora(root / "adapters" / "in_parts", sites=parts)
    both = ["experts.gate_up_proj", "experts.down_proj"]
    one = {"experts": ((6, 4), (5, 6))}
    _experts(root / "adapters" / "experts", one, both[1:])
    _experts(root / "adapters" / "experts_lacking", one, both)
    _experts(root / "adapters" / "experts_ill", {"experts": ((5, 4), (5, 5))}, both[1:])
    nested = {**one, "experts.base_layer": ((6, 5), (8, 6))}
    _experts(root / "adapters" / "experts_of_no_order", nested, ["experts.w1", "experts.w2"])
    _experts(root / "adapters" / "experts_with_dora", one, both[1:], use_dora=True)
    bias = {f"{PREFIX}{ATTENTION}.qkv_proj.base_layer.bias": np.ones(12, "f4")}
    lora(
        root / "adapters" / "in_one_with_bias", sites={f"{ATTENTION}.qkv_proj": (12, 16)},
        extra=bias, bias="lora_only",
    )  # fmt: skip
    apart = {f"mlp.experts.{n}.down_proj": (5, 4) for n in range(3)}
    lora(root / "adapters" / "experts_apart", sites=apart)
    model(root / "models" / "experts", 1, {"mlp.experts.down_proj": (3, 5, 4)})
    model(root / "models" / "experts_apart", 1, {f"{x}.weight": apart[x] for x in apart})
    model(root / "models" / "parts", 1, {f"{ATTENTION}.{x}_proj.weight": (4, 16) for x in "qkv"})


def _experts(
    at: Path, shapes: Mapping[str, tuple[Shape, Shape]], parameters: list[str], **more: object
) -> None:
    """LoRAs of rank 2 of parameters in `mlp`."""
    tensors = {
        f"{PREFIX}mlp.{place}.lora_{factor}.weight": np.ones(shape, "f4")
        for place, both in shapes.items()
        for factor, shape in zip("AB", both, strict=True)
    }
    config = {
        "r": 2,
        "lora_alpha": 4,
        "target_modules": [],
        "target_parameters": parameters,
        **more,
    }
    save(at, tensors, {"peft_type": "LORA", "base_model_name_or_path": "some/base", **config})
