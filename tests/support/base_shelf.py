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
BIAS = np.ones(12, "f4")
_OF_TWO = {f"{PREFIX}classifier.token_adapter.trainable_tokens_delta": np.ones((2, 12), "f4")}
_OF_EMBEDDING = {
    f"{PREFIX}embed_tokens.token_adapter.trainable_tokens_delta": BIAS.reshape(1, 12).repeat(2, 0)
}
OF_SITES = {f"{site}.weight": shape for site, shape in SITES.items()}
ROWS: Mapping[str, tuple[object, Mapping[str, Any]]] = {
    "rows": ({"classifier": [1, 0]}, _OF_TWO),
    "rows_beyond": ({"classifier": [0, 7]}, _OF_TWO),
    "rows_unsaid": (None, _OF_TWO),
    "rows_said_twice": ({"classifier": [0, 1], "encoder.classifier": [0, 1]}, _OF_TWO),
    "rows_unsaved": ({"embed_tokens": [1]}, {}),
    "rows_of_one_token": ([3, 3], _OF_TWO),
    "rows_below_zero": ([0, -1], _OF_TWO),
    "rows_by_name": ("classifier", _OF_TWO),
    "rows_of_two_modules": ({"classifier": [0, 7], "lm_head": [1]}, _OF_TWO),
}
"""Adapters with rows of tokens: what their configs and their files have."""


def stock(root: Path) -> None:
    """Write them below `root/adapters` and `root/models`."""
    adapters = root / "adapters"
    dora(adapters / "dora")
    dora(adapters / "dora_of_nothing", alpha=0)
    lora(adapters / "dora_without_lengths", use_dora=True)
    dora(adapters / "dora_of_other_lengths", {QUERY: 7})
    lora(adapters / "biases", extra={f"{PREFIX}{QUERY}.base_layer.bias": BIAS}, bias="lora_only")
    lora(adapters / "bias_of_no_kind", bias="some")
    lora(adapters / "adalora_with_dora", peft_type="ADALORA", use_dora=True)
    for name, (indices, extra) in ROWS.items():
        lora(adapters / name, extra=extra, trainable_token_indices=indices)
    magnitudes = {
        f"{PREFIX}{QUERY}.lora_magnitude_vector{end}": BIAS.copy() for end in ("", ".weight")
    }
    lora(adapters / "two_magnitudes", extra=magnitudes, use_dora=True)
    lora(
        adapters / "tied_rows", extra=_OF_EMBEDDING,
        trainable_token_indices={"embed_tokens": [1, 0], "lm_head": [1, 0]},
    )  # fmt: skip
    model(
        root / "models" / "untied",
        shapes={**OF_SITES, "embed_tokens.weight": (12, 12), "lm_head.weight": (12, 12)},
    )
    nothing = {name: torch.zeros(shape) for name, shape in OF_SITES.items()}
    model(root / "models" / "nothing", shapes=OF_SITES)
    save_file(nothing, root / "models" / "nothing" / "model.safetensors")


def dora(at: Path, other: Mapping[str, int] | None = None, **config: Any) -> Path:
    """A DoRA of Linear modules; `other` are sites with as many lengths."""
    counts = {site: out for site, (out, _) in SITES.items()} | dict(other or {})
    lengths = {
        f"{PREFIX}{site}.lora_magnitude_vector": np.linspace(1, 2, count, dtype="f4")
        for site, count in counts.items()
    }
    return lora(at, extra=lengths, use_dora=True, **config)
