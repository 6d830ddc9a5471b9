"""What is in a model, or at a place that holds nothing to compute with: an adapter of a kind that
is not supported, a single file, the study of a tuning. From configs and headers alone."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from pemlang.compare.summary import origin_of
from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.disk import is_file, open_plain
from pemlang.formats.mlx import MLX
from pemlang.formats.peft_config import MAX_CONFIG
from pemlang.formats.peft_names import CONFIG, PICKLED, WEIGHTS
from pemlang.formats.signature import compact, names, shortened
from pemlang.formats.transformers import (
    StoredModel,
    config_of,
    is_model,
    is_shared,
    last_token,
    model_files,
    token_rows,
    tokenizer_files,
)
from pemlang.graph.formula import count, size_text
from pemlang.modules.sites import layer_of
from pemlang.pipeline.study import SETTING_TITLES, is_study, open_study, ranked
from pemlang.tensorfiles import gguf
from pemlang.tensorfiles.jsons import parse_json
from pemlang.tensorfiles.pickled import read_pickled_header
from pemlang.tensorfiles.safetensors import TensorEntry, read_header, read_metadata

MODEL_CONFIG = "config.json"
MOST_FIELDS = 40  # of a config, or of what a file says of itself
_LONGEST = 120  # characters of a value
_MOST_TRIALS = 10
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_ADAPTER, _MODEL, _FILE = "an adapter", "a model", "a file of tensors"


@dataclass(frozen=True)
class TensorRow:
    """Tensors whose names are alike but for a number, such as that of a layer.

    Attributes:
        pattern: what they are called, as `layers.{0..5}.weight`.
        count: how many there are.
        layout: the dtype and the shape of each.
    """

    pattern: str
    count: int
    layout: str


@dataclass(frozen=True)
class Contents:
    """Attributes:
    facts: label and value, in the order to show them.
    config: what a config, or a file of itself, says; the best trials of a study.
    tensors: by pattern, in order of their names.
    """

    facts: Sequence[tuple[str, str]]
    config: Sequence[tuple[str, str]]
    tensors: Sequence[TensorRow]


def contents(place: Path) -> Contents | None:
    """What is at a place; None where there is nothing with tensors.

    Raises:
        Fault: PEM0411, PEM0412 and PEM0413, of a file that cannot be read; PEM0430 of an index;
            PEM0920 and PEM0922 of the study of a tuning.
    """
    if is_study(place):
        return _of_study(place)
    if is_file(place) and place.suffix == gguf.SUFFIX:
        return _of_gguf(gguf.read_gguf(place), place)
    if is_file(place):
        files = [place] if place.suffix in (".safetensors", *_PICKLES) else []
        kind, config = _FILE, None
    elif is_file(place / CONFIG):
        named = (place / name for name in (WEIGHTS, PICKLED, MLX.weights))
        files = [file for file in named if is_file(file)][:1]
        kind, config = _ADAPTER, place / CONFIG
    else:
        files = model_files(place) if is_model(place) else []
        kind, config = _MODEL, place / MODEL_CONFIG
    if not files and kind != _ADAPTER:
        return None
    entries = {name: entry for file in files for name, entry in _entries(file).items()}
    if config is not None:
        fields = _fields(config)
    else:
        fields = {} if place.suffix in _PICKLES else read_metadata(place)
    facts = [("is", kind), *_totals(files, entries)]
    return Contents(facts, list(_told(fields)), _rows(entries))


def _of_study(place: Path) -> Contents:
    """What a tuning has tried: how, and the best of it."""
    with open_study(place) as study:
        settings, objectives, trials = study.read()
    failed = sum(trial.is_failed for trial in trials)
    facts = [
        ("is", "a study of pem tune"),
        ("objective", ", ".join(f"{x.direction} {visible(x.name)}" for x in objectives)),
        *((title, _shortly(settings[name])) for name, title in SETTING_TITLES.items()
          if name != "objectives" and settings[name] not in ("", {})),
        ("trials", f"{len(trials)}, {failed} failed" if failed else str(len(trials))),
    ]  # fmt: skip
    best = [
        (f"trial {trial.number}", _shortly(trial.settings) + ": " + _shortly(trial.numbers))
        for trial in ranked(trials, objectives)[:_MOST_TRIALS]
    ]
    return Contents(facts, best, [])


def _shortly(value: object) -> str:
    """A value of a study in a line: `weight = 0..1, r = [4, 8]`."""
    if isinstance(value, list):
        text = f"[{', '.join(map(_shortly, value))}]"
    elif isinstance(value, Mapping) and value.keys() == {"low", "high"}:
        text = f"{value['low']}..{value['high']}"
    elif isinstance(value, Mapping):
        text = ", ".join(f"{name} = {_shortly(each)}" for name, each in value.items())
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return visible(text, _LONGEST)


def _of_gguf(header: gguf.GgufHeader, place: Path) -> Contents:
    """What is in a GGUF file, quantised or not."""
    kinds = {"model": "a model in GGUF", "adapter": "an adapter in GGUF"}
    counts = Counter(tensor.dtype.lower() for tensor in header.tensors.values())
    facts = [
        ("is", kinds.get(str(header.fields.get("general.type", "model")), "a GGUF file")),
        ("files", f"{visible(place.name)}, {size_text(place.stat().st_size)}"),
        ("tensors", count(len(header.tensors), "tensor")),
        ("dtype", ", ".join(f"{dtype} at {n}" for dtype, n in sorted(counts.items()))),
        ("parameters", f"{sum(math.prod(x.shape) for x in header.tensors.values()):,}"),
    ]
    layouts = {name: f"{x.dtype} {list(x.shape)}" for name, x in header.tensors.items()}
    return Contents(facts, list(_told(header.fields)), _patterns(shortened(layouts)))


def model_contents(model: StoredModel) -> Contents:
    """What is in a model, from its config and headers."""
    entries = model.header.entries
    facts = [
        ("is", _MODEL),
        *_totals(model.tensor_files, entries),
        ("dtype", dtypes_text(entries)),
        *_structure(model),
        *origin_of(model.place),
    ]
    config = {key: value for key, value in config_of(model.directory).items() if value}
    return Contents(facts, list(_told(config)), _rows(entries))


def _structure(model: StoredModel) -> Iterator[tuple[str, str]]:
    """What the names of its tensors and its config say of its parts."""
    names = model.header.entries
    layers = {layer for name in names if (layer := layer_of(name)) is not None}
    yield "layers", str(len(layers))
    rows = token_rows(model.layout.shapes)
    if rows is not None:
        last = last_token(model)
        highest = "" if last is None else f", the tokenizer's highest token is {last:,}"
        yield "vocabulary", f"{rows:,} rows{highest}"
    tied = [name for name in names if is_shared(model, name)]
    if len(tied) == 1:
        yield "tied", f"{visible(tied[0])}, used in more than one place"
    tokenizer = tokenizer_files(model)
    yield "tokenizer", ", ".join(path.name for path in tokenizer) or "none beside it"


def dtypes_text(entries: Mapping[str, TensorEntry]) -> str:
    """The dtypes of some tensors: `bf16`, or of how many each is."""
    counts = Counter(entry.dtype.lower() for entry in entries.values())
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{dtype} at {count(n, 'tensor')}" for dtype, n in sorted(counts.items()))


def _rows(entries: Mapping[str, TensorEntry]) -> list[TensorRow]:
    return _patterns(compact(entries))


def _patterns(layouts: Mapping[str, str]) -> list[TensorRow]:
    return [
        TensorRow(visible(pattern), sum(1 for _ in names(pattern)), layout)
        for pattern, layout in layouts.items()
    ]


def _entries(file: Path) -> Mapping[str, TensorEntry]:
    header = read_pickled_header(file) if file.suffix in _PICKLES else read_header(file)
    return header.entries


def _totals(files: Sequence[Path], entries: Mapping[str, TensorEntry]) -> Iterator[tuple[str, str]]:
    if not files:
        yield "files", "none of tensors"
        return
    size = sum(entry.end - entry.start for entry in entries.values())
    several = f"{len(files)} files" if len(files) > 1 else visible(files[0].name)
    yield "files", f"{several}, {size_text(size)}"
    yield "tensors", count(len(entries), "tensor")
    yield "parameters", f"{sum(math.prod(entry.shape) for entry in entries.values()):,}"


def _fields(config: Path) -> Mapping[str, object]:
    """The fields of a config that say something; none of one that cannot be read."""
    try:
        with open_plain(config) as file:
            fields = parse_json(file.read(MAX_CONFIG))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in fields.items() if v} if isinstance(fields, dict) else {}


def _told(fields: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in islice(fields.items(), MOST_FIELDS):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield visible(key, 60), visible(text, _LONGEST)
    if len(fields) > MOST_FIELDS:
        yield "…", f"and {len(fields) - MOST_FIELDS} more"
