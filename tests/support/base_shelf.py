"""Adapters for messages whose change depends on the weights of their base, and such a base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from support import PREFIX, SITES, lora
from support.models import model

QUERY = "encoder.layer.0.attention.self.query"


def stock(root: Path) -> None:
    """Write them below `root/adapters` and `root/models`."""
    adapters = root / "adapters"
    dora(adapters / "dora")
    dora(adapters / "dora_of_nothing", alpha=0)
    lora(adapters / "dora_without_lengths", use_dora=True)
    dora(adapters / "dora_of_other_lengths", {QUERY: 7})
    nothing = {f"{site}.weight": torch.zeros(shape) for site, shape in SITES.items()}
    model(root / "models" / "nothing", shapes={name: x.shape for name, x in nothing.items()})
    save_file(nothing, root / "models" / "nothing" / "model.safetensors")


def dora(at: Path, other: Mapping[str, int] | None = None, **config: Any) -> Path:
    """A DoRA of Linear modules; `other` are sites with as many lengths."""
    counts = {site: out for site, (out, _) in SITES.items()} | dict(other or {})
    lengths = {
        f"{PREFIX}{site}.lora_magnitude_vector": np.linspace(1, 2, count, dtype="f4")
        for site, count in counts.items()
    }
    return lora(at, extra=lengths, use_dora=True, **config)
