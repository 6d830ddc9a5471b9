"""The safetensors container: its header read and checked without the tensors, and written.

Layout: eight bytes of little-endian header length, a JSON object of
`name: {dtype, shape, data_offsets}`, then the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.disk import open_plain
from pemlang.tensorfiles.digests import not_fetched
from pemlang.tensorfiles.dtypes import DTYPES, FLOATS
from pemlang.tensorfiles.jsons import holds_too_much, load_json
from pemlang.tensorfiles.reference import TensorRef

SUFFIX = ".safetensors"
MAX_DIMENSIONS = 16
MAX_HEADER = 100 << 20  # what the format allows
MAX_CACHED = 4 << 20  # of a header that is kept at hand beside others
MAX_TENSORS = 1 << 18  # of a file; the largest adapters have half as many


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file: its dtype as safetensors spells it, shape, and bytes from the start
    of the file's data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def whole(self) -> tuple[int, ...]:
        """The shape to compute in: that of a single number is a row of one."""
        return self.shape or (1,)


@dataclass(frozen=True)
class Header:
    """All tensors of a file, and where its data begins."""

    entries: Mapping[str, TensorEntry]
    data_start: int

    def reference(self, file: Path, key: str) -> TensorRef:
        """Where one of them lies."""
        return TensorRef(file, self.data_start + self.entries[key].start, key)


def read_header(path: Path) -> Header:
    """The checked header of a safetensors file; no tensor is read.

    Raises:
        Fault: PEM0411 when the file cannot be read, PEM0412 when it is truncated, its header is
            not what the format says, or its offsets do not fit its shapes and size.
    """
    raw, size = _read(path)
    tensors = _split(raw)[0]
    try:
        entries, extent = (_entries if len(raw) < MAX_CACHED else _of_a_large_one)(tensors)
    except _Broken as why:
        raise _broken(path, str(why)) from None
    if extent != size - 8 - len(raw):
        raise _broken(path, f"its tensors take {extent} bytes, it holds {size - 8 - len(raw)}")
    return Header(entries, 8 + len(raw))


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; raises as read_header."""
    read_header(path)
    raw = _read(path)[0]
    metadata = _split(raw)[1]
    if metadata is None:
        metadata = json.loads(raw).get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


_METADATA = re.compile(rb'\{\s*"__metadata__"\s*:\s*')
"""How nearly every header with metadata starts."""


def _split(raw: bytes) -> tuple[bytes, object]:
    """A header without its metadata, and these, where it starts with them; else all of it and
    None. What is left is the same for all files of one family."""
    start = _METADATA.match(raw)
    if start is None or holds_too_much(raw):
        return raw, None
    try:
        text = raw[start.end() :].decode()
        metadata, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return raw, None
    rest = _REST.match(text, end)
    return (raw, None) if rest is None else (f"{{{text[rest.end() :]}".encode(), metadata)


_REST = re.compile(r'\s*(?:,\s*(?=")|(?=\}))')
"""What follows the metadata, before the first tensor or the end."""


_DECODER = json.JSONDecoder()


def read_numbers(path: Path, header: Header, keys: Iterable[str]) -> dict[str, float]:
    """Tensors of one number each, by their keys; no other bytes of the file are read.

    Raises:
        Fault: PEM0411 when the file cannot be read, PEM0412 when it is cut short, PEM0419 a tensor
            that is not one number.
    """
    numbers = {}
    try:
        with open_plain(path) as file:
            handle = file.fileno()
            for key in keys:
                entry = header.entries[key]
                form = _NUMBERS.get(entry.dtype)
                if form is None or math.prod(entry.shape) != 1:
                    raise Fault(
                        "PEM0419",
                        f"{visible(key)} is {entry.dtype} {list(entry.shape)}, and no number",
                        "save it as one number of F32",
                    )
                raw = os.pread(handle, entry.end - entry.start, header.data_start + entry.start)
                if len(raw) < entry.end - entry.start:
                    raise _broken(path, "it has been cut short")
                # The bits of a bfloat16 are the upper half of a float32's.
                raw = b"\0\0" + raw if entry.dtype == "BF16" else raw
                numbers[key] = float(struct.unpack(form, raw)[0])
    except OSError as error:
        raise Fault(
            "PEM0411", f"cannot read {visible(path)}: {error.strerror or error}", "check the path"
        ) from None
    return numbers


def number_bytes(dtype: str, value: float) -> bytes:
    """A number as a file of some dtype stores it, of those that Python knows."""
    return struct.pack(_NUMBERS[dtype], value)


_NUMBERS = {
    "F64": "<d", "F32": "<f", "F16": "<e", "BF16": "<f", "I64": "<q", "I32": "<i", "I16": "<h",
    "I8": "<b", "U64": "<Q", "U32": "<I", "U16": "<H", "U8": "<B",
}  # fmt: skip
"""How the struct module calls what one number of a dtype is stored as."""


def _read(path: Path) -> tuple[bytes, int]:
    """The header as it is stored, and the size of the file."""
    try:
        with open_plain(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER, size - 8):
                why = f"its header says {length} bytes, the file has {size}"
                raise _broken(path, why if size else "it is empty")
            return file.read(length), size
    except OSError as error:
        raise Fault(
            "PEM0411", f"cannot read {visible(path)}: {error.strerror or error}", "check the path"
        ) from None


class _Broken(Exception):
    """What is wrong with a header."""


def _broken(path: Path, why: str) -> Fault:
    return not_fetched(path) or Fault(
        "PEM0412",
        f"{visible(path)} is not a whole safetensors file: {why}",
        "download or save it again",
    )


@lru_cache(maxsize=64)
def _entries(raw: bytes) -> tuple[Mapping[str, TensorEntry], int]:
    """The entries of a header and how many bytes they cover.

    Cached by the bytes: the adapters of one family have the same header.
    """
    try:
        header = load_json(raw)
    except (ValueError, RecursionError):
        raise _Broken("its header is not JSON") from None
    if not isinstance(header, dict):
        raise _Broken("its header is not a JSON object")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise _Broken(f"it has {len(header)} tensors, and no adapter has more than {MAX_TENSORS}")
    try:
        "".join(header).encode()
    except UnicodeEncodeError:  # half a character
        raise _Broken("a name in its header is no text") from None
    entries = {name: _entry(name, value) for name, value in header.items()}
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != at:
            raise _Broken(f"{visible(name)} starts at byte {entry.start} where {at} is next")
        at = entry.end
    return entries, at


_of_a_large_one = lru_cache(maxsize=1)(_entries.__wrapped__)
"""The same of the last header that is too large to be kept beside others: several formats ask for
it in a row."""


def _entry(name: str, value: Any) -> TensorEntry:
    try:
        dtype, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
        numbers = [*shape, start, end]
        fine = dtype in DTYPES and len(numbers) <= MAX_DIMENSIONS + 2
        fine = fine and all(type(n) is int and 0 <= n < 1 << 63 for n in numbers)
    except (TypeError, KeyError, ValueError):
        fine = False
    if not fine:
        raise _Broken(f"the entry of {visible(name)} is not a dtype, a shape and two offsets")
    if math.prod(shape) * DTYPES[dtype].size != end - start:
        raise _Broken(f"{visible(name)} has shape {shape} of {dtype} in {end - start} bytes")
    return TensorEntry(dtype, tuple(shape), start, end)


def float_dtypes(
    names: Collection[str], entries: Mapping[str, TensorEntry], help: str = ""
) -> frozenset[str]:
    """The dtypes of some of the tensors of a header; raises PEM0419 for one that is no float, with
    what to do if that is another thing than to save it as one."""
    for name in names:
        if entries[name].dtype not in FLOATS:
            raise Fault(
                "PEM0419",
                f"{visible(name)} is of dtype {entries[name].dtype}",
                help or f"save it as one of {', '.join(FLOATS)}",
            )
    return frozenset(entries[name].dtype for name in names)


def new_header(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[int], int]:
    """The start of a safetensors file whose tensors (name, dtype, shape) follow in their order.

    Returns:
        The bytes up to the first tensor; the place of each tensor in the file; the file's size.
        The same tensors and metadata always give the same bytes.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    starts, at = [], 0
    for name, dtype, shape in tensors:
        size = math.prod(shape) * DTYPES[dtype].size
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        starts.append(at)
        at += size
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    start = len(raw).to_bytes(8, "little") + raw
    return start, [len(start) + place for place in starts], len(start) + at
