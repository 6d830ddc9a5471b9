"""LoRAs of llama.cpp, as its own `gguf` package writes and reads them: the same Δ in float64. What
is wrong with a file is told, whatever its bytes are."""

from __future__ import annotations

import json
import os
import random
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from support import build, error, pem, recipe
from support.gguf_made import (
    BROKEN,
    EMBEDDING,
    SITES,
    Deltas,
    gguf_deltas,
    gguf_fields,
    gguf_lora,
    gguf_tensors,
)
from support.outputs import verified
from support.refusals import refused

from pemlang.diagnostics import Fault
from pemlang.formats import read_adapter
from pemlang.tensorfiles import read_gguf

ALL = {**SITES, **EMBEDDING}
PAIR = 'adapter a = "a.gguf"\nadapter b = "b.gguf"\n'
ALONE = 'adapter a = "a.gguf"\nsave a to "out/x.gguf"\n'


def assert_same(left: Deltas, right: Deltas, rtol: float = 1e-12) -> None:
    assert left.keys() == right.keys()
    for site in left:
        np.testing.assert_allclose(left[site], right[site], rtol=rtol, atol=rtol, err_msg=site)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_saved_again_it_has_the_same_bytes(dtype: str, tmp_path: Path) -> None:
    a = gguf_lora(tmp_path / "a.gguf", 1, ALL, dtype=dtype)
    [x] = build(tmp_path, ALONE).outputs
    before, after = gguf_tensors(a), gguf_tensors(x.path)
    assert before.keys() == after.keys()
    assert all((before[key] == after[key]).all() for key in before)
    told = gguf_fields(x.path)
    assert told["adapter.lora.alpha"] == 8
    assert told["general.file_type"] == {"f32": 0, "f16": 1, "bf16": 32}[dtype]
    assert told["general.architecture"] == "llama"
    assert (told["general.type"], told["adapter.type"]) == ("adapter", "lora")


def test_sums(tmp_path: Path) -> None:
    a = gguf_lora(tmp_path / "a.gguf", 1, ALL)
    b = gguf_lora(tmp_path / "b.gguf", 2, ALL, rank=3, alpha=5)
    [x] = build(tmp_path, f'{PAIR}save 0.5 * a - b to "out/x.gguf"\n').outputs
    wanted = {site: 0.5 * delta - gguf_deltas(b)[site] for site, delta in gguf_deltas(a).items()}
    assert_same(gguf_deltas(x.path), wanted, rtol=1e-5)


def test_one_alpha_for_ranks_that_differ(tmp_path: Path) -> None:
    a = gguf_lora(tmp_path / "a.gguf", 1)
    queries = {site: shape for site, shape in SITES.items() if site.endswith("attn_q")}
    b = gguf_lora(tmp_path / "b.gguf", 2, queries, rank=2, alpha=3)
    [x] = build(tmp_path, f'{PAIR}save join(a, b) to "out/x.gguf"\n').outputs
    wanted = {site: d + gguf_deltas(b).get(site, 0) for site, d in gguf_deltas(a).items()}
    assert_same(gguf_deltas(x.path), wanted, rtol=1e-5)
    ranks = {key: min(x.shape) for key, x in gguf_tensors(x.path).items()}
    assert {ranks["blk.0.attn_q.weight.lora_a"], ranks["blk.0.attn_v.weight.lora_a"]} == {6, 4}


@pytest.mark.parametrize("alpha", [0, None])
def test_without_alpha_the_scale_is_one(alpha: float | None, tmp_path: Path) -> None:
    a = gguf_lora(tmp_path / "a.gguf", 1, alpha=alpha)
    [x] = build(tmp_path, ALONE).outputs
    assert_same(gguf_deltas(x.path), gguf_deltas(a))


def test_what_nothing_says_the_architecture_of(tmp_path: Path) -> None:
    gguf_lora(tmp_path / "a.gguf", 1)
    told = error(tmp_path, 'adapter a = "a.gguf"\nsave a - a to "out/x.gguf"\n')
    assert told.code == "PEM0354"


def test_what_is_known_of_the_base_stays(tmp_path: Path) -> None:
    fields = {
        "general.base_model.0.name": "Base 1B",
        "general.base_model.0.repo_url": "https://huggingface.co/org/base-1b",
    }
    for seed, name in enumerate("ab"):
        gguf_lora(tmp_path / f"{name}.gguf", seed, fields=fields)
    assert "org/base-1b" in pem("inspect", tmp_path / "a.gguf").out
    [x] = build(tmp_path, f'{PAIR}save a + b to "out/x.gguf"\n').outputs
    assert gguf_fields(x.path).items() >= fields.items()
    other = {"general.base_model.0.repo_url": "https://huggingface.co/org/other"}
    gguf_lora(tmp_path / "b.gguf", 2, fields=other)
    assert error(tmp_path, f'{PAIR}save a + b to "out/y.gguf"\n').code == "PEM0305"


@pytest.mark.parametrize("value", [True, 1 << 60, 7])
def test_fields_of_any_type_are_passed_over(value: int, tmp_path: Path) -> None:
    keys = ("general.base_model.0.name", "llama.attention.head_count", "general.base_model.count")
    gguf_lora(tmp_path / "a.gguf", 1, fields=dict.fromkeys(keys, value))
    [x] = build(tmp_path, ALONE).outputs
    assert gguf_deltas(x.path).keys() == SITES.keys()


def test_an_output_is_verified_locked_and_never_half_there(tmp_path: Path) -> None:
    gguf_lora(tmp_path / "a.gguf", 1, ALL)
    path = recipe(tmp_path, ALONE)
    assert pem("lock", path).code == 0
    assert pem("build", "--locked", path).code == 0
    folder = tmp_path / "out"
    names = ["x.gguf", "x.gguf.provenance.json"]
    assert sorted(file.name for file in folder.iterdir()) == names
    told = verified(folder / "x.gguf", "--rebuild")
    assert told.holds and told.rebuilt is not None
    assert {x.what for x in [*told.outputs, *told.rebuilt]} == set(names)
    assert "up to date" in pem("build", path).out
    with (folder / "x.gguf").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\1\0")
    assert not verified(folder / "x.gguf").holds
    assert pem("diff", tmp_path / "a.gguf", folder / "x.gguf").code == 0
    gguf_lora(tmp_path / "a.gguf", 2, ALL)
    assert pem("build", "--locked", path).code == 1


def test_the_name_says_what_it_is(tmp_path: Path) -> None:
    gguf_lora(tmp_path / "a.gguf", 1)
    for path in ("out/x", "out/x.safetensors"):
        told = error(tmp_path, f'adapter a = "a.gguf"\nsave a to "{path}"\n')
        assert (told.code, told.help) == ("PEM0355", '"out/x.gguf"')


def test_a_model_is_shown_for_what_it_is(tmp_path: Path) -> None:
    extra = {"blk.0.attn_q.weight": np.ones((4, 4), "f4")}
    gguf_lora(tmp_path / "m.gguf", 1, {}, kind="model", extra=extra)
    done = pem("inspect", tmp_path / "m.gguf")
    assert (done.code, "PEM0410" in done.err) == (0, True)
    assert "a model in GGUF" in done.out and "llama" in done.out


# --- what is wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_told(case: str, tmp_path: Path) -> None:
    code, changes = BROKEN[case]
    gguf_lora(tmp_path / "a.gguf", 1, **changes)
    recipe(tmp_path, ALONE)
    refused(tmp_path, code)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def head(tensors: int = 0, fields: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields)


STRING = struct.pack("<I", 8)
HUGE = (1 << 63) - 1
HOSTILE = {
    "empty": b"",
    "another file": b"GGML" + bytes(100),
    "another version": head(version=1) + bytes(100),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(100),
    "tensors without end": head(HUGE),
    "fields without end": head(0, HUGE),
    "a name without end": head(0, 1) + struct.pack("<Q", HUGE),
    "a text without end": head(0, 1) + text("a") + STRING + struct.pack("<Q", HUGE),
    "an array without end": head(0, 1) + text("a") + struct.pack("<IIQ", 9, 0, HUGE),
    "an array of arrays": head(0, 1) + text("a") + struct.pack("<IIQ", 9, 9, 1) + bytes(100),
    "a type that is none": head(0, 1) + text("a") + struct.pack("<I", 99) + bytes(100),
    "a field twice": head(0, 2) + 2 * (text("a") + STRING + text("b")),
    "no alignment": head(0, 1) + text("general.alignment") + struct.pack("<II", 4, 0),
    "many axes": head(1) + text("x") + struct.pack("<I", 1 << 31) + bytes(100),
    "a tensor far away": head(1)
    + text("x")
    + struct.pack("<IQIQ", 1, 4, 0, HUGE // 64 * 64)
    + bytes(100),
    "a tensor without end": head(1) + text("x") + struct.pack("<I4QIQ", 4, *[HUGE] * 4, 0, 0),
    "two of one name": head(2) + 2 * (text("x") + struct.pack("<IQIQ", 1, 0, 0, 0)) + bytes(64),
    "two in one place": head(2)
    + text("x") + struct.pack("<IQIQ", 1, 8, 0, 0)
    + text("y") + struct.pack("<IQIQ", 1, 8, 0, 0)
    + bytes(200),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers(case: str, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(HOSTILE[case])
    recipe(tmp_path, ALONE)
    assert "not a whole GGUF file" in refused(tmp_path, "PEM0412")


def test_cut_at_any_place(tmp_path: Path) -> None:
    whole = gguf_lora(tmp_path / "a.gguf", 1).read_bytes()
    for end in [*range(0, 1200, 7), *range(1200, len(whole) - 32, 1999)]:
        (tmp_path / "cut.gguf").write_bytes(whole[:end])
        with pytest.raises(Fault) as told:
            read_adapter(tmp_path / "cut.gguf")
        assert told.value.code == "PEM0412"


def test_changed_at_any_place_it_is_read_or_refused(tmp_path: Path) -> None:
    whole = gguf_lora(tmp_path / "a.gguf", 1).read_bytes()
    draw = random.Random(1)
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            changed[draw.randrange(1300)] = draw.randrange(256)
        (tmp_path / "changed.gguf").write_bytes(changed)
        try:
            read_adapter(tmp_path / "changed.gguf")
        except Fault as fault:
            assert all(c.isprintable() for c in fault.message)


def test_headers_are_read_as_gguf_itself_reads_them(tmp_path: Path) -> None:
    file = gguf_lora(tmp_path / "a.gguf", 1, ALL, dtype="f16")
    theirs, ours = gguf.GGUFReader(file), read_gguf(file)
    assert {
        x.name: (tuple(map(int, x.shape[::-1])), int(x.data_offset)) for x in theirs.tensors
    } == {name: (x.shape, x.start + ours.data_start) for name, x in ours.tensors.items()}
    assert ours.fields == {
        key: x.contents() for key, x in theirs.fields.items() if not key.startswith("GGUF.")
    }
    signature = json.loads(json.dumps(read_adapter(file).format.signature(read_adapter(file))))
    assert signature["fields"]["adapter.lora.alpha"] == 8
