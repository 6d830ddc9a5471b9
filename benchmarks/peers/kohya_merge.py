"""0.7·a + 0.3·b of two LoRAs in kohya's files, in the steps of sd-scripts' merge with `--concat`:
in float32, weights on both factors, and in the header the SHA-256 of what is saved in fp16.

    python kohya_merge.py OUT A B
"""

from __future__ import annotations

import hashlib
import math
import sys

import torch
from safetensors.torch import load_file, save, save_file

out, *inputs = sys.argv[1:]
merged: dict[str, torch.Tensor] = {}
for weight, name in zip((0.7, 0.3), inputs, strict=True):
    adapter = {key: tensor.float() for key, tensor in load_file(name).items()}
    for key, tensor in adapter.items():
        module, _, part = key.partition(".")
        if part == "alpha":
            continue
        # Ranks add up, and α is written as that of all: a share of √(w·α/r) on either factor.
        rank = len(adapter[f"{module}.lora_down.weight"])
        scaled = math.sqrt(weight * adapter[f"{module}.alpha"].item() / rank) * tensor
        before = [merged[key]] if key in merged else []
        merged[key] = torch.cat([*before, scaled], dim=0 if part == "lora_down.weight" else 1)
for key in [key for key in merged if key.endswith(".lora_down.weight")]:
    module = key.partition(".")[0]
    merged[f"{module}.alpha"] = torch.tensor(float(len(merged[key])))
merged = {key: tensor.half() for key, tensor in merged.items()}
digest = hashlib.sha256(save(merged)).hexdigest()
save_file(merged, out, {"sshs_model_hash": digest})
