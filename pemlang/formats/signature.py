"""What a type check needs of an adapter, as JSON a reviewer can read: its config, and the names,
dtypes and shapes of its tensors, with the layers that are alike on one line.

    "base_model.model.layers.{0..31}.self_attn.q_proj.lora_A.weight": "BF16 [16, 4096]"
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pemlang.formats.peft import Adapter, assemble
from pemlang.formats.peft_config import parse_config
from pemlang.tensorfiles.safetensors import ITEM_SIZE, MAX_DIMENSIONS, MAX_HEADER, Entry, Header

LEAST = 50  # bytes that the header of a file spends on a tensor beside its name
_NUMBER = re.compile(r"(?<=\.)(?:0|[1-9][0-9]{0,5})(?=\.)")
_RANGE = r"[0-9]{1,6}(?:\.\.[0-9]{1,6})?"
_RANGES = re.compile(rf"(?<!\{{)\{{({_RANGE}(?:,{_RANGE})*)\}}")
_ENTRY = re.compile(
    rf"([A-Z0-9_]{{1,10}}) \[((?:[0-9]{{1,19}}(?:, [0-9]{{1,19}}){{0,{MAX_DIMENSIONS - 1}}})?)\]"
)


class Malformed(ValueError):
    """What is wrong with a signature."""


def signature(adapter: Adapter) -> dict[str, Any]:
    """The signature of an adapter: `config`, `tensors`, and `statistics` where it has some."""
    found: dict[str, Any] = {
        "config": {k: v for k, v in sorted(adapter.config.raw.items()) if v is not None},
        "tensors": compact(adapter.header.entries),
    }
    if adapter.statistics is not None:
        found["statistics"] = compact(adapter.statistics.entries)
    return found


def adapter_from(found: Mapping[str, Any], directory: Path, weights: str) -> Adapter:
    """The adapter of a signature, as read_adapter gives it, but for its tensors' places: they are
    as if the tensors lay in the order of their names.

    Args:
        found: what `signature` gave.
        directory, weights: where it would be, and the name of the file of its tensors.

    Raises:
        Malformed: it is no signature.
        Fault: what parse_config and assemble raise.
    """
    config, tensors = found.get("config"), found.get("tensors")
    statistics = found.get("statistics")
    if not isinstance(config, dict):
        raise Malformed("it has no config")
    return assemble(
        directory,
        directory / weights,
        parse_config(json.dumps(config).encode(), str(directory / "adapter_config.json")),
        Header(expanded(tensors), 0),
        None if statistics is None else Header(expanded(statistics), 0),
    )


def compact(entries: Mapping[str, Entry]) -> dict[str, str]:
    """Names to dtypes and shapes, sorted; names that differ in one number are one line."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    alone: dict[str, str] = {}
    for name, entry in entries.items():
        said = f"{entry.dtype} {list(entry.shape)}"
        number = _NUMBER.search(name)
        if number is None or "{" in name or "}" in name:
            alone[name.replace("{", "{{").replace("}", "}}")] = said
        else:
            key = (name[: number.start()], name[number.end() :], said)
            groups.setdefault(key, []).append(int(number.group()))
    for (before, after, said), numbers in groups.items():
        alone[f"{before}{{{_ranges(sorted(numbers))}}}{after}"] = said
    return dict(sorted(alone.items()))


def _ranges(numbers: list[int]) -> str:
    """`0..5,8` for 0, 1, …, 5, 8."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)


def expanded(found: Any) -> dict[str, Entry]:
    """The entries that `compact` wrote; raises Malformed."""
    if not isinstance(found, dict):
        raise Malformed("it has no tensors")
    said: dict[str, Any] = {}
    room = MAX_HEADER
    for line, what in found.items():
        for name in names(line):
            room -= len(name) + LEAST
            if room < 0:
                raise Malformed("it has more tensors than a file can name")
            if name in said:
                raise Malformed(f"it has {name} twice")
            said[name] = what
    entries, at = {}, 0
    for name in sorted(said):
        entry = _ENTRY.fullmatch(said[name]) if isinstance(said[name], str) else None
        if entry is None or entry[1] not in ITEM_SIZE:
            raise Malformed(f"{name} has no dtype and shape")
        shape = tuple(int(size) for size in entry[2].split(", ") if size)
        size = math.prod(shape) * ITEM_SIZE[entry[1]]
        if at + size >= 1 << 63:
            raise Malformed(f"{name} is too large")
        entries[name] = Entry(entry[1], shape, at, at + size)
        at += size
    return entries


def names(line: str) -> Iterator[str]:
    """The names a line stands for; raises Malformed."""
    ranges = _RANGES.search(line)
    if ranges is None:
        yield line.replace("{{", "{").replace("}}", "}")
        return
    for part in ranges[1].split(","):
        first, _, last = part.partition("..")
        if int(last or first) < int(first):
            raise Malformed(f"{part} is no range of layers")
        for number in range(int(first), int(last or first) + 1):
            yield f"{line[: ranges.start()]}{number}{line[ranges.end() :]}"
