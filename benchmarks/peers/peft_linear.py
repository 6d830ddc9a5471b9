"""0.4 ⊗ a ⊕ 0.35 ⊗ b ⊕ 0.25 ⊗ c with PEFT, onto a 7B model that holds no weights.

    python peft_linear.py OUT A B C

`linear` takes √(weight·scale) of A and of B and saves at scale 1, so that the squares of the
weights give the same function. The first adapter of a model on the meta device has no weights
either: it is left empty, and the three are loaded beside it.
"""

from __future__ import annotations

import sys

import torch
from peft import PeftConfig, PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

out, *inputs = sys.argv[1:]
with torch.device("meta"):
    base = LlamaForCausalLM(LlamaConfig()).to(torch.bfloat16)
how = {"autocast_adapter_dtype": False, "low_cpu_mem_usage": True}
model = PeftModel(base, PeftConfig.from_pretrained(inputs[0]), "empty", **how)
names = [f"a{i}" for i in range(len(inputs))]
for name, path in zip(names, inputs, strict=True):
    model.load_adapter(path, adapter_name=name, **how)
squares = [weight * weight for weight in (0.4, 0.35, 0.25)]
model.add_weighted_adapter(names, squares, "merged", combination_type="linear")
model.save_pretrained(out, selected_adapters=["merged"])
