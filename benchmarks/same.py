"""Hold the first site of two adapters to each other: the same change, up to bf16.

python same.py ONE OTHER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def delta(directory: Path) -> NDArray[np.float32]:
    """Δ of the first site of a bf16 or float32 LoRA."""
    config = json.loads((directory / "adapter_config.json").read_text())
    with (directory / "adapter_model.safetensors").open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        factors = {}
        for factor in "AB":
            entry = header[min(name for name in header if f".lora_{factor}." in name)]
            start, end = entry["data_offsets"]
            file.seek(8 + length + start)
            raw = file.read(end - start)
            if entry["dtype"] == "BF16":
                numbers = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
            else:
                numbers = np.frombuffer(raw, "<f4")
            factors[factor] = numbers.reshape(entry["shape"])
    scale = config["lora_alpha"] / config["r"]
    product: NDArray[np.float32] = scale * (factors["B"] @ factors["A"])
    return product


one, other = (delta(Path(directory)) for directory in sys.argv[1:])
apart = float(np.linalg.norm(one - other) / np.linalg.norm(other))
if not apart < 0.01:
    sys.exit(f"{sys.argv[1]} and {sys.argv[2]} differ by {apart:.2%}")
