"""A factor-space combination type of PEFT on adapters of a 7B model that holds no weights.

    python peft_factors.py TYPE DENSITY OUT A B …

Prints the seconds of add_weighted_adapter alone, as JSON. The first adapter of a model on the meta
device has no weights either: it is left empty, and the others are loaded beside it.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from peft import PeftConfig, PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

kind, density, out, *inputs = sys.argv[1:]
with torch.device("meta"):
    base = LlamaForCausalLM(LlamaConfig()).to(torch.bfloat16)
how = {"autocast_adapter_dtype": False, "low_cpu_mem_usage": True}
model = PeftModel(base, PeftConfig.from_pretrained(inputs[0]), "empty", **how)
names = [f"a{i}" for i in range(len(inputs))]
for name, path in zip(names, inputs, strict=True):
    model.load_adapter(path, adapter_name=name, **how)
began = time.perf_counter()
ones = [1.0] * len(names)
model.add_weighted_adapter(names, ones, "merged", combination_type=kind, density=float(density))
seconds = time.perf_counter() - began
model.save_pretrained(out, selected_adapters=["merged"])
print(json.dumps({"work": seconds}))
