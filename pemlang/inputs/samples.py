"""Adapters that tests draw: small, of names and numbers that a seed decides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pemlang.check.values import Sample
from pemlang.diagnostics import Fault
from pemlang.formats import PEFT, Format
from pemlang.formats.adapter import Adapter
from pemlang.formats.peft_names import CONFIG, PREFIX, WEIGHTS
from pemlang.formats.reading import read_as
from pemlang.formats.transformers import SINGLE, TRANSFORMERS
from pemlang.inputs.resolver import DiskResolver
from pemlang.tensorfiles.dtypes import Array
from pemlang.tensorfiles.safetensors import new_header

OUTPUTS, INPUTS = 12, 16
"""Of a module; more where a rank needs them."""


class SampleResolver(DiskResolver):
    """Adapters in files, and those that tests draw.

    Args:
        folder: where these are written.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def sample(self, sample: Sample) -> Sequence[tuple[str, Adapter]]:
        """See check.values.Inputs; raises PEM0317 for a kind of which none is drawn."""
        if sample.kind not in _DRAWN:
            help = f"draw one of {', '.join(_DRAWN)}"
            raise Fault("PEM0317", f"there is no sample of {sample.kind}", help)
        place = self._folder / hashlib.sha256(repr(sample).encode()).hexdigest()[:16]
        folders = [(place / file.name, file) for file in _DRAWN[sample.kind](sample)]
        for folder, file in folders:
            if not folder.exists():
                folder.mkdir(parents=True)
                (folder / file.config).write_text(json.dumps(file.fields))
                (folder / file.weights).write_bytes(_written(file.tensors))
        return [(str(folder), read_as(file.format, folder)) for folder, file in folders]


class DrawnFiles(NamedTuple):
    """A folder that is drawn: its name, the format of its files, and what is in them."""

    name: str
    format: Format
    config: str
    fields: Mapping[str, object]
    weights: str
    tensors: Mapping[str, Array]


def _lora(sample: Sample) -> list[DrawnFiles]:
    draw, rank = np.random.default_rng(sample.seed), sample.rank
    tensors = {}
    for module in _modules(sample):
        tensors[f"{PREFIX}{module}.lora_A.weight"] = _drawn(draw, rank, max(INPUTS, rank))
        tensors[f"{PREFIX}{module}.lora_B.weight"] = _drawn(draw, max(OUTPUTS, rank), rank)
    return [_of_peft(sample, {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}, tensors)]


def _ia3(sample: Sample) -> list[DrawnFiles]:
    draw = np.random.default_rng(sample.seed)
    gains = {f"{PREFIX}{x}.ia3_l": 1 + _drawn(draw, OUTPUTS, 1) / 4 for x in _modules(sample)}
    return [_of_peft(sample, {"peft_type": "IA3", "feedforward_modules": []}, gains)]


def _of_peft(
    sample: Sample, fields: Mapping[str, object], tensors: Mapping[str, Array]
) -> DrawnFiles:
    targets = sorted({module.rpartition(".")[2] for module in _modules(sample)})
    fields = {**fields, "target_modules": targets}
    return DrawnFiles("adapter", PEFT, CONFIG, fields, WEIGHTS, tensors)


def _dense(sample: Sample) -> list[DrawnFiles]:
    """A model, and the base that it is told from."""
    models = []
    for which, name in enumerate(("model", "base")):
        draw = np.random.default_rng([sample.seed, which])
        weights = {f"{x}.weight": _drawn(draw, OUTPUTS, INPUTS) for x in _modules(sample)}
        fields = {"model_type": "sample"}
        models.append(DrawnFiles(name, TRANSFORMERS, "config.json", fields, SINGLE, weights))
    return models


_DRAWN: dict[str, Callable[[Sample], list[DrawnFiles]]] = {
    "lora": _lora,
    "ia3": _ia3,
    "dense": _dense,
}
"""What draws each kind."""


def _written(tensors: Mapping[str, Array]) -> bytes:
    """A file of float32 tensors."""
    start, _, _ = new_header([(key, "F32", x.shape) for key, x in tensors.items()], {})
    return b"".join([start, *(x.tobytes() for x in tensors.values())])


def _modules(sample: Sample) -> list[str]:
    """The names of its modules."""
    once = [site for site in sample.sites if "*" not in site]
    layered = [site for site in sample.sites if "*" in site]
    numbered = [
        site.replace("*", f"model.layers.{layer}")
        for layer in range(sample.layers)
        for site in layered
    ]
    return list(dict.fromkeys([*numbered, *once]))


def _drawn(draw: np.random.Generator, rows: int, columns: int) -> Array:
    """Numbers of the size that trained factors have."""
    return draw.normal(size=(rows, columns), scale=columns**-0.5).astype(np.float32)
