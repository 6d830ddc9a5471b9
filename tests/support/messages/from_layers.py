"""Messages about layers of models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pemlang import BuildOptions
from support.messages.case import Diagnostics, loaded, made, raised

LAYERS = ("layers.0.up.weight", "layers.1.up.weight")


def stacked(root: Path, names: tuple[str, ...], config: Mapping[str, object]) -> Diagnostics:
    """What a build of a stack says; a name of `ids` holds whole numbers."""
    folder = root / "models/layered"
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {name: np.int64 if "ids" in name else np.float32 for name in names}
    save_file({key: np.ones((2, 2), x) for key, x in kinds.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    text = 'model m = "models/layered"\nsave stack(m, m) to "out/stacked"\n'
    return raised(lambda: loaded(root, text).build(options=BuildOptions()))


@made
def PEM0353_two_stacks(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return stacked(root, ("encoder.0.up.weight", "decoder.0.up.weight"), {})


@made
def PEM0353_whole_numbers(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return stacked(root, (*LAYERS, "position_ids"), {"num_hidden_layers": 2})


@made
def PEM0353_config(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return stacked(root, LAYERS, {"num_hidden_layers": 2, "layer_types": ["full", "sliding"]})
