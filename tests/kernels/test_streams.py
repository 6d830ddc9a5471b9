"""Whole builds: the same bytes on any number of threads and in any memory, spans, what is read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import build, ia3, lora, recipe, tensors_of

import pemlang
from pemlang.execute import elementwise
from pemlang.execute.local import _Worker
from pemlang.pipeline.build import How
from pemlang.tensorfiles import digests
from pemlang.tensorfiles.reader import Files

DECLARED = """adapter a = "a"
adapter b = "b"
adapter c = "c"
adapter i = "i"
adapter h = "h"
"""
SAVES = [
    "a ⊕ 0.5 ⊗ b ⊖ c",
    "a + b - 0.25 * c",
    "ramp(1, 0.5) * a + b",
    'join(a["*.query"], 2 * b["*.value"])',
    "a - a",
    "compress(a + b, rank=3) + c",
    "norm(a) * b ⊕ c",
    "pad(a, rank=9) ⊕ pad(b, rank=9)",
    "i ⊕ 0.3 ⊗ i",
    "h + a",
]
OPTIONS = ["", " with rank=3", " with energy=0.8", " with dtype=f16", " with dtype=bf16"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(elementwise, "BLOCK", 64)
    monkeypatch.setattr("pemlang.execute.local.RUN", 2)
    for seed, name in enumerate("abc"):
        lora(tmp_path / name, seed, dtype=torch.bfloat16 if name == "b" else torch.float32)
    ia3(tmp_path / "i", 1)
    head = {"base_model.model.classifier.weight": torch.randn(5, 7)}
    lora(tmp_path / "h", 9, extra=head, modules_to_save=["classifier"])
    return tmp_path


def saved(text: str = "") -> str:
    lines = []
    for number, what in enumerate(SAVES):
        option = OPTIONS[number % len(OPTIONS)] if not what.startswith("i") else ""
        heads = (", heads=h" if option else " with heads=h") if "h + a" in what else ""
        lines.append(f'save {what} to "out/{number}"{option}{heads}')
    return DECLARED + text + "\n".join(lines) + "\n"


def outcome(folder: Path, how: How) -> tuple[dict[str, bytes], list[str]]:
    made = pemlang.load(recipe(folder, saved())).build(how=how)
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "out").rglob("*"))
        if path.is_file()
    }
    return files, [str(said) for said in made.warnings]


def least(folder: Path) -> int:
    """The smallest budget that a build does not refuse."""
    low, high = 1, 1 << 30
    path = recipe(folder, saved())
    while low < high:
        middle = (low + high) // 2
        try:
            pemlang.load(path).build(folder / "probe", how=How(1, middle, force=True))
            high = middle
        except pemlang.PemError as error:
            assert [said.code for said in error.diagnostics] == ["PEM0521"]
            low = middle + 1
    return low


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_and_memory_change_no_byte(folder: Path, threads: int) -> None:
    wanted = outcome(folder, How(1, 1 << 40, force=True))
    assert len(wanted[0]) == 4 * len(SAVES)
    assert outcome(folder, How(threads, 1 << 30, force=True)) == wanted
    enough = least(folder)
    assert outcome(folder, How(threads, enough, force=True)) == wanted
    with pytest.raises(pemlang.PemError):
        outcome(folder, How(threads, enough - 1, force=True))
    assert not [path for path in folder.rglob(".*") if path.name.startswith(".0")]


def plan(folder: Path, text: str) -> list[int]:
    """The number of tensors in each span of a recipe's plan."""
    found, _ = pemlang.load(recipe(folder, text)).plan()
    return sorted(len(span.pieces) for span in found.spans)


def test_a_merge_of_like_adapters_is_one_loop(folder: Path) -> None:
    text = 'adapter a = "a"\nadapter c = "c"\n'
    assert plan(folder, text + 'save a ⊕ c to "x"\n') == [8]
    assert plan(folder, text + 'save a ⊖ c to "x"\n') == [1] * 8
    assert plan(folder, text + 'save a ⊕ c to "x"\nsave 2 ⊗ a to "y"\n') == [8]


def test_tensors_in_another_order_are_more_loops_and_the_same_numbers(folder: Path) -> None:
    path = folder / "c" / "adapter_model.safetensors"
    tensors = load_file(path)
    before = build(folder, DECLARED + 'save a ⊕ c to "x"\n').outputs[0].path
    wanted = tensors_of(before)
    # safetensors writes wider dtypes first.
    other = {key: x.double() if "layer.1" in key else x for key, x in tensors.items()}
    save_file(other, path, metadata={"format": "pt"})
    found = tensors_of(
        build(folder, DECLARED + 'save a ⊕ c to "y" with dtype=f32\n').outputs[0].path
    )
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert plan(folder, DECLARED + 'save a ⊕ c to "x" with dtype=f32\n') == [4, 4]


def test_each_byte_is_read_once_for_all_outputs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: dict[tuple[str, int], int] = {}
    real = Files.read

    def counted(self: Files, file: Path, start: int, out: np.ndarray) -> None:
        for byte in range(start, start + out.nbytes, 16):
            read[file.parent.name, byte] = read.get((file.parent.name, byte), 0) + 1
        real(self, file, start, out)

    monkeypatch.setattr("pemlang.pipeline.jobs.verify", lambda *_: [])
    monkeypatch.setattr(Files, "read", counted)
    text = "".join(f'save {n} ⊗ a ⊕ c to "x{n}"\n' for n in range(2, 9))
    build(folder, 'adapter a = "a"\nadapter c = "c"\n' + text)
    assert {name for name, _ in read} == {"a", "c"}
    assert set(read.values()) == {1}


def test_a_thread_takes_its_blocks_memory_once(folder: Path) -> None:
    """Kernels keep what they were given: memory that grew would be there several times."""
    plan, _ = pemlang.load(recipe(folder, saved())).plan()
    worker = _Worker(plan, Files(), [], None)
    spans = sorted(plan.spans, key=lambda span: elementwise.bytes_at_work([span.program]))
    needs = {elementwise.bytes_at_work([span.program]) for span in spans}
    assert len(needs) > 1
    place = worker._arena._bytes
    for span in spans:
        worker.kernel(span.program, span.consts)
        assert worker._arena._bytes is place


def test_a_program_of_its_own_at_each_layer(folder: Path) -> None:
    [built] = build(folder, DECLARED + 'save ramp(1, 3) * a to "x"\n').outputs
    found, wanted = tensors_of(built.path), tensors_of(folder / "a")
    for key, tensor in wanted.items():
        factor = (3 if "layer.1" in key else 1) if "lora_B" in key else 1
        assert torch.equal(found[key], factor * tensor)


# --- float8 --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_is_read_and_written(tmp_path: Path, dtype: torch.dtype) -> None:
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed, dtype=dtype)
    text = 'adapter a = "a"\nadapter b = "b"\n'
    [built] = build(tmp_path, text + 'save a ⊕ 0.5 ⊗ b to "x"\n').outputs
    found, a, b = (tensors_of(path) for path in (built.path, tmp_path / "a", tmp_path / "b"))
    for key, tensor in found.items():
        assert tensor.dtype == dtype
        wanted = (a[key].float() + 0.5 * b[key].float()).to(dtype)
        assert torch.equal(tensor.float(), wanted.float())
    [wide] = build(tmp_path, text + 'save a ⊕ 0.5 ⊗ b to "y" with dtype=f32\n').outputs
    for key, tensor in tensors_of(wide.path).items():
        assert torch.equal(tensor, a[key].float() + 0.5 * b[key].float())


# --- files that change, digests that are remembered -----------------------------------------


def replaced(path: Path) -> None:
    new = path.with_name("new")
    new.write_bytes(path.read_bytes())
    new.replace(path)


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 4)


@pytest.mark.parametrize("change", [replaced, cut])
def test_a_file_that_changes_meanwhile_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    real = pemlang.pipeline.jobs.make_plan  # type: ignore[attr-defined]

    def late(*args: object) -> object:
        found = real(*args)
        change(folder / "a" / "adapter_model.safetensors")
        return found

    monkeypatch.setattr("pemlang.pipeline.jobs.make_plan", late)
    with pytest.raises(pemlang.PemError) as wrong:
        build(folder, DECLARED + 'save a ⊕ c to "out/x"\n')
    assert [said.code for said in wrong.value.diagnostics] == ["PEM0412"]
    assert not (folder / "out").exists()


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file worth remembering, last changed a while ago."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "SETTLED", 0)
    monkeypatch.setattr(digests._Memory, "_loaded", None)
    path = tmp_path / "large"
    path.write_bytes(b"x" * digests.WORTH_REMEMBERING)
    return path


def forget(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Start as a new process does; the list takes the files that are read."""
    read: list[Path] = []
    real = digests._digest

    def counted(path: Path) -> str:
        read.append(path)
        return real(path)

    monkeypatch.setattr(digests, "_HERE", {})
    monkeypatch.setattr(digests._Memory, "_loaded", None)
    monkeypatch.setattr(digests, "_digest", counted)
    return read


def test_a_digest_is_remembered(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digests.file_digest(large)
    read = forget(monkeypatch)
    assert digests.file_digest(large) == first
    assert read == []


def test_a_file_with_its_date_put_back_is_read_again(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = digests.file_digest(large)
    stat = large.stat()
    time.sleep(0.05)
    with large.open("r+b") as file:
        file.write(b"y")
    os.utime(large, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert large.stat().st_mtime_ns == stat.st_mtime_ns
    read = forget(monkeypatch)
    assert digests.file_digest(large) != first
    assert read == [large]


def test_a_file_changed_a_moment_ago_is_not_remembered(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SETTLED", 10**18)
    digests.file_digest(large)
    read = forget(monkeypatch)
    digests.file_digest(large)
    assert read == [large]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"x": 1}', "\x00" * 100])
def test_a_damaged_memory_is_no_matter(
    large: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    first = digests.file_digest(large)
    (large.parent / "cache" / "pemlang" / "digests.json").write_text(damage)
    read = forget(monkeypatch)
    assert digests.file_digest(large) == first
    assert read == [large]


def test_a_cache_that_cannot_be_written_is_no_matter(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (large.parent / "cache").write_text("a file where the folder would be")
    first = digests.file_digest(large)
    forget(monkeypatch)
    assert digests.file_digest(large) == first
