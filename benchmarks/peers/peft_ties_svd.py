"""ties of two adapters over Δ at rank 32 with PEFT's `ties_svd`, at one module.

    python peft_ties_svd.py OUT IN A B

Prints the seconds of add_weighted_adapter alone, as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from peft import PeftModel

outputs, inputs, *adapters = sys.argv[1:]


class OneLinear(torch.nn.Module):
    """A model of one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = torch.nn.Linear(int(inputs), int(outputs), bias=False)


names = [f"a{i}" for i in range(len(adapters))]
model = PeftModel.from_pretrained(OneLinear(), adapters[0], adapter_name=names[0])
for name, path in zip(names[1:], adapters[1:], strict=True):
    model.load_adapter(path, adapter_name=name)
began = time.perf_counter()
model.add_weighted_adapter(
    names, [1.0] * len(names), "merged", combination_type="ties_svd", density=0.5, svd_rank=32
)
print(json.dumps({"work": time.perf_counter() - began}))
