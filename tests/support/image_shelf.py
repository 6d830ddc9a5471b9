"""One-file LoRAs of image models for messages: two that are right, and others that are not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from support.image_loras import ENDS, factors, image_lora

SITES = {f"lora_unet_mid_block_to_{x}": ((8,), (6,)) for x in "qkv"}
DOTTED = {f"unet.mid_block.to_{x}": ((8,), (6,)) for x in "qkv"}
Q, DOTTED_Q = next(iter(SITES)), next(iter(DOTTED))

WRONG: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "tucker": {".lora_mid.weight": (4, 4, 3, 3)},
    "dora": {".dora_scale": (6, 1)},
    "loha": {".hada_w1_a": (6, 2)},
    "extra": {".more": (1,)},
    "both": {".diff": (6, 8)},
    "askew": {"_2.diff": (6, 8), "_2.diff_b": (8,)},
    "scaled": {"_2.diff": (6, 8), "_2.alpha": ()},
    "norms": {"_2.w_norm": (6,)},
    "half": {"_2.lora_up.weight": (6, 4)},
    "unfit": {"_2.lora_up.weight": (6, 4), "_2.lora_down.weight": (2, 8)},
    "doubled": {".lora_A.weight": (4, 8)},
    "alphas": {"_2.lora_up.weight": (6, 4), "_2.lora_down.weight": (4, 8), "_2.alpha": (2,)},
}
"""What a file has beside what is right, by its name."""


def stock(styles: Path) -> None:
    """Put them into a folder."""
    pairs, dotted = factors(SITES, 1), factors(DOTTED, 2)
    image_lora(styles / "ink.safetensors", pairs)
    image_lora(styles / "wash.safetensors", dotted, None, ENDS["peft"])
    image_lora(styles / "zero.safetensors", pairs, {Q: 0.0})
    image_lora(styles / "nan.safetensors", pairs, {Q: float("nan")})
    plain = {
        site + end: factor
        for site, pair in pairs.items()
        for end, factor in zip(ENDS["kohya"], pair, strict=True)
    }
    for name, more in WRONG.items():
        save_file(
            plain | {Q + end: np.ones(shape, "f4") for end, shape in more.items()},
            styles / f"{name}.safetensors",
        )
    whole = {f"{Q}{end}": np.ones((4, 4), "i4") for end in ENDS["kohya"]}
    save_file(whole, styles / "whole.safetensors")
    said: dict[str, object] = {
        "text": "[",
        "part": json.dumps({"elsewhere.r": 4}),
        "rank": json.dumps({"unet.r": 8, "unet.lora_alpha": 8}),
        "twice": json.dumps({"unet.r": 4, "unet.lora_alpha": 8}),
    }
    for name, text in said.items():
        alphas = {DOTTED_Q: 2.0} if name == "twice" else None
        metadata = {"lora_adapter_metadata": str(text)}
        image_lora(styles / f"said_{name}.safetensors", dotted, alphas, ENDS["peft"], metadata)
    for name, sites in {"alike": ("unet.a.b", "unet.a_b"), "control": ("controlnet.a",)}.items():
        alike = factors(dict.fromkeys(sites, ((8,), (6,))), 1)
        image_lora(styles / f"{name}.safetensors", alike, None, ENDS["peft"])
    (styles / "folder.safetensors").mkdir()
    (styles / "link.safetensors").symlink_to("ink.safetensors")
