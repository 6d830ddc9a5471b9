"""Tensors out of safetensors files, read without anything of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float32]


class TensorFile:
    """The tensors of a file, of bf16, fp16 or float32.

    Attributes:
        names: of all of them, in order.
    """

    def __init__(self, path: Path) -> None:
        """Read the header."""
        self._path = path
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        self._entries, self._start = header, 8 + length
        self.names: Sequence[str] = sorted(header)

    def read(self, name: str) -> Numbers:
        """A tensor in float32."""
        entry = self._entries[name]
        start, end = entry["data_offsets"]
        with self._path.open("rb") as file:
            file.seek(self._start + start)
            raw = file.read(end - start)
        if entry["dtype"] == "BF16":
            numbers = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            numbers = np.frombuffer(raw, {"F16": "<f2", "F32": "<f4"}[entry["dtype"]])
        return numbers.astype("<f4", copy=False).reshape(entry["shape"])


def deltas(adapter: Path) -> Iterator[tuple[str, Numbers]]:
    """Each site of a LoRA with its Δ = s·B·A."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    file = TensorFile(adapter / "adapter_model.safetensors")
    for name in file.names:
        if ".lora_A." in name:
            a, b = file.read(name), file.read(name.replace(".lora_A.", ".lora_B."))
            site = name.removeprefix("base_model.model.").replace(".lora_A.weight", "")
            rank = config["rank_pattern"].get(site, config["r"])
            alpha = config["alpha_pattern"].get(site, config["lora_alpha"])
            yield site, np.float32(alpha / rank) * (b @ a)
