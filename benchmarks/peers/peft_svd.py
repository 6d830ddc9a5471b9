"""0.4·a + 0.35·b + 0.25·c at rank 32 with PEFT's `svd`, at one module of 4096×4096.

    python peft_svd.py OUT A B C

Prints the seconds of add_weighted_adapter alone, as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from peft import PeftModel


class OneLinear(torch.nn.Module):
    """A model of one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = torch.nn.Linear(4096, 4096, bias=False)


out, *inputs = sys.argv[1:]
names = [f"a{i}" for i in range(len(inputs))]
model = PeftModel.from_pretrained(OneLinear(), inputs[0], adapter_name=names[0])
for name, path in zip(names[1:], inputs[1:], strict=True):
    model.load_adapter(path, adapter_name=name)
began = time.perf_counter()
weights = [0.4, 0.35, 0.25]
model.add_weighted_adapter(names, weights, "merged", combination_type="svd", svd_rank=32)
seconds = time.perf_counter() - began
model.save_pretrained(out, selected_adapters=["merged"])
print(json.dumps({"work": seconds}))
