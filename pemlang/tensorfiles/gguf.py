"""The GGUF container of llama.cpp: its header read and checked without the tensors, and written.

Layout (ggml-org/ggml, `docs/gguf.md`), little-endian: `GGUF`, a version, how many tensors and how
many fields there are; the fields, each a key, a type and a value; of each tensor its name, its
sizes, the fastest first, its type and its place from the start of the data. The data follow, all
tensors at multiples of the alignment.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TypeAlias

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.disk import open_plain
from pemlang.tensorfiles.digests import not_fetched
from pemlang.tensorfiles.dtypes import DTYPES
from pemlang.tensorfiles.safetensors import MAX_HEADER, MAX_TENSORS

SUFFIX = ".gguf"
ALIGNMENT = 32  # where no field says another

Scalar: TypeAlias = str | int | float | bool

_MAGIC, _VERSION = b"GGUF", 3
_READ = (2, 3)  # versions; they differ in what a big machine writes
_MAX_NAME = 1 << 16
_MAX_FIELDS = 1 << 16
_MAX_ITEMS = 1 << 22  # of all arrays; a vocabulary has some 10⁵
_MAX_AXES = 4
_MAX_ALIGNMENT = 1 << 20

_TEXT, _ARRAY = 8, 9
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_TYPE_OF = {str: _TEXT, float: 6, int: 4}

_DTYPES = {0: "F32", 1: "F16", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16"}
_QUANTISED = {
    2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS",
    19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0",
    35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor as a header tells it.

    Attributes:
        dtype: as safetensors spells it; of a quantised one its type in ggml.
        shape: the slowest axis first.
        start: its first byte, from the start of the data.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int | None:
        """Its bytes; None of a quantised one."""
        return math.prod(self.shape) * DTYPES[self.dtype].size if self.dtype in DTYPES else None


@dataclass(frozen=True)
class GgufHeader:
    """What a file says, but for its arrays.

    Attributes:
        fields: texts and numbers by key.
        arrays: of each array how many items it has.
        tensors: by name.
        data_start: where the data begin.
    """

    fields: Mapping[str, Scalar]
    arrays: Mapping[str, int]
    tensors: Mapping[str, GgufTensor]
    data_start: int


def read_gguf(path: Path) -> GgufHeader:
    """The checked header of a GGUF file; no tensor is read.

    Raises:
        Fault: PEM0411 when the file cannot be read, PEM0412 when it is truncated, or its header is
            not what the format says, or more than a file of tensors can need.
    """
    try:
        with open_plain(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            return _header(_Cursor(file), size)
    except OSError as error:
        raise Fault(
            "PEM0411", f"cannot read {visible(path)}: {error.strerror or error}", "check the path"
        ) from None
    except _BadHeader as why:
        raise not_fetched(path) or Fault(
            "PEM0412",
            f"{visible(path)} is not a whole GGUF file: {why}",
            "download or save it again",
        ) from None


class _BadHeader(Exception):
    """What is wrong with a header."""


class _Cursor:
    """Reads a header on, no further than a header can be long."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.at = file, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if self.at + count > MAX_HEADER:
            raise _BadHeader(f"its header is longer than {MAX_HEADER >> 20} MiB")
        taken = self._file.read(count)
        if len(taken) < count:
            raise _BadHeader("it ends within its header")
        self.at += count
        return taken

    def number(self, form: str) -> int:
        """A whole number as the struct module calls it."""
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def text(self, longest: int = MAX_HEADER) -> str:
        """A text, with its length before it."""
        length = self.number("<Q")
        if length > longest:
            raise _BadHeader(f"it has a text of {length} bytes in its header")
        return self.take(length).decode(errors="replace")

    def name(self) -> str:
        """A text that something is called by."""
        return self.text(_MAX_NAME)


def _header(cursor: _Cursor, size: int) -> GgufHeader:
    if cursor.take(4) != _MAGIC:
        raise _BadHeader("it does not start with GGUF")
    version = cursor.number("<I")
    if version not in _READ:
        raise _BadHeader(f"its version is {version}, and {_READ[0]} and {_READ[1]} are known")
    tensors, fields = cursor.number("<Q"), cursor.number("<Q")
    if tensors > MAX_TENSORS or fields > _MAX_FIELDS:
        raise _BadHeader(f"it says {tensors} tensors and {fields} fields")
    said: dict[str, Scalar] = {}
    arrays: dict[str, int] = {}
    left = _MAX_ITEMS
    for _ in range(fields):
        key, kind = cursor.name(), cursor.number("<I")
        if key in said or key in arrays:
            raise _BadHeader(f"it says {visible(key, 60)} twice")
        if kind == _ARRAY:
            arrays[key] = _skipped(cursor, left)
            left -= arrays[key]
        else:
            said[key] = _scalar(cursor, kind)
    told = [_tensor(cursor) for _ in range(tensors)]
    alignment = said.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= _MAX_ALIGNMENT or alignment % 8:
        raise _BadHeader(f"its alignment is {visible(str(alignment), 20)}")
    start = cursor.at + -cursor.at % alignment
    by_name = dict(told)
    if len(by_name) < len(told):
        raise _BadHeader("two of its tensors have one name")
    _hold_places(by_name, alignment, size - start)
    return GgufHeader(said, arrays, by_name, start)


def _scalar(cursor: _Cursor, kind: int) -> Scalar:
    if kind == _TEXT:
        return cursor.text()
    if kind not in _SCALARS:
        raise _BadHeader(f"it has a field of type {kind}, which is none")
    form = _SCALARS[kind]
    value: Scalar = struct.unpack(form, cursor.take(struct.calcsize(form)))[0]
    return value


def _skipped(cursor: _Cursor, most: int) -> int:
    """How many items an array has, which is passed over; `most` is how many it may have."""
    kind, count = cursor.number("<I"), cursor.number("<Q")
    if count > most or (kind != _TEXT and kind not in _SCALARS):
        raise _BadHeader(f"it has an array of {count} items of type {kind} in its header")
    if kind == _TEXT:
        for _ in range(count):
            cursor.text()
    else:
        cursor.take(count * struct.calcsize(_SCALARS[kind]))
    return count


def _tensor(cursor: _Cursor) -> tuple[str, GgufTensor]:
    name, axes = cursor.name(), cursor.number("<I")
    if axes > _MAX_AXES:
        raise _BadHeader(f"{visible(name, 60)} has {axes} axes")
    shape = tuple(cursor.number("<Q") for _ in range(axes))[::-1]
    kind, start = cursor.number("<I"), cursor.number("<Q")
    dtype = _DTYPES.get(kind) or _QUANTISED.get(kind) or f"type {kind}"
    return name, GgufTensor(dtype, shape, start)


def _hold_places(tensors: Mapping[str, GgufTensor], alignment: int, room: int) -> None:
    """Hold tensors to lie one after the other, and within the file."""
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
        if tensor.start < end or tensor.start % alignment:
            raise _BadHeader(f"{visible(name, 60)} starts at byte {tensor.start} of its data")
        end = tensor.start + (tensor.size or 0)
        if end > room:
            raise _BadHeader(f"{visible(name, 60)} ends at byte {end} of {max(room, 0)}")


def new_gguf_header(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], fields: Mapping[str, Scalar]
) -> tuple[bytes, list[int], int]:
    """The start of a GGUF file whose tensors (name, dtype, shape) follow in their order.

    Args:
        tensors: with the slowest axis first.
        fields: texts, whole numbers of 32 bits and numbers of float32, in the order they stand.

    Returns:
        The bytes up to the first tensor; the place of each tensor in the file; the file's size.
    """
    told, starts, at = [], [], 0
    for name, dtype, shape in tensors:
        axes = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        told.append(_text(name) + axes + struct.pack("<IQ", _NUMBERS[dtype], at))
        starts.append(at)
        at += math.prod(shape) * DTYPES[dtype].size
        at += -at % ALIGNMENT
    said = [_text(key) + _value(value) for key, value in fields.items()]
    start = _MAGIC + struct.pack("<IQQ", _VERSION, len(told), len(said)) + b"".join(said + told)
    start += bytes(-len(start) % ALIGNMENT)
    return start, [len(start) + place for place in starts], len(start) + at


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Scalar) -> bytes:
    kind = _TYPE_OF[type(value)]
    raw = _text(value) if isinstance(value, str) else struct.pack(_SCALARS[kind], value)
    return struct.pack("<I", kind) + raw
