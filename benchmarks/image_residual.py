"""How much of 0.7·a + 0.3·b a LoRA in a file of kohya's lacks: ‖Δ − s·B·A‖ / ‖Δ‖ over some modules,
or the first, as JSON.

    python image_residual.py MERGED A B [MODULE…]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from tensors import Numbers, TensorFile

merged, *inputs = (TensorFile(Path(name)) for name in sys.argv[1:4])
modules = sys.argv[4:] or [merged.names[0].partition(".")[0]]


def delta(file: TensorFile, module: str) -> Numbers:
    """Δ of a module."""
    down, up = (file.read(f"{module}.lora_{part}.weight") for part in ("down", "up"))
    return file.read(f"{module}.alpha") / np.float32(len(down)) * (up @ down)


lacks = whole = 0.0
for module in modules:
    change = sum(w * delta(file, module) for w, file in zip((0.7, 0.3), inputs, strict=True))
    lacks += float(np.sum((change - delta(merged, module)) ** 2, dtype=np.float64))
    whole += float(np.sum(change**2, dtype=np.float64))
print(json.dumps({"residual": (lacks / whole) ** 0.5}))
