"""Methods on entries give the same bits for any number of threads, in any memory, and on any
processor: with its own vectors and its own linear algebra."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import lora, recipe

import pemlang
from pemlang.kernels import Elementwise
from pemlang.ops import METHODS, OVER

SITES = {"layers.0.q": (96, 200), "layers.0.up": (130, 70), "layers.1.q": (33, 65)}
GIVEN = {
    "density": "0.4", "epsilon": "0.2", "gamma": "0.05", "t": "0.1", "seed": "3",
}  # fmt: skip
NAMES = sorted(
    name
    for name, method in METHODS.items()
    if isinstance(method.kernel, Elementwise)
    and "over" in {x.name for x in pemlang.ops.FUNCTIONS[name].signatures[0].params}
)


def saves() -> str:
    """Every method on entries, over the factors and over Δ of full rank."""
    text = "".join(f'adapter {name} = "{name}"\n' for name in "ab")
    for name in NAMES:
        [signature] = pemlang.ops.FUNCTIONS[name].signatures
        params = {param.name for param in signature.params}
        given = "".join(f", {key}={value}" for key, value in GIVEN.items() if key in params)
        adapters = "a, b" if "x" in params else "[a, b]"
        for over in OVER.words:
            rank = ", rank=full" if over == "delta" else ""
            text += f'save {name}({adapters}{given}, over={over}{rank}) to "out/{name}-{over}"\n'
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bits")
    for seed, name in enumerate("ab"):
        lora(folder / name, seed, SITES, rank=8, dtype=torch.bfloat16)
    recipe(folder, saves())
    return folder


@pytest.fixture(scope="module")
def wanted(folder: Path) -> dict[str, bytes]:
    return made(folder, folder / "here")


def tensors(out: Path) -> dict[str, bytes]:
    files = sorted(out.glob("out/*/adapter_model.safetensors"))
    return {file.parent.name: file.read_bytes() for file in files}


def made(folder: Path, out: Path, **options: int) -> dict[str, bytes]:
    given = pemlang.BuildOptions(**options)
    pemlang.load(folder / "recipe.pem").build(out, options=given)
    return tensors(out)


def test_all_are_made(wanted: dict[str, bytes]) -> None:
    assert len(wanted) == 2 * len(NAMES) >= 20
    assert len(set(wanted.values())) > len(NAMES)


@pytest.mark.parametrize("threads", [1, 2, 4, 16])
def test_threads_change_no_bit(
    folder: Path, wanted: dict[str, bytes], threads: int, tmp_path: Path
) -> None:
    assert made(folder, tmp_path, threads=threads) == wanted


@pytest.mark.parametrize("memory", [30_000_000, 100_000_000])
def test_memory_changes_no_bit(
    folder: Path, wanted: dict[str, bytes], memory: int, tmp_path: Path
) -> None:
    assert made(folder, tmp_path, memory=memory) == wanted


def in_a_process(folder: Path, out: Path, before: str = "", **env: str) -> dict[str, bytes]:
    """The same, made in a process of its own that something is done in first."""
    code = f"import pemlang\n{before}\npemlang.load('recipe.pem').build({str(out)!r})"
    environment = {**os.environ, "XDG_CACHE_HOME": str(out / "cache"), **env}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True)
    return tensors(out)


X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.mark.skipif(not X86, reason="these are names of x86 processors")
@pytest.mark.parametrize("kind", ["Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen"])
def test_its_linear_algebra_changes_no_bit(
    folder: Path, wanted: dict[str, bytes], kind: str, tmp_path: Path
) -> None:
    assert in_a_process(folder, tmp_path, OPENBLAS_CORETYPE=kind) == wanted


def test_numpy_without_its_vectors_gives_the_same_bits(
    folder: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    asked = "from numpy._core._multiarray_umath import __cpu_dispatch__ as d; print(*d)"
    done = subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True)
    assert done.stdout.strip()
    off = {"NPY_DISABLE_CPU_FEATURES": done.stdout.strip()}
    assert in_a_process(folder, tmp_path, **off) == wanted


@pytest.mark.skipif(not X86, reason="these are names of x86 processors")
@pytest.mark.parametrize("kind", ["x86-64", "nehalem"])
def test_an_older_processor_gives_the_same_bits(
    folder: Path, wanted: dict[str, bytes], kind: str, tmp_path: Path
) -> None:
    """LLVM writes for a processor without AVX and FMA, which every later one runs."""
    older = f"import pemlang.execute.native as n; n._processor_words = lambda: ({kind!r}, '')"
    assert in_a_process(folder, tmp_path, older) == wanted


def test_kept_code_is_taken_where_it_is_whole(folder: Path, tmp_path: Path) -> None:
    """A second process finds the code of the first; what is damaged is made again."""
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    first = in_a_process(folder, tmp_path / "first", **cache)
    files = sorted((tmp_path / "pemlang" / "kernels").glob("*.o"))
    before = {file: file.read_bytes() for file in files}
    files[0].write_bytes(before[files[0]][:-1])
    files[1].write_bytes(bytes(len(before[files[1]])))
    files[2].write_bytes(np.random.default_rng(0).bytes(100))
    files[3].write_bytes(before[files[4]])  # the code of another
    files[5].chmod(0o666)  # anyone may have written it
    assert in_a_process(folder, tmp_path / "second", **cache) == first
    assert {file: file.read_bytes() for file in files} == before
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
