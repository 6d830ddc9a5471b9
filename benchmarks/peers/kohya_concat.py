"""0.7·a + 0.3·b of two LoRAs in kohya's files, as scripts do it: both are loaded, the factors of
each module are put beside each other, and what comes out is saved.

    python kohya_concat.py OUT A B
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import load_file, save_file

out, *inputs = sys.argv[1:]
adapters = [load_file(name) for name in inputs]
merged = {}
for key in adapters[0]:
    if not key.endswith(".lora_down.weight"):
        continue
    module = key.removesuffix(".lora_down.weight")
    downs, ups = [], []
    for weight, adapter in zip((0.7, 0.3), adapters, strict=True):
        down, up = adapter[key], adapter[f"{module}.lora_up.weight"]
        scale = adapter[f"{module}.alpha"].item() / down.shape[0]
        downs.append(down)
        ups.append((weight * scale * up.float()).half())
    merged[key] = torch.cat(downs)
    merged[f"{module}.lora_up.weight"] = torch.cat(ups, dim=1)
    merged[f"{module}.alpha"] = torch.tensor(float(len(merged[key])), dtype=torch.float16)
save_file(merged, out)
