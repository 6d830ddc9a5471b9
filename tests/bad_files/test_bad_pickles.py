"""Pickles: none is run, whatever it holds, and none takes for ever."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tensors_of
from support.refusals import WEIGHTS, refused


class Boom:
    """A pickle that, run, leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def pickled(folder: Path, data: object, **options: Any) -> Path:
    weights = folder / "a" / WEIGHTS
    weights.unlink()
    path = folder / "a" / "adapter_model.bin"
    torch.save(data, path, **options)
    return path


def test_a_pickle_is_never_run(folder: Path) -> None:
    tensors: dict[str, Any] = dict(tensors_of(folder / "a"))
    pickled(folder, tensors | {"x": Boom(folder / "boom")})
    assert "mkdir" in refused(folder, "PEM0413")
    assert not (folder / "boom").exists()


def test_an_old_pickle_is_never_run(folder: Path) -> None:
    path = pickled(folder, {})
    path.write_bytes(pickle.dumps(Boom(folder / "boom")))
    refused(folder, "PEM0413")
    assert not (folder / "boom").exists()


@pytest.mark.parametrize(
    "data", [[1], {"x": 1}, {1: torch.zeros(2)}, {"x": torch.zeros(4, 4).T[1:]}]
)
def test_a_pickle_of_something_else(folder: Path, data: object) -> None:
    pickled(folder, data)
    refused(folder, "PEM0413")


# Tuples of tuples, each holding the one before twice: 2^60 to look at, 60 to write.
DEEP = b")" + b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(60)) + b"\x94h\x3c"
PROGRAMS = {
    "a key": b"}" + DEEP[:-2] + b"K\x01s",
    "a name": DEEP + b"\x93)R",
    "a shape": b"ctorch._utils\n_rebuild_tensor_v2\n" + DEEP + b"\x86R",
    "a storage": DEEP + b"Q",
    "a value": b"}X\x01\x00\x00\x00x" + DEEP[:-2] + b"s",
    "nothing": b"",
    "one instruction without end": b"(" * 1_000_000,
    "a number of a megabyte": b"\x8b\xff\xff\x0f\x00" + b"\x7f" * 0xFFFFF,
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_pickle_that_would_take_for_ever(folder: Path, what: str) -> None:
    (folder / "a" / WEIGHTS).unlink()
    with zipfile.ZipFile(folder / "a" / "adapter_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x04" + PROGRAMS[what] + b".")
    refused(folder, "PEM0413")


def test_an_index_that_unpacks_to_far_more(folder: Path) -> None:
    (folder / "a" / WEIGHTS).unlink()
    path = folder / "a" / "adapter_model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(100 << 20))
    assert path.stat().st_size < 1 << 20
    refused(folder, "PEM0413")


def test_a_cut_pickle(folder: Path) -> None:
    path = pickled(folder, tensors_of(folder / "a"))
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:size])
        refused(folder, "PEM0413")


def test_an_old_torch_file(folder: Path) -> None:
    pickled(folder, tensors_of(folder / "a"), _use_new_zipfile_serialization=False)
    refused(folder, "PEM0413")


@pytest.mark.parametrize("hidden", ["", "in the record", "behind a locator"])
def test_an_archive_of_a_great_many_members(folder: Path, hidden: str) -> None:
    """How long its index is may be hidden from all but Python's own reader."""
    path = pickled(folder, dict(tensors_of(folder / "a")))
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(70_000):
            archive.writestr(f"archive/{'x' * 80}{number}", b"")
    data = bytearray(path.read_bytes())
    end = data.rfind(b"PK\5\6")
    if hidden == "in the record":
        data[end + 8 : end + 12] = b"PK\5\6"
    elif hidden:
        data[end + 12 : end + 16] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    refused(folder, "PEM0413")


def test_tensors_that_are_one_another(folder: Path) -> None:
    """A small file whose tensors would take a large one."""
    tensors = tensors_of(folder / "a")
    one = torch.zeros(1000, 100)
    pickled(folder, dict.fromkeys((*tensors, *(f"x{n}" for n in range(200))), one))
    assert "over and over" in refused(folder, "PEM0413")
