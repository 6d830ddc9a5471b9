"""Files of tensors that are damaged, lie, or hold what is no number."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import PREFIX, SITES, config_of, lora, save, tensors_of
from support.refusals import WEIGHTS, refused


def header_of(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    return header


def with_header(path: Path, header: object) -> None:
    """The file with another header before the same tensors."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + length :])


def lying(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        header = header_of(path)
        header.pop("__metadata__", None)
        change(header)
        with_header(path, header)

    return damage


def first(header: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = header[min(header)]
    return entry


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "seven bytes": lambda path: path.write_bytes(bytes(7)),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "cut in the tensors": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer than it says": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "a header of 2^63 bytes": lambda path: path.write_bytes(struct.pack("<Q", 1 << 63)),
    "a header that is no JSON": lambda path: with_header(path, b"{" * 1000),
    "a header nested without end": lambda path: with_header(path, b"[" * 100_000),
    "a header that is a list": lambda path: with_header(path, [1]),
    "an entry that is a number": lambda path: with_header(path, {"x": 3}),
    "offsets past the end": lying(lambda h: first(h).update(data_offsets=[0, 1 << 40])),
    "offsets backwards": lying(lambda h: first(h).update(data_offsets=[100, 0])),
    "negative offsets": lying(lambda h: first(h).update(data_offsets=[-256, 0])),
    "offsets that are text": lying(lambda h: first(h).update(data_offsets=["0", "256"])),
    "offsets shared by two": lying(
        lambda h: [e.update(data_offsets=[0, 256]) for e in list(h.values())[:2]]
    ),
    "a shape that does not fit": lying(lambda h: first(h).update(shape=[4, 15])),
    "a negative shape": lying(lambda h: first(h).update(shape=[-4, -16])),
    "a shape of floats": lying(lambda h: first(h).update(shape=[4.0, 16.0])),
    "a shape of truths": lying(lambda h: first(h).update(shape=[True, 64])),
    "a shape beyond any memory": lying(lambda h: first(h).update(shape=[1 << 62, 1 << 62])),
    "a dtype that is none": lying(lambda h: first(h).update(dtype="F33")),
    "a dtype that is a list": lying(lambda h: first(h).update(dtype=["F32"])),
    "no dtype": lying(lambda h: first(h).pop("dtype")),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_tensor_file(folder: Path, what: str) -> None:
    DAMAGE[what](folder / "a" / WEIGHTS)
    refused(folder, "PEM0412")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_number_that_is_none(folder: Path, value: float, dtype: torch.dtype) -> None:
    lora(folder / "a", 1, dtype=dtype)
    tensors = tensors_of(folder / "a")
    tensors[min(tensors)][1, 2] = value
    save(folder / "a", tensors, config_of(folder / "a"))
    assert min(tensors).split(".")[-3] in refused(folder, "PEM0502")


def test_a_tensor_that_is_no_factor(folder: Path) -> None:
    lora(folder / "a", 1, extra={"something.else": np.zeros(3)})
    refused(folder, "PEM0416")


def test_a_bias_beside_factors_that_is_no_float(folder: Path) -> None:
    biases = {f"{PREFIX}{site}.lora_B.bias": np.zeros(12, "i8") for site in SITES}
    lora(folder / "a", 1, extra=biases, lora_bias=True)
    assert min(biases) in refused(folder, "PEM0419")


@pytest.mark.parametrize(
    ("shape_a", "shape_b"),
    [((4, 16), (12, 3)), ((4, 16), (12,)), ((64,), (48,)), ((0, 16), (12, 0)), ((), ())],
)
def test_factors_that_do_not_fit(
    folder: Path, shape_a: tuple[int, ...], shape_b: tuple[int, ...]
) -> None:
    tensors = {
        f"{PREFIX}x.lora_A.weight": np.zeros(shape_a, "f4"),
        f"{PREFIX}x.lora_B.weight": np.zeros(shape_b, "f4"),
    }
    save(folder / "a", tensors, config_of(folder / "a"))
    refused(folder, "PEM0417")


def test_a_shape_of_enormous_numbers(folder: Path) -> None:
    with_header(
        folder / "a" / WEIGHTS,
        {"x": {"dtype": "F32", "shape": [10**4000] * 500, "data_offsets": [0, 4]}},
    )
    refused(folder, "PEM0412")
