"""The config of mlx-lm, which has the name of PEFT's."""

from __future__ import annotations

from pathlib import Path

from pemlang.disk import is_file, open_plain
from pemlang.formats.peft_config import MAX_CONFIG
from pemlang.formats.peft_names import CONFIG, PICKLED, WEIGHTS
from pemlang.tensorfiles.jsons import parse_json

_OWN = ("lora_parameters", "fine_tune_type")


def mlx_config(place: Path) -> dict[str, object] | None:
    """The config of mlx-lm in a folder; None where there is none, or tensors of PEFT are."""
    config = place / CONFIG
    if not is_file(config) or is_file(place / WEIGHTS) or is_file(place / PICKLED):
        return None
    try:
        with open_plain(config) as file:
            text = file.read(MAX_CONFIG + 1)
        fields = parse_json(text) if len(text) <= MAX_CONFIG else None
    except (OSError, ValueError):
        return None
    if not isinstance(fields, dict) or "peft_type" in fields:
        return None
    return fields if any(field in fields for field in _OWN) else None
