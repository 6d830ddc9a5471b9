"""Programs as native functions: LLVM makes them when a build needs them, and keeps what it made.

What is kept is the machine code of one module, in the user's cache, by the digest of its text and
of the processor it is for. It is taken from there only where nobody else can have written it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

from pemlang.disk import open_plain, replace_file
from pemlang.execute.kernel_files import cache_folder
from pemlang.kernels.llvm_cholesky import cholesky_source
from pemlang.kernels.llvm_module import exact_source, passes_source, tiles_source
from pemlang.kernels.llvm_tall import tall_source
from pemlang.kernels.llvm_widen import widen_source
from pemlang.kernels.passes import passes, repeats
from pemlang.kernels.program import Program

_MOST_KEPT = 1000
"""Modules that are kept; the oldest go first."""

_LARGEST = 1 << 24
"""Bytes of a module; of one that is larger something is wrong."""

_SEAL = hashlib.sha256().digest_size


NativeFunction: TypeAlias = Any
"""A native function, or a type of such; ctypes makes the types."""


def _type(numbers: int, pointers: int, result: NativeFunction = None) -> NativeFunction:
    return ctypes.CFUNCTYPE(result, *[ctypes.c_int64] * numbers, *[ctypes.c_void_p] * pointers)


_PASS, _SETTLE = _type(3, 6), _type(0, 4, ctypes.c_int64)
_START, _BRACKET = _type(0, 1), _type(2, 3)
_TILES, _JOIN = _type(5, 9), _type(1, 5, ctypes.c_int64)
_APART = [ctypes.c_void_p, ctypes.c_int64]
_TENSORS = ctypes.CFUNCTYPE(
    None, ctypes.c_int64, *[ctypes.c_void_p] * 3, *_APART * 3, ctypes.c_void_p
)
_STREAM = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 7, *_APART * 3, *[ctypes.c_void_p] * 2
)
_LARGE = _type(3, 10, ctypes.c_int64)

_lock = threading.Lock()
_functions: dict[tuple[Program | str, ...], NativeFunction] = {}
_engines: list[Any] = []  # they own the functions


def native(program: Program, name: str) -> NativeFunction:
    """A function of a program, made when it is first asked for: `pass0`, …, `settle0`, …,
    `tensors`, `stream`, `large`, `exact`, `tiles0`, … or `join0`, …, see llvm_module.py."""
    key = (program, name)
    if key not in _functions:
        with _lock:
            if key not in _functions:
                _functions.update({(program, x): f for x, f in _made(program, name).items()})
    return _functions[key]


def _fixed(
    key: tuple[str, ...], source: Callable[[], str], types: Mapping[str, NativeFunction]
) -> NativeFunction:
    """The function that a key ends with, of a module that is the same for all programs."""
    if key not in _functions:
        with _lock:
            if key not in _functions:
                engine = _engine(source())
                for name, type_ in types.items():
                    made = type_(engine.get_function_address(name))
                    _functions[(*key[:-1], name)] = made
    return _functions[key]


def _made(program: Program, name: str) -> dict[str, NativeFunction]:
    """The functions of the module in which one stands."""
    turns = range(passes(program))
    types = {f"pass{turn}": _PASS for turn in turns}
    begins = {"start": _START, "bracket": _BRACKET}
    begun = {
        f"{name}{turn}": type_
        for name, type_ in begins.items()
        for turn in turns
        if repeats(program, turn)
    }
    types |= (
        begun
        | {f"settle{turn}": _SETTLE for turn in turns[:-1]}
        | {
            "tensors": _TENSORS,
            "stream": _STREAM,
            "large": _LARGE,
        }
    )
    source = passes_source
    if name == "exact":
        source, types = exact_source, {name: _PASS}
    elif name.startswith(("tiles", "again", "join")):
        source = tiles_source
        types = begun | {f"tiles{turn}": _TILES for turn in turns}
        types |= {f"again{turn}": _TILES for turn in turns if repeats(program, turn)}
        types |= {f"join{turn}": _JOIN for turn in turns}
    engine = _engine(source(program))
    return {name: type_(engine.get_function_address(name)) for name, type_ in types.items()}


_TALL = {"gram": _type(6, 3), "columns": _type(5, 4), "rows": _type(6, 4)}


def tall(real: str, name: str) -> NativeFunction:
    """A function of llvm_tall.tall_source."""
    return _fixed(("tall", real, name), partial(tall_source, real), _TALL)


_CHOLESKY = {"cholesky": _type(2, 2, ctypes.c_int64)}


def cholesky() -> NativeFunction:
    """The function of llvm_cholesky.cholesky_source."""
    return _fixed(("cholesky",), cholesky_source, _CHOLESKY)


_WIDEN = {"widen": _type(1, 2, ctypes.c_int64)}


def widen(dtype: str, work: str) -> NativeFunction:
    """The function of llvm_widen.widen_source."""
    return _fixed(("widen", dtype, work, "widen"), partial(widen_source, dtype, work), _WIDEN)


def _engine(text: str) -> Any:
    """A module, ready to be called."""
    try:
        import llvmlite.binding as llvm  # loading it takes as long as all that a check does
    except OSError as error:  # its library cannot be loaded, for want of memory say
        raise ImportError(str(error)) from None

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _processor())
    engine.add_object_file(llvm.ObjectFileRef.from_data(_code(text)))
    engine.finalize_object()
    _engines.append(engine)
    return engine


def _code(text: str) -> bytes:
    """The machine code of a module, made or kept."""
    import llvmlite.binding as llvm

    machine = _processor()
    of = "\0".join([text, str(llvm.llvm_version_info), machine.triple, *_processor_words()])
    try:
        path = cache_folder() / f"{hashlib.sha256(of.encode()).hexdigest()}.o"
        code = _kept(path)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return _emitted(text)
    if code is None:
        code = _emitted(text)
        _keep(path, code)
    return code


def _emitted(text: str) -> bytes:
    """The machine code of a module; raises RuntimeError for one that is wrong, which LLVM would
    make a crash of."""
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(text)
    module.verify()
    return bytes(_processor().emit_object(module))


def _seal(path: Path, code: bytes) -> bytes:
    """What a file begins with: a digest of its name and of what it holds."""
    return hashlib.sha256(path.name.encode() + code).digest()


def _kept(path: Path) -> bytes | None:
    """What a file holds, if it is this user's, nobody else can write to it, and it is what was kept
    under its name."""
    try:
        with open_plain(path) as file:
            facts = os.fstat(file.fileno())
            if not _own(facts) or facts.st_size > _LARGEST:
                return None
            seal, code = file.read(_SEAL), file.read(_LARGEST)
    except FileNotFoundError:
        return None
    return code if _seal(path, code) == seal else None


def _own(facts: os.stat_result) -> bool:
    if not hasattr(os, "geteuid"):
        return True
    return facts.st_uid == os.geteuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _keep(path: Path, code: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(path, _seal(path, code) + code, mode=0o600, lasting=False)
        files = sorted(path.parent.glob("*.o"), key=lambda file: file.stat().st_mtime)
        for file in files[:-_MOST_KEPT]:
            file.unlink(missing_ok=True)
    except OSError:
        pass  # it is made again the next time


@cache
def disk() -> tuple[int, int]:
    """The functions of the system that read and write at a place of a file."""
    library = ctypes.CDLL(None)
    read, write = (ctypes.cast(x, ctypes.c_void_p).value for x in (library.pread, library.pwrite))
    return read or 0, write or 0


@cache
def _processor() -> Any:
    """This processor, as LLVM knows it."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = _processor_words()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=2
    )


@cache
def _processor_words() -> tuple[str, str]:
    import llvmlite.binding as llvm

    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
