"""`adapter_model.bin` and `pytorch_model.bin`: the tensors of a torch zip file, read without
running its pickle.

A pickle is a program for a stack machine. This reader has a machine of its own, with the few
instructions that torch writes for a dictionary of tensors, and four harmless names; anything else
ends the reading. Nothing of the file is ever executed, and no step takes longer than it is long.
"""

from __future__ import annotations

import math
import os
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.disk import open_plain
from pemlang.tensorfiles.digests import not_fetched
from pemlang.tensorfiles.dtypes import DTYPES
from pemlang.tensorfiles.safetensors import Header, TensorEntry

MAX_PICKLE = 8 << 20
MAX_INDEX = 8 << 20  # bytes that name the members of the archive
MAX_SHARED = 4  # times its own size that the tensors of a file may take, where they share numbers
MAX_DIMENSIONS = 16

_END_RECORD = (1 << 16) + 22 + 20  # the last bytes of an archive, which its index is found by
_ELSEWHERE = 0xFFFFFFFF  # where they have no room for the size of the index

_STORAGES = {row.storage: name for name, row in DTYPES.items() if row.storage}


class _Refused(Exception):
    """What is wrong with a file, in words; and what to do about it, where that is not to load it
    in the library that wrote it."""

    def __init__(
        self, why: str, help: str = "load it in PEFT or transformers and save it as safetensors"
    ):
        super().__init__(why)
        self.help = help


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


@dataclass(frozen=True)
class _GlobalName:
    """A name that the pickle wants: of a class or a function."""

    module: str
    name: str


_MARK = object()
_CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1")
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """Runs the instructions of a pickle that make dictionaries, tuples and tensors."""

    def __init__(self) -> None:
        self._stack: list[object] = []
        self._memo: dict[object, object] = {}

    def run(self, data: bytes) -> object:
        """What the pickle describes; raises _Refused."""
        for opcode, arg, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, arg)
        raise _Refused("its index has no end")

    def _step(self, name: str, arg: object) -> None:
        stack = self._stack
        if name in _LITERALS or name in _CONSTANTS:
            stack.append(_CONSTANTS.get(name, arg))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if arg is None else arg] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[arg])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(self._to_mark()))
        elif name in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[name])))
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop(2) if name == "SETITEM" else self._to_mark()
            _fill(stack[-1], items)
        elif name not in ("PROTO", "FRAME"):
            self._make(name, arg)

    def _make(self, name: str, arg: object) -> None:
        """The instructions that make something new."""
        stack = self._stack
        if name == "EMPTY_DICT":
            stack.append({})
        elif name == "GLOBAL":
            stack.append(_GlobalName(*str(arg).split(" ", 1)))
        elif name == "STACK_GLOBAL":
            module, called = self._pop(2)
            if not isinstance(module, str) or not isinstance(called, str):
                raise _Refused("it calls what is no name")
            stack.append(_GlobalName(module, called))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            stack.append(_call(*self._pop(2)))
        elif name == "BUILD":
            stack.pop()  # attributes of an OrderedDict: versions of modules
        else:
            raise _Refused(f"it has the instruction {name}")

    def _pop(self, count: int) -> list[object]:
        start = len(self._stack) - count
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _to_mark(self) -> list[object]:
        items = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]


def _fill(target: object, items: list[object]) -> None:
    keys = items[::2]
    if not isinstance(target, dict) or not all(isinstance(key, str) for key in keys):
        raise _Refused("it holds something that is not a tensor under a name")
    target.update(zip(keys, items[1::2], strict=True))


def _call(name: object, args: object) -> object:
    """What one of the four known names makes of its arguments."""
    match name, args:
        case _GlobalName("collections", "OrderedDict"), ():
            return {}
        case _GlobalName("torch._utils", "_rebuild_tensor_v2"), (storage, offset, size, stride, *_):
            return _tensor(storage, offset, size, stride)
        case _GlobalName("torch._utils", "_rebuild_parameter"), (data, *_):
            return data
        case _GlobalName(module, called), _:
            raise _Refused(f"it wants to run {visible(f'{module}.{called}', 80)}")
    raise _Refused("it calls what is no name")


def _storage(pid: object) -> _Storage:
    match pid:
        case ("storage", _GlobalName("torch", kind), str(key), _, int(count)) if kind in _STORAGES:
            return _Storage(_STORAGES[kind], key, count)
        case ("storage", _GlobalName(module, kind), *_):
            raise _Refused(f"it wants to run {visible(f'{module}.{kind}', 80)}")
    raise _Refused("a storage of a kind this reader does not know")


def _tensor(storage: object, offset: object, shape: object, stride: object) -> _Tensor:
    if not isinstance(shape, tuple) or not isinstance(stride, tuple) or type(offset) is not int:
        raise _Refused("a shape that is not made of numbers")
    if any(type(n) is not int or n < 0 for n in (*shape, *stride, offset)):
        raise _Refused("a shape that is not made of numbers")
    if not isinstance(storage, _Storage):
        raise _Refused("a tensor without a storage")
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
        raise _Refused("a tensor of too many dimensions")
    dense = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    if any(n != 1 and s != d for n, s, d in zip(shape, stride, dense, strict=True)):
        raise _Refused("a tensor that is not contiguous")
    return _Tensor(storage, offset, shape)


def read_pickled_header(path: Path) -> Header:
    """Names, dtypes, shapes and places of the tensors of a file that torch.save wrote.

    Entries give positions in the file itself, so that the tensors are read as from safetensors.

    Raises:
        Fault: PEM0411 when the file cannot be read, PEM0413 when it is not a torch zip file of
            plain tensors.
    """
    try:
        with open_plain(path) as file:
            _hold_age(file)
            _hold_index(file)
            with zipfile.ZipFile(file) as archive:
                return _header(file, archive)
    except OSError as error:
        raise Fault(
            "PEM0411", f"cannot read {visible(path)}: {error.strerror or error}", "check the path"
        ) from None
    except Exception as error:  # a hostile pickle can make the reader fail in any way it likes
        damaged = _Refused("it is damaged", "download or save it again")
        why = error if isinstance(error, _Refused) else damaged
        message = f"{visible(path)} is not a torch file of plain tensors: {visible(why)}"
        raise not_fetched(path) or Fault("PEM0413", message, why.help) from None


def _hold_age(file: BinaryIO) -> None:
    """Raise _Refused for what torch wrote before 1.6: pickles one after another, and no archive."""
    if file.read(2) == b"\x80\x02":
        raise _Refused(
            "it is in the format that torch had before 1.6",
            "write it anew in Python: torch.save(torch.load(path, weights_only=True), path)",
        )


def _hold_index(file: BinaryIO) -> None:
    """Raise _Refused for an archive of so many members that listing them would take long."""
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - _END_RECORD))
    tail = file.read()
    # As Python reads it: the record at the very end if it is there, else the last one.
    plain = tail[-22:-18] == b"PK\5\6" and tail[-2:] == bytes(2)
    end = len(tail) - 22 if plain else tail.rfind(b"PK\5\6")
    if end < 0:
        return  # it is no archive, as reading it will tell
    sizes = [int.from_bytes(tail[end + 12 : end + 16], "little")]
    if end >= 20 and tail[end - 20 : end - 16] == b"PK\6\7":
        for at in (start + end - 76, int.from_bytes(tail[end - 12 : end - 4], "little")):
            file.seek(max(0, at) + 40)
            sizes.append(int.from_bytes(file.read(8), "little"))
    if any(MAX_INDEX < index != _ELSEWHERE for index in sizes):
        raise _Refused("it has too many members")


def _header(file: BinaryIO, archive: zipfile.ZipFile) -> Header:
    [pickled] = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
    root = pickled.filename.removesuffix("data.pkl")
    tensors = _Machine().run(_member(archive, pickled.filename, MAX_PICKLE))
    if not isinstance(tensors, Mapping):
        raise _Refused("it does not hold a dictionary")
    order = f"{root}byteorder"
    if order in archive.namelist() and _member(archive, order, 16) != b"little":
        raise _Refused("its numbers are big-endian")
    starts: dict[str, tuple[int, int]] = {}
    entries, total = {}, 0
    for name, tensor in tensors.items():
        if not isinstance(tensor, _Tensor):
            raise _Refused("it holds something that is not a tensor under a name")
        key = tensor.storage.key
        if key not in starts:
            starts[key] = _extent(file, archive.getinfo(f"{root}data/{key}"))
        start, size = starts[key]
        width = DTYPES[tensor.storage.dtype].size
        begin = tensor.offset * width
        end = begin + math.prod(tensor.shape) * width
        if end > size:
            raise _Refused("a tensor reaches past its storage")
        total += end - begin
        if total > MAX_SHARED * file.seek(0, os.SEEK_END):
            raise _Refused("its tensors are the same numbers over and over")
        entries[name] = TensorEntry(tensor.storage.dtype, tensor.shape, start + begin, start + end)
    return Header(entries, 0)


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A small member of the archive, whatever it would unpack to."""
    if archive.getinfo(name).file_size > most:
        raise _Refused("its index is too large")
    return archive.read(name)


def _extent(file: BinaryIO, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Where a stored (not compressed) member's bytes begin in the file, and how many they are."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise _Refused("its tensors are compressed")
    file.seek(info.header_offset + 26)
    name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    return info.header_offset + 30 + name + extra, info.file_size
