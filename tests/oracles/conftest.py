"""Models and adapters that many oracle tests share, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from support import peft_made
from torch import nn

torch.set_num_threads(1)  # these models are small: threads only wait for each other

TARGETS = ["query", "value", "intermediate.dense"]


@pytest.fixture(scope="session")
def bert() -> nn.Module:
    return peft_made.bert()


@pytest.fixture(scope="session")
def llama() -> nn.Module:
    return peft_made.llama()


@pytest.fixture(scope="session")
def trio(bert: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three LoRAs of different ranks and alphas on the same modules of the classifier."""
    folder = tmp_path_factory.mktemp("trio")
    sizes = {"a": (4, 8), "b": (2, 7), "c": (8, 3)}
    return {
        name: peft_made.made(
            bert,
            folder / name,
            LoraConfig(r=r, lora_alpha=alpha, target_modules=TARGETS),
            seed,
        )
        for seed, (name, (r, alpha)) in enumerate(sizes.items())
    }
