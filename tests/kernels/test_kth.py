"""The k-th largest of numbers, against sorting all of them: whatever a sample says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from support import recipe
from support.kernels.loops import run
from support.models import model

import pemlang
from pemlang.kernels import Abs, Add, Builder

Numbers = NDArray[np.floating]


def of_files(x: Numbers) -> Numbers:
    """Small ones where a sample of a file looks."""
    x = x.copy()
    for first in range(0, x.size, 65 * 256):
        x[first : first + 256] *= 1e-6
    return x


def of_memory(x: Numbers) -> Numbers:
    """Small ones where a sample of a tensor in memory looks."""
    x = x.copy()
    for first in range(0, x.size, 33 * 64):
        x[first : first + 64] *= 1e-6
    return x


KINDS: dict[str, Callable[[Numbers], Numbers]] = {
    "normal": lambda x: x,
    "few values": lambda x: np.round(x, 1),
    "zeros": lambda x: 0 * x,
    "half zeros": lambda x: np.where(np.arange(x.size) < x.size // 2, 0, x),
    "all sizes": lambda x: np.exp(10 * x),
    "subnormal": lambda x: x * (1e-40 if x.dtype == np.float32 else 1e-310),
    "in order": np.sort,
    "small in the sample of files": of_files,
    "small in the sample of memory": of_memory,
}


@pytest.mark.parametrize("span", [0, 1024], ids=["at once", "by parts"])
@pytest.mark.parametrize("dtype", ["F32", "F64"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_that_of_sorting(kind: str, dtype: str, span: int) -> None:
    drawn = np.random.default_rng(0).standard_normal(70_000)
    for size in (1, 5, 100, 20_000, 70_000):
        x = KINDS[kind](
            drawn[:size].astype(f"f{dtype[1:]}".replace("f32", "f4").replace("64", "8"))
        )
        order = np.sort(np.abs(x))[::-1]
        for k in {1, size, size // 2, size // 5, size // 100} - {0}:
            builder = Builder[int, int]()
            sizes = builder.unary(Abs, builder.load(0, dtype, x.shape))
            count = builder.const(float(k), "F64", x.shape)
            builder.store(builder.kth(sizes, 1.0, count), 0, dtype)
            [call] = builder.calls()
            [found], _ = run(call.program, call.constants, [x], span)
            np.testing.assert_array_equal(found, order[k - 1])


def test_of_what_reads_nothing_it_is_that() -> None:
    """The place of an adapter that does nothing there."""
    builder = Builder[int, int]()
    x = builder.load(0, "F32", (100,))
    two, count = builder.const(2.0, "F32", x.shape), builder.const(7.0, "F64", x.shape)
    larger = builder.binary(Add, builder.kth(builder.unary(Abs, x), 1.0, count), x)
    builder.store(builder.binary(Add, builder.kth(two, 1.0, count), larger), 0, "F32")
    [call] = builder.calls()
    [found], _ = run(call.program, call.constants, [np.ones(100, np.float32)])
    np.testing.assert_array_equal(found, np.full(100, 4.0, np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_that_of_sorting_in_tensors_that_are_read_by_parts(kind: str, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((1100, 601), dtype=np.float32)
    x = KINDS[kind](x.reshape(-1)).astype(np.float32).reshape(x.shape)
    for name, weights in (("b", np.zeros_like(x)), ("m", x)):
        tensors = {"w": torch.from_numpy(weights)}
        file = model(tmp_path / name, shapes={"w": x.shape}) / "model.safetensors"
        save_file(tensors, file, {"format": "pt"})
    saved = 'save b + magnitude_prune([m - b], density=0.3) to "out"'
    pemlang.load(recipe(tmp_path, f'base b = "b"\nmodel m on b = "m"\n{saved}\n')).build()
    least = np.sort(np.abs(x), axis=None)[::-1][int(0.3 * x.size) - 1]
    pruned = load_file(tmp_path / "out" / "model.safetensors")["w"].numpy()
    np.testing.assert_array_equal(pruned, np.where(np.abs(x) >= least, x, 0))
