"""What a type check needs of an adapter, as JSON a reviewer can read: its config, and the names,
dtypes and shapes of its tensors, with the layers that are alike on one line.

    "base_model.model.layers.{0..31}.self_attn.q_proj.lora_A.weight": "BF16 [16, 4096]"
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator, Mapping
from typing import TypeVar

from pemlang.formats.adapter import Adapter
from pemlang.tensorfiles.dtypes import DTYPES
from pemlang.tensorfiles.safetensors import MAX_DIMENSIONS, MAX_HEADER, Header, TensorEntry

Told = TypeVar("Told", bound=Hashable)

LEAST = 50  # bytes that the header of a file spends on a tensor beside its name
_NUMBER = re.compile(r"(?<=[._])(?:0|[1-9][0-9]{0,5})(?=[._])")
_RANGE = r"[0-9]{1,6}(?:\.\.[0-9]{1,6})?"
_RANGES = re.compile(rf"(?<!\{{)\{{({_RANGE}(?:,{_RANGE})*)\}}")
_ENTRY = re.compile(
    rf"([A-Z0-9_]{{1,10}}) \[((?:[0-9]{{1,19}}(?:, [0-9]{{1,19}}){{0,{MAX_DIMENSIONS - 1}}})?)\]"
)


class Malformed(ValueError):
    """What is wrong with a signature."""


def headers_signature(adapter: Adapter) -> dict[str, object]:
    """The part of a signature that every format has: `tensors`, and `statistics` where there are
    some."""
    headers: dict[str, object] = {"tensors": compact(adapter.header.entries)}
    if adapter.statistics is not None:
        headers["statistics"] = compact(adapter.statistics.entries)
    return headers


def headers_restored(signature: Mapping[str, object]) -> tuple[Header, Header | None]:
    """The headers of tensors and statistics, as if the tensors lay in the order of their names;
    raises Malformed."""
    statistics = signature.get("statistics")
    return (
        Header(expanded(signature.get("tensors")), 0),
        None if statistics is None else Header(expanded(statistics), 0),
    )


def compact(entries: Mapping[str, TensorEntry]) -> dict[str, str]:
    """Names to dtypes and shapes, sorted; names that differ in one number are one line."""
    return shortened(
        {name: f"{entry.dtype} {list(entry.shape)}" for name, entry in entries.items()}
    )


def shortened(values: Mapping[str, Told]) -> dict[str, Told]:
    """Names to values, sorted; names of one value that differ in one number are one line."""
    groups: dict[tuple[str, str, Told], list[int]] = {}
    alone: dict[str, Told] = {}
    for name, value in values.items():
        number = _NUMBER.search(name)
        if number is None or "{" in name or "}" in name:
            alone[name.replace("{", "{{").replace("}", "}}")] = value
        else:
            key = (name[: number.start()], name[number.end() :], value)
            groups.setdefault(key, []).append(int(number.group()))
    for (before, after, value), numbers in groups.items():
        alone[f"{before}{{{_ranges(sorted(numbers))}}}{after}"] = value
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


def tensors_in(signature: Mapping[str, object]) -> int:
    """How many tensors a signature names, counted without naming them; raises Malformed."""
    count = 0
    for part in ("tensors", "statistics"):
        lines = signature.get(part, {})
        for line in lines if isinstance(lines, dict) else ():
            ranges = _RANGES.search(line)
            numbers = [] if ranges is None else [_ends(part) for part in ranges[1].split(",")]
            count += sum(last - first + 1 for first, last in numbers) if numbers else 1
    return count


def _ends(part: str) -> tuple[int, int]:
    """The numbers of `3..8`, or of `3`; raises Malformed."""
    first, _, last = part.partition("..")
    if int(last or first) < int(first):
        raise Malformed(f"{part} is no range of layers")
    return int(first), int(last or first)


def lengthened(values: Mapping[str, object]) -> dict[str, object]:
    """The names and values that `shortened` wrote; raises Malformed."""
    whole: dict[str, object] = {}
    room = MAX_HEADER
    for line, value in values.items():
        for name in names(line):
            room -= len(name) + LEAST
            if room < 0:
                raise Malformed("it has more tensors than a file can name")
            if name in whole:
                raise Malformed(f"it has {name} twice")
            whole[name] = value
    return whole


def expanded(compacted: object) -> dict[str, TensorEntry]:
    """The entries that `compact` wrote; raises Malformed."""
    if not isinstance(compacted, dict):
        raise Malformed("it has no tensors")
    layouts = lengthened(compacted)
    entries, at = {}, 0
    for name, text in sorted(layouts.items()):
        entry = _ENTRY.fullmatch(text) if isinstance(text, str) else None
        if entry is None or entry[1] not in DTYPES:
            raise Malformed(f"{name} has no dtype and shape")
        shape = tuple(int(size) for size in entry[2].split(", ") if size)
        size = math.prod(shape) * DTYPES[entry[1]].size
        if at + size >= 1 << 63:
            raise Malformed(f"{name} is too large")
        entries[name] = TensorEntry(entry[1], shape, at, at + size)
        at += size
    return entries


def names(line: str) -> Iterator[str]:
    """The names a line stands for; raises Malformed."""
    ranges = _RANGES.search(line)
    if ranges is None:
        yield line.replace("{{", "{").replace("}}", "}")
        return
    for part in ranges[1].split(","):
        first, last = _ends(part)
        for number in range(first, last + 1):
            yield f"{line[: ranges.start()]}{number}{line[ranges.end() :]}"
