"""0.7·a + 0.3·b of two LoRAs in kohya's files at a rank, by the method of sd-scripts' merge with an
SVD: the change of each module is formed whole in float32 and decomposed, and both factors are
clamped at the quantile 0.99 of their numbers.

    python kohya_svd.py OUT RANK A B MODULE…

does some modules, and prints the seconds of each, in their order and without reading, as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from safetensors import safe_open
from safetensors.torch import save_file

out, rank, first, second, *modules = sys.argv[1:]
adapters = [safe_open(name, "pt") for name in (first, second)]
merged, seconds = {}, {}
for module in modules:
    factors = [
        [adapter.get_tensor(f"{module}.{part}") for part in ("lora_down.weight", "lora_up.weight")]
        for adapter in adapters
    ]
    alphas = [adapter.get_tensor(f"{module}.alpha").item() for adapter in adapters]
    began = time.perf_counter()
    change = torch.zeros(len(factors[0][1]), factors[0][0].shape[1])
    for weight, (down, up), alpha in zip((0.7, 0.3), factors, alphas, strict=True):
        change += weight * alpha / len(down) * (up.float() @ down.float())
    left, values, right = torch.linalg.svd(change)
    left = left[:, : int(rank)] * values[: int(rank)]
    right = right[: int(rank)]
    most = torch.quantile(torch.cat([left.flatten(), right.flatten()]), 0.99)
    merged[f"{module}.lora_up.weight"] = left.clamp(-most, most).contiguous()
    merged[f"{module}.lora_down.weight"] = right.clamp(-most, most).contiguous()
    merged[f"{module}.alpha"] = torch.tensor(float(rank))
    seconds[module] = time.perf_counter() - began
save_file(merged, out)
print(json.dumps(seconds))
