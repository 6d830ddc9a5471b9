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
from support.messages.from_files import full

LAYERS = ("layers.0.up.weight", "layers.1.up.weight")


def stacked(root: Path, names: tuple[str, ...], config: Mapping[str, object]) -> Diagnostics:
    """What a build of a stack says."""
    layered(root, names, config)
    text = 'model m = "models/layered"\nsave stack(m, m) to "out/stacked"\n'
    return raised(lambda: loaded(root, text).build(options=BuildOptions()))


def layered(root: Path, names: tuple[str, ...], config: Mapping[str, object]) -> None:
    """A model; a name of `ids` holds whole numbers."""
    folder = root / "models/layered"
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {name: np.int64 if "ids" in name else np.float32 for name in names}
    save_file({key: np.ones((2, 2), x) for key, x in kinds.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def stopped(root: Path, patch: pytest.MonkeyPatch) -> tuple[str, Diagnostics]:
    """A recipe of two shards, and what a build says of it that has room for one of them."""
    layered(root, LAYERS, {})
    text = 'model m = "models/layered"\nsave m to "out/half" with shard="16B"\n'
    with patch.context() as there:
        room = iter([True])
        there.setattr("pemlang.artifact.staging.Stage.flush", lambda *_: next(room, None) or full())
        options = BuildOptions(force=True)
        return text, raised(lambda: loaded(root, text).build(options=options))


@made
def PEM0512_finished(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return stopped(root, patch)[1]


@made
def PEM0710_not_asked(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    text, _ = stopped(root, patch)
    return loaded(root, text).build(options=BuildOptions(force=True)).warnings


@made
def PEM0710_changed(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    text, _ = stopped(root, patch)
    text = text.replace("16B", "17B")
    return loaded(root, text).build(options=BuildOptions(resume=True, force=True)).warnings


@made
def PEM0353_two_stacks(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return stacked(root, ("encoder.0.up.weight", "decoder.0.up.weight"), {})


@made
def PEM0353_whole_numbers(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return stacked(root, (*LAYERS, "position_ids"), {"num_hidden_layers": 2})


@made
def PEM0353_config(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return stacked(root, LAYERS, {"num_hidden_layers": 2, "layer_types": ["full", "sliding"]})
