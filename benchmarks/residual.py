"""How much of a fine-tune a LoRA that was extracted from it lacks: ‖Δ − s·B·A‖ / ‖Δ‖ over all sites
of the LoRA, as JSON.

    python residual.py BASE TUNED LORA
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from tensors import TensorFile, deltas

base, tuned = (TensorFile(Path(path) / "model.safetensors") for path in sys.argv[1:3])
lacks = whole = 0.0
sites = 0
for site, delta in deltas(Path(sys.argv[3])):
    change = tuned.read(f"{site}.weight") - base.read(f"{site}.weight")
    lacks += float(np.sum((change - delta) ** 2, dtype=np.float64))
    whole += float(np.sum(change**2, dtype=np.float64))
    sites += 1
print(json.dumps({"residual": (lacks / whole) ** 0.5, "sites": sites}))
