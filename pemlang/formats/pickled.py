"""`adapter_model.bin`: the tensors of a torch zip file, read without running its pickle.

A pickle is a program. This reader gives it four harmless words (a dictionary, a tensor, a
parameter, a storage) and refuses any other, so nothing of the file is ever executed.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemlang.diagnostics import Fault, visible
from pemlang.formats.safetensors import ITEM_SIZE, Entry, Header

MAX_PICKLE = 64 << 20

_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    shape = tuple(size)
    dense: list[int] = []
    for length in reversed(shape):
        dense.append(math.prod(shape[len(shape) - len(dense) :]))
        if type(length) is not int or length < 0:
            raise pickle.UnpicklingError("a shape that is not made of numbers")
    if not isinstance(storage, _Storage) or type(offset) is not int or offset < 0:
        raise pickle.UnpicklingError("a tensor without a storage")
    strides = list(reversed(dense))
    contiguous = all(n == 1 or s == d for n, s, d in zip(shape, stride, strides, strict=True))
    if not contiguous:
        raise pickle.UnpicklingError("a tensor that is not contiguous")
    return _Tensor(storage, offset, shape)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


class _Unpickler(pickle.Unpickler):
    """Knows tensors and dictionaries; any other name ends the reading."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it wants to run {visible(f'{module}.{name}', 80)}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        if kind != "storage" or dtype not in ITEM_SIZE or type(count) is not int:
            raise pickle.UnpicklingError("a storage of a kind this reader does not know")
        return _Storage(dtype, str(key), count)


def read_pickled_header(path: Path) -> Header:
    """Names, dtypes, shapes and places of the tensors of an `adapter_model.bin`.

    Entries give positions in the file itself, so that the tensors are read as from safetensors.

    Raises:
        Fault: PEM0411 when the file cannot be read, PEM0413 when it is not a torch zip file of
            plain tensors.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return _header(file, archive)
    except OSError as error:
        raise Fault(
            "PEM0411", f"cannot read {visible(path)}: {error.strerror or error}", "check the path"
        ) from None
    except Exception as error:  # a hostile pickle can make the reader fail in any way it likes
        why = str(error) if isinstance(error, pickle.UnpicklingError) else "it is damaged"
        raise Fault(
            "PEM0413",
            f"{visible(path)} is not a torch file of plain tensors: {visible(why)}",
            "load it in PEFT and save it again as safetensors",
        ) from None


def _header(file: Any, archive: zipfile.ZipFile) -> Header:
    [pickled] = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
    if pickled.file_size > MAX_PICKLE:
        raise pickle.UnpicklingError("its index is too large")
    found = _Unpickler(io.BytesIO(archive.read(pickled))).load()
    if not isinstance(found, Mapping):
        raise pickle.UnpicklingError("it does not hold a dictionary")
    root = pickled.filename.removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise pickle.UnpicklingError("its numbers are big-endian")
    starts: dict[str, tuple[int, int]] = {}
    entries = {}
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise pickle.UnpicklingError("it holds something that is not a tensor")
        key = tensor.storage.key
        if key not in starts:
            starts[key] = _extent(file, archive.getinfo(f"{root}data/{key}"))
        start, size = starts[key]
        width = ITEM_SIZE[tensor.storage.dtype]
        begin = tensor.offset * width
        end = begin + math.prod(tensor.shape) * width
        if end > size:
            raise pickle.UnpicklingError("a tensor reaches past its storage")
        entries[name] = Entry(tensor.storage.dtype, tensor.shape, start + begin, start + end)
    return Header(entries, 0)


def _extent(file: Any, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Where a stored (not compressed) member's bytes begin in the file, and how many they are."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError("its tensors are compressed")
    file.seek(info.header_offset + 26)
    name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    return info.header_offset + 30 + name + extra, info.file_size
