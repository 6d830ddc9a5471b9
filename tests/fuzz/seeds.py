"""What the fuzzers begin with: a few good ones of each kind, and all that messages are shown of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from blake3 import blake3
from support import recipe
from support.gguf_made import gguf_lora
from targets import shelf

import pemlang
from pemlang.check import PublishedRecipe

STDLIB = (Path(__file__).parents[2] / "stdlib").glob("*.pem")
MESSAGES = Path(__file__).parents[1] / "messages"
PATTERNS = (
    "q_proj", r".*\.(q|v)_proj", "(?!.*visual).*attn", "(?:a|aa)+$", "[^.]*", r"\d{1,3}", "(?i)Q",
)  # fmt: skip


def seeds(name: str) -> Iterator[bytes]:
    """Good bytes for a target."""
    a = shelf() / "a"
    if name in ("recipe", "tested", "documented", "layout"):
        for path in sorted([*MESSAGES.glob("*.pem"), *STDLIB]):
            # What goes up to the bounds takes seconds, several times over where it is told of.
            if name in ("recipe", "layout") or not path.name.startswith("PEM0333"):
                yield path.read_bytes()
    elif name == "config":
        yield (a / "adapter_config.json").read_bytes()
    elif name in ("header", "adapter", "statistics"):
        yield (a / "adapter_model.safetensors").read_bytes()
    elif name == "pickled":
        path = shelf() / "seed.bin"
        torch.save({"x.lora_A.weight": torch.ones(2, 3), "x.lora_B.weight": torch.ones(3, 2)}, path)
        yield path.read_bytes()
    elif name == "gguf":
        path = gguf_lora(shelf() / "seed.gguf", 1)
        yield path.read_bytes()
    elif name == "pattern":
        yield from (f"{text}\nmodel.layers.0.q_proj".encode() for text in PATTERNS)
    else:
        yield from _of_a_build(name)


def _of_a_build(name: str) -> Iterator[bytes]:
    loaded = pemlang.load(
        recipe(shelf(), 'adapter a = "a"\nadapter b = "b"\nsave a + b to "seed"\n')
    )
    if name == "lock":
        lock, text = loaded.lock(), "let x = 1\n"
        lock.imports["house.x"] = blake3(text.encode()).hexdigest()
        lock.published["house.x"] = PublishedRecipe("house.x", Path(), text.encode(), "1", "house")
        lock.recipes["recipe.pem"]["imports"] = ["house.x"]
        yield lock.as_text().encode()
    else:
        loaded.build()
        yield (shelf() / "seed" / "provenance.json").read_bytes()
        shutil.rmtree(shelf() / "seed")
