"""0.4 ⊗ a ⊕ 0.35 ⊗ b ⊕ 0.25 ⊗ c in plain torch: load_file, a float32 expression, save_file.

    python torch_merge.py OUT A B C

Prints seconds, as JSON; importing torch is not in them.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from safetensors.torch import load_file, save_file

out, *inputs = sys.argv[1:]
weights = (0.4, 0.35, 0.25)
began = time.perf_counter()
first, second, third = (load_file(name) for name in inputs)
merged = {
    key: (
        weights[0] * first[key].float()
        + weights[1] * second[key].float()
        + weights[2] * third[key].float()
    ).to(torch.bfloat16)
    for key in first
}
save_file(merged, out, metadata={"format": "pt"})
print(json.dumps({"work": time.perf_counter() - began}))
