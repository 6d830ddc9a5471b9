"""A safetensors file as lines of text that stay the same while the file does."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pemlang.diagnostics import Fault, visible
from pemlang.disk import open_plain
from pemlang.formats.signature import compact, names
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.digests import file_digest
from pemlang.tensorfiles.dtypes import DTYPES, FLOATS, decoded, stored_dtype
from pemlang.tensorfiles.safetensors import Header, TensorEntry, read_header

POINTER = b"version https://git-lfs.github.com/spec/"
_BLOCK = 1 << 18  # numbers read at once


def lines(path: Path) -> Iterator[str]:
    """What is in a file: its metadata, then its tensors, those alike but for a number together.

    It says what a file is that holds no tensors to read, and never raises for it.
    """
    try:
        pointer = _pointer(path)
        if pointer:
            yield "Git LFS pointer; its content has not been fetched"
            yield from pointer
            return
        header = read_header(path)
        with open_plain(path) as file:
            yield from _metadata(file, header)
            yield from _tensors(file, header)
    except Fault as fault:
        yield from _damaged(path, fault)
    except OSError as error:
        yield f"cannot be read: {error.strerror or error}"


def _pointer(path: Path) -> list[str]:
    """The lines of a pointer that stands for a file kept elsewhere, if it is one."""
    with open_plain(path) as file:
        text = file.read(1024)
    return [visible(line) for line in text.decode(errors="replace").splitlines()] * text.startswith(
        POINTER
    )


def _damaged(path: Path, fault: Fault) -> Iterator[str]:
    # git reads a copy under a name of its own, which is another each time
    yield fault.message.replace(visible(path), "this")
    try:
        yield f"{path.stat().st_size} bytes, blake3 {file_digest(path)}"
    except (OSError, Fault):
        return


def _metadata(file: BinaryIO, header: Header) -> Iterator[str]:
    file.seek(8)
    metadata = json.loads(file.read(header.data_start - 8)).get("__metadata__")
    if isinstance(metadata, dict):
        for key, value in sorted(metadata.items()):
            yield f"{visible(key)}: {visible(value, 2000)}"


def _tensors(file: BinaryIO, header: Header) -> Iterator[str]:
    for pattern, layout in compact(header.entries).items():
        yield f"{visible(pattern, 1000)}  {layout}"
        members = list(names(pattern))
        for name in members:
            norm, mean = _measured(file, header.data_start, header.entries[name])
            number = f"{_number(pattern, name)}  " if len(members) > 1 else ""
            yield f"    {number}norm {norm:.6g}  mean {mean:.6g}"


def _number(pattern: str, name: str) -> str:
    """The number in which a name differs from those of its pattern."""
    before, after = pattern.index("{"), len(pattern) - pattern.index("}") - 1
    return name[before : len(name) - after]


def _measured(file: BinaryIO, data_start: int, entry: TensorEntry) -> tuple[float, float]:
    """The norm and the mean of a tensor, read in blocks."""
    count = math.prod(entry.shape)
    size = DTYPES[entry.dtype].size
    file.seek(data_start + entry.start)
    squares = total = 0.0
    with np.errstate(all="ignore"):
        for start in range(0, count, _BLOCK):
            raw = file.read(min(_BLOCK, count - start) * size)
            if entry.dtype in FLOATS:
                numbers = decoded(raw, entry.dtype, "F64")
            else:
                numbers = np.frombuffer(raw, stored_dtype(entry.dtype)).astype(np.float64)
            squares += float(np.sum(numbers * numbers))
            total += float(np.sum(numbers))
    return math.sqrt(squares), total / count if count else 0.0
