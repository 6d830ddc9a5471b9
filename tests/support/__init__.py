"""What tests share: adapters made for them, recipes over those, and the command line."""

from __future__ import annotations

from support.adapters import (
    PREFIX,
    SITES,
    Dense,
    config_of,
    delta,
    gains,
    ia3,
    lora,
    save,
    tensors_of,
)
from support.command import Done, command, pem
from support.recipes import build, codes, edit, error, recipe

__all__ = [
    "PREFIX", "SITES", "Dense", "Done", "build", "codes", "command", "config_of", "delta", "edit",
    "error", "gains", "ia3", "lora", "pem", "recipe", "save", "tensors_of",
]  # fmt: skip
