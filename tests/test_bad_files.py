"""Files that are not what they say: a coded error, no traceback, nothing written."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import PREFIX, config_of, lora, recipe, save, tensors_of

from pemlang.cli.main import main

WEIGHTS = "adapter_model.safetensors"
TEXT = 'adapter a = "a"\nadapter b = "b"\nsave a + b to "out/x"\n'


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def pem(folder: Path, *args: str) -> Done:
    """The command line, in this process: a traceback would be an exception here."""
    out, err = io.StringIO(), io.StringIO()
    with chdir(folder), redirect_stdout(out), redirect_stderr(err):
        try:
            main(args)
        except SystemExit as end:
            assert isinstance(end.code, int)
            return Done(end.code, out.getvalue(), err.getvalue())


def refused(folder: Path, code: str, name: str = "recipe.pem") -> str:
    """That a build says this code alone and writes nothing; what it says."""
    before = sorted(folder.rglob("*"))
    done = pem(folder, "build", name)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("error[") == 1
    assert f"error[{code}]" in done.stderr
    assert sorted(folder.rglob("*")) == before
    return done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2)
    recipe(tmp_path, TEXT)
    return tmp_path


# --- recipes -------------------------------------------------------------------------------


RECIPES: dict[str, tuple[bytes, str]] = {
    "a certificate": (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "PEM0103"),
    "a key after a blank line": (b"\n -----BEGIN PRIVATE KEY-----\n", "PEM0103"),
    "an empty file": (b"", "PEM0104"),
    "white space": (b" \n\t\n", "PEM0104"),
    "ten megabytes in one line": (b"let x = " + b"1 + " * 2_500_000 + b"1", "PEM0101"),
    "Latin-1": ("let é = 1".encode("latin-1"), "PEM0102"),
    "UTF-16": ("let x = 1".encode("utf-16"), "PEM0102"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "PEM0102"),
    "zeros": (bytes(1000), "PEM0105"),
    "nothing but comments": (b"# to do\n", "PEM0114"),
}


@pytest.mark.parametrize("what", RECIPES)
def test_a_file_that_is_no_recipe(folder: Path, what: str) -> None:
    data, code = RECIPES[what]
    (folder / "x.pem").write_bytes(data)
    message = refused(folder, code, "x.pem")
    assert len(message) < 2000


def test_a_recipe_that_is_not_there(folder: Path) -> None:
    assert "No such file" in refused(folder, "PEM0100", "nowhere.pem")
    (folder / "dir.pem").mkdir()
    refused(folder, "PEM0100", "dir.pem")


def test_the_largest_recipe_is_read(folder: Path) -> None:
    """The bound on a recipe's size is one that its reader stands."""
    recipe(folder, TEXT + "let n = " + "1 + " * 64_000 + "1\n")
    assert pem(folder, "check", "recipe.pem").returncode == 0


def test_a_file_full_of_mistakes_is_said_briefly(folder: Path) -> None:
    recipe(folder, "let = 1\n" * 30_000)
    done = pem(folder, "check", "recipe.pem")
    assert done.returncode == 1
    assert len(done.stderr) < 100_000


# --- tensors -------------------------------------------------------------------------------


def header_of(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    found: dict[str, Any] = json.loads(data[8 : 8 + length])
    return found


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
    found: dict[str, Any] = header[min(header)]
    return found


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


# --- configs -------------------------------------------------------------------------------


CONFIGS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "PEM0414"),
    "a list": (b"[]", "PEM0414"),
    "nested without end": (b"[" * 100_000, "PEM0414"),
    "not UTF-8": (b'{"r": "\xff"}', "PEM0414"),
    "no method": (b"{}", "PEM0420"),
    "a method that is a number": (b'{"peft_type": 3}', "PEM0414"),
    "another method": (b'{"peft_type": "VERA"}', "PEM0420"),
}
FIELDS: list[tuple[str, Any]] = [
    ("r", "8"), ("r", 0), ("r", -8), ("r", True), ("r", 8.5), ("r", [8]),
    ("lora_alpha", "16"), ("lora_alpha", True), ("lora_alpha", 1e400), ("lora_alpha", 10**400),
    ("use_rslora", "yes"), ("rank_pattern", []), ("rank_pattern", {"x": "8"}),
    ("alpha_pattern", {"x": [1]}), ("fan_in_fan_out", 1), ("modules_to_save", 5),
    ("modules_to_save", [5]), ("base_model_name_or_path", 7),
]  # fmt: skip


@pytest.mark.parametrize("what", CONFIGS)
def test_a_config_that_is_none(folder: Path, what: str) -> None:
    data, code = CONFIGS[what]
    (folder / "a" / "adapter_config.json").write_bytes(data)
    refused(folder, code)


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_a_field_of_the_wrong_type(folder: Path, field: str, value: Any) -> None:
    lora(folder / "a", 1, **{field: value})
    assert field in refused(folder, "PEM0414")


@pytest.mark.parametrize(
    "key",
    [
        "(a+)+$",
        "(.*)*x",
        "[",
        "a" * 20_000,
        "(?P<x>a)(?P=x)",
        "a{9999}{9999}",
        "a?" * 32 + "b",
        ".*a.*a.*" + "a?" * 8 + "b",
    ],
)
def test_a_pattern_that_would_run_for_ever(folder: Path, key: str) -> None:
    lora(folder / "a", 1, rank_pattern={key: 4})
    refused(folder, "PEM0424")


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": r".*\.0\..*query|.*value"},
        {"layers_to_transform": [0]},
        {"layers_to_transform": 0, "layers_pattern": "layer"},
        {"modules_to_save": ["layer.1.attention"]},
        {"exclude_modules": r".*\.1\.attention\.self\.query"},
    ],
)
def test_tensors_that_peft_would_ignore(folder: Path, fields: dict[str, Any]) -> None:
    lora(folder / "a", 1, **fields)
    assert "encoder.layer.1.attention.self.query" in refused(folder, "PEM0415")


def test_a_layers_pattern_that_is_a_number(folder: Path) -> None:
    lora(folder / "a", 1, layers_to_transform=0, layers_pattern=5)
    refused(folder, "PEM0415")


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": r"encoder\.layer\.[01]\.attention\.self\.(query|value)"},
        {"target_modules": "All-Linear"},
        {"modules_to_save": ["classifier"]},
        {"layers_to_transform": [0, 1], "layers_pattern": ["layer"]},
        {"layers_to_transform": []},
    ],
)
def test_tensors_that_peft_takes(folder: Path, fields: dict[str, Any]) -> None:
    lora(folder / "a", 1, **fields)
    assert pem(folder, "build", "recipe.pem").returncode == 0


def test_rank_and_alpha_that_tensors_cannot_mean(folder: Path) -> None:
    lora(folder / "a", 1, r=8)
    assert "rank 4" in refused(folder, "PEM0415")


# --- pickles -------------------------------------------------------------------------------


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


# --- names ---------------------------------------------------------------------------------


def test_a_hostile_name_is_shown_and_not_obeyed(folder: Path) -> None:
    hostile = "evil\x1b[2J\u202e\n# <script>"
    lora(folder / hostile.replace("\n", ""), 1)
    lora(folder / "a", 1, sites={hostile.replace("\n", ""): (3, 5)})
    lora(folder / "b", 2, sites={"plain": (3, 5)})
    done = pem(folder, "check", "recipe.pem")
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr
    assert "\\u001b[2J\\u202e" in done.stderr


def test_a_directory_that_is_none(folder: Path) -> None:
    for path in ("nowhere", "recipe.pem", "a/adapter_config.json", ""):
        recipe(folder, f'adapter a = "{path}"\nsave a to "out/x"\n')
        assert pem(folder, "build", "recipe.pem").returncode == 1


def test_a_name_that_is_too_long_for_any_pattern(folder: Path) -> None:
    lora(folder / "a", 1, sites={"a" * 3000: (3, 5)}, rank_pattern={".*a.*a.*b": 4})
    refused(folder, "PEM0416")


def test_a_shape_of_enormous_numbers(folder: Path) -> None:
    with_header(
        folder / "a" / WEIGHTS,
        {"x": {"dtype": "F32", "shape": [10**4000] * 500, "data_offsets": [0, 4]}},
    )
    refused(folder, "PEM0412")


@pytest.mark.parametrize("name", ["adapter_config.json", WEIGHTS, "adapter_model.bin"])
def test_a_pipe_in_place_of_a_file(folder: Path, name: str) -> None:
    if name == "adapter_model.bin":
        (folder / "a" / WEIGHTS).unlink()
    (folder / "a" / name).unlink(missing_ok=True)
    os.mkfifo(folder / "a" / name)
    assert pem(folder, "build", "recipe.pem").returncode == 1


@pytest.mark.parametrize(
    "text",
    [
        'import "{}.pem" as x',
        'base m = "{}"\nadapter a = "a"\nlet x = m + a',
        'model q = "{}"',
        'adapter q = "{}"',
        'adapter q = "x/{}"',
        'adapter a = "a"\nsave a to "{}"',
    ],
)
def test_a_name_that_is_too_long_for_the_disk(folder: Path, text: str) -> None:
    recipe(folder, text.format("y" * 300) + "\n")
    assert pem(folder, "build", "recipe.pem").returncode == 1


def test_an_unreadable_file(folder: Path) -> None:
    (folder / "a" / WEIGHTS).unlink()
    (folder / "a" / WEIGHTS).mkdir()
    refused(folder, "PEM0411")
