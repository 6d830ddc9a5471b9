"""One-file LoRAs that are not what they say: read as they are, or told in a coded error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import pem, recipe
from support.image_loras import factors, image_lora, metadata_of

from pemlang.diagnostics import Fault
from pemlang.formats import read_adapter

SITES = {f"lora_unet_{x}": ((8,), (6,)) for x in "qkv"}
DRAWN = settings(derandomize=True, deadline=None, database=None, max_examples=150)


def parts(file: Path) -> tuple[dict[str, object], bytes]:
    """The header of a file, and its data."""
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, object] = json.loads(data[8:end])
    return header, data[end:]


def write(file: Path, header: object, data: bytes) -> Path:
    raw = json.dumps(header).encode()
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return file


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("right") / "x.safetensors"
    image_lora(file, factors(SITES, 1), metadata={"ss_output_name": "x"})
    return file


def told(file: Path) -> str:
    """The code of what is wrong with a file; empty where it is read."""
    try:
        read_adapter(file)
    except Fault as fault:
        assert all(c.isprintable() for c in fault.message)
        return fault.code
    return ""


def test_a_million_tensors_are_not_read(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = {f"lora_unet_{n}.alpha": entry for n in range(10**6)}
    assert told(write(tmp_path / "x.safetensors", header, b"")) == "PEM0412"
    done = pem("inspect", tmp_path / "x.safetensors")
    assert (done.code, "PEM0412" in done.err) == (1, True)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "\u202e", "a.b/../c", "é" * 2000, "lora_"])
def test_names_of_any_kind_are_shown_escaped(name: str, right: Path, tmp_path: Path) -> None:
    header, data = parts(right)
    header = {key.replace("lora_unet_q", f"lora_unet_{name}"): x for key, x in header.items()}
    file = write(tmp_path / "x.safetensors", header, data)
    assert told(file) == ""
    text = 'adapter x = "x.safetensors"\nsave x to "out/z.safetensors"\n'
    assert pem("build", recipe(tmp_path, text)).code == 0
    shown = pem("inspect", tmp_path / "out/z.safetensors")
    assert shown.code == 0
    assert all(c == "\n" or c.isprintable() for c in shown.out)


@pytest.mark.parametrize("said", ["\ud800", 3, None, ["x"], {"a": "b"}])
def test_metadata_of_any_kind_is_left_out(said: object, right: Path, tmp_path: Path) -> None:
    header, data = parts(right)
    header["__metadata__"] = {"ss_output_name": said, "ss_base_model_version": "sd_v1"}
    write(tmp_path / "x.safetensors", header, data)
    text = 'adapter x = "x.safetensors"\nsave x to "out/z.safetensors"\n'
    assert pem("build", recipe(tmp_path, text)).code == 0
    kept = metadata_of(tmp_path / "out/z.safetensors")
    assert kept["ss_base_model_version"] == "sd_v1"
    assert "ss_output_name" not in kept


@pytest.mark.parametrize("alpha", [np.inf, -np.inf, np.nan, 0.0, -0.0])
def test_alphas_that_mean_nothing(alpha: float, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    image_lora(file, factors(SITES, 1), {"lora_unet_k": alpha})
    assert told(file) == "PEM0425"


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "i4", "u1"])
def test_an_alpha_of_any_dtype_is_read(dtype: str, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = tmp_path / "x.safetensors"
    image_lora(file, factors(SITES, 1), 3.0)
    tensors = load_file(file)
    alphas = {key: np.array(3, dtype) for key in tensors if key.endswith(".alpha")}
    save_file(tensors | alphas, file)
    assert set(read_adapter(file).scales.values()) == {0.75}


@DRAWN
@given(cut=st.integers(0, 2000))
def test_a_file_cut_anywhere_is_told(cut: int, right: Path, tmp_path_factory: object) -> None:
    data = right.read_bytes()
    file = right.with_name("cut.safetensors")
    file.write_bytes(data[: min(cut, len(data) - 1)])
    assert told(file) in ("PEM0412", "PEM0410")


_JUNK = st.sampled_from(["F32", "I64", [4, 8], [], [0], [1 << 62, 4], [0, 128], None, "x", -1, {}])


@DRAWN
@given(key=st.integers(0, 9), field=st.sampled_from(["dtype", "shape", "data_offsets"]), junk=_JUNK)
def test_an_entry_of_anything_is_told(key: int, field: str, junk: object, right: Path) -> None:
    header, data = parts(right)
    entries = [value for name, value in header.items() if name != "__metadata__"]
    entry = entries[key % len(entries)]
    assert isinstance(entry, dict)
    entry[field] = junk
    assert told(write(right.with_name("junk.safetensors"), header, data)) in (
        "", "PEM0410", "PEM0412", "PEM0417", "PEM0419",
    )  # fmt: skip
