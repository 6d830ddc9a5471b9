"""What PEFT calls its files and tensors."""

from __future__ import annotations

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
PREFIX = "base_model.model."

ROWS = ".token_adapter.trainable_tokens_delta"
"""What the key of some rows of an embedding ends in, after its module."""
