"""Kernels as Python modules: Triton reads the source of a function from a file.

The files are kept in the user's cache, to be read by a person. What runs is the text that a
program gives now; a file that says something else is replaced, never run.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from functools import cache
from importlib.abc import SourceLoader
from pathlib import Path
from types import ModuleType

from pemlang.disk import open_plain, replace_file
from pemlang.kernels.program import Program
from pemlang.kernels.triton import VERSION, triton_source


def module_of(program: Program) -> ModuleType:
    """The module of `triton_source`, imported from a file that holds exactly that."""
    text = triton_source(program)
    path = kept(f"{program.key}-{VERSION}.py", text)
    name = f"pemlang_kernel_{program.key}"
    spec = importlib.util.spec_from_loader(name, _Loader(str(path), text))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kept(name: str, text: str) -> Path:
    """A file with a text: in the user's cache, or in a folder of this process where that cannot
    be written."""
    try:
        return _kept(cache_folder(), name, text)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return _kept(Path(_owncache_folder().name), name, text)


def _kept(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    if _holds(path, text.encode()):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode(), lasting=False)
    return path


def _holds(path: Path, data: bytes) -> bool:
    try:
        with open_plain(path) as file:
            return file.read(len(data) + 1) == data
    except OSError:
        return False


def cache_folder() -> Path:
    """Where kernels are kept in the user's cache; raises RuntimeError where there is no home."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "pemlang" / "kernels"


@cache
def _owncache_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pemlang-")


class _Loader(SourceLoader):
    """Runs a text, and no compiled file beside it."""

    def __init__(self, path: str, text: str) -> None:
        self._path, self._data = path, text.encode()

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        return self._data
