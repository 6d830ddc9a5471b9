"""Adapters and models in which several modules are one, for cases of messages."""

from __future__ import annotations

from pathlib import Path

from support.adapters import lora
from support.models import model

ATTENTION = "layers.0.self_attn"


def stock(root: Path) -> None:
    """Write them below `root/adapters` and `root/models`."""
    lora(root / "adapters" / "in_one", sites={f"{ATTENTION}.qkv_proj": (12, 16)})
    parts = {f"{ATTENTION}.{x}_proj": (size, 16) for x, size in (("q", 6), ("v", 3))}
    lora(root / "adapters" / "in_parts", sites=parts)
    model(root / "models" / "parts", 1, {f"{ATTENTION}.{x}_proj.weight": (4, 16) for x in "qkv"})
