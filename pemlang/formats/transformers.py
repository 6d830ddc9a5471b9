"""A model directory: the names and shapes of its tensors, from headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pemlang.diagnostics import Fault, visible
from pemlang.disk import is_dir, is_file
from pemlang.modules import Shapes, SiteShape
from pemlang.modules.dense import DENSE
from pemlang.tensorfiles.jsons import load_json
from pemlang.tensorfiles.safetensors import read_header

MAX_INDEX = 64 << 20


SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"


def is_model(directory: Path) -> bool:
    """Whether a directory holds whole weights."""
    return any(is_file(directory / name) for name in (SINGLE, INDEX))


def read_model(directory: Path) -> Shapes:
    """The tensors of a model as dense sites.

    Raises:
        Fault: as model_files; PEM0411 and PEM0412 as read_header.
    """
    sites: dict[str, SiteShape] = {}
    for file in model_files(directory):
        for name, entry in read_header(file).entries.items():
            sites[name] = SiteShape(DENSE.name, "dense", entry.shape)
    return Shapes(sites)


def model_files(directory: Path) -> list[Path]:
    """The files of a model's tensors; raises Fault PEM0430 where there is no model."""
    single, index = directory / SINGLE, directory / INDEX
    if is_file(single):
        return [single]
    if is_file(index):
        return [directory / name for name in _shards(index)]
    why = f"it has no {SINGLE}" if is_dir(directory) else "there is none"
    raise Fault(
        "PEM0430",
        f"{visible(directory)} is not a model directory: {why}",
        "whole weights are needed here: give a directory written by save_pretrained",
    )


def _shards(index: Path) -> list[str]:
    try:
        data: Any = load_json(index.read_bytes()) if index.stat().st_size <= MAX_INDEX else None
        names = sorted(set(data["weight_map"].values()))
        if any(not isinstance(n, str) or Path(n).name != n for n in names):
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Fault(
            "PEM0430",
            f"{visible(index)} is not an index of safetensors shards beside it",
            "download the model again",
        ) from None
    return names
