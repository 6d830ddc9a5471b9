"""Whole builds: the same bytes on any number of threads and in any memory, loops, what is read."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import ia3, lora, recipe, tensors_of
from support.reads import counted_reads

import pemlang
from pemlang import BuildOptions
from pemlang.execute import (
    Arena,
    CpuExecutor,
    ExecutionOptions,
    ExecutionResult,
    FileTarget,
    MemoryTarget,
    block_memory,
    block_of,
)
from pemlang.failures import InputChanged
from pemlang.lower import BuildPlan, OutputRequest, make_plan
from pemlang.pipeline import BuildResult
from pemlang.tensorfiles import TensorReader

BLOCKS = ExecutionOptions(block=64, turn=2)
"""Blocks so small that every tensor has several."""

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
    "ties([a, b], density=0.5, over=factors)",
]
OPTIONS = ["", " with rank=3", " with energy=0.8", " with dtype=f16", " with dtype=bf16"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
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


def build(folder: Path, text: str, **options: Any) -> BuildResult:
    """A recipe built in small blocks."""
    how = BuildOptions(block=64, turn=2, **options)
    return pemlang.load(recipe(folder, text)).build(options=how)


def outcome(folder: Path, threads: int, memory: int) -> tuple[dict[str, bytes], list[str]]:
    result = build(folder, saved(), threads=threads, memory=memory, force=True)
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "out").rglob("*"))
        if path.is_file()
    }
    return files, [str(warning) for warning in result.warnings]


def least(folder: Path) -> int:
    """The smallest budget that a build does not refuse."""
    low, high = 1, 1 << 30
    path = recipe(folder, saved())
    while low < high:
        middle = (low + high) // 2
        how = BuildOptions(1, middle, force=True, block=64, turn=2)
        try:
            pemlang.load(path).build(folder / "probe", options=how)
            high = middle
        except pemlang.PemError as error:
            assert [diagnostic.code for diagnostic in error.diagnostics] == ["PEM0521"]
            low = middle + 1
    return low


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_and_memory_change_no_byte(folder: Path, threads: int) -> None:
    wanted = outcome(folder, 1, 1 << 40)
    assert len(wanted[0]) == 4 * len(SAVES)
    assert outcome(folder, threads, 1 << 30) == wanted
    enough = least(folder)
    assert outcome(folder, threads, enough) == wanted
    with pytest.raises(pemlang.PemError):
        outcome(folder, threads, enough - 1)
    assert not [path for path in folder.rglob(".*") if path.name.startswith(".0")]


def loops_of(folder: Path, text: str) -> list[int]:
    """The number of tensors in each loop of a recipe's plan."""
    made, _ = pemlang.load(recipe(folder, text)).programs()
    return sorted(len(loop.calls) for loop in made.plan.loops)


def test_a_merge_of_like_adapters_is_one_loop(folder: Path) -> None:
    text = 'adapter a = "a"\nadapter c = "c"\n'
    assert loops_of(folder, text + 'save a ⊕ c to "x"\n') == [8]
    assert loops_of(folder, text + 'save a ⊖ c to "x"\n') == [1] * 8
    assert loops_of(folder, text + 'save a ⊕ c to "x"\nsave 2 ⊗ a to "y"\n') == [8]


def test_tensors_in_another_order_are_more_loops_and_the_same_numbers(folder: Path) -> None:
    path = folder / "c" / "adapter_model.safetensors"
    tensors = load_file(path)
    before = build(folder, DECLARED + 'save a ⊕ c to "x"\n').outputs[0].path
    wanted = tensors_of(before)
    # safetensors writes wider dtypes first.
    other = {key: x.double() if "layer.1" in key else x for key, x in tensors.items()}
    save_file(other, path, metadata={"format": "pt"})
    [built] = build(folder, DECLARED + 'save a ⊕ c to "y" with dtype=f32\n').outputs
    again = tensors_of(built.path)
    assert again.keys() == wanted.keys()
    assert all(torch.equal(again[key], wanted[key]) for key in wanted)
    assert loops_of(folder, DECLARED + 'save a ⊕ c to "x" with dtype=f32\n') == [4, 4]


def test_each_byte_is_read_once_for_all_outputs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pemlang.pipeline.jobs.verify", lambda *_: [])
    done = counted_reads(monkeypatch)
    text = "".join(f'save {n} ⊗ a ⊕ c to "x{n}"\n' for n in range(2, 9))
    build(folder, 'adapter a = "a"\nadapter c = "c"\n' + text)
    read = Counter(
        (name, byte) for name, start, size in done for byte in range(start, start + size)
    )
    assert {name for name, _ in read} == {"a", "c"}
    assert set(read.values()) == {1}


def run(folder: Path, target: Path) -> ExecutionResult:
    """A merge of two adapters, one of which was cut short once it was open, into a file."""
    made, _ = pemlang.load(recipe(folder, DECLARED + 'save a ⊕ c to "x"\n')).programs()
    weights = folder / "c" / "adapter_model.safetensors"
    with TensorReader() as reader, target.open("r+b", buffering=0) as file:
        reader.handle(weights)
        os.truncate(weights, weights.stat().st_size - 8)
        return CpuExecutor(BLOCKS).execute(made.plan, reader, [FileTarget(file.fileno())])


def test_a_file_that_gives_less_than_it_had_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    failed = run(folder, tmp_path / "out").failed
    assert failed is not None and isinstance(failed.error, InputChanged)
    assert failed.error.args == InputChanged(folder / "c" / "adapter_model.safetensors").args


class Full(FileTarget):
    """Has room for the first bytes alone."""

    def write(self, start: int, data: memoryview) -> None:
        if start:
            super().write(start, data)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
def test_a_disk_that_is_full_is_told(folder: Path) -> None:
    made, _ = pemlang.load(recipe(folder, DECLARED + 'save a ⊕ c to "x"\n')).programs()
    with TensorReader() as reader, Path("/dev/full").open("r+b", buffering=0) as file:
        result = CpuExecutor(BLOCKS).execute(made.plan, reader, [Full(file.fileno())])
    assert result.failed is not None and isinstance(result.failed.error, OSError)
    assert result.failed.error.errno == errno.ENOSPC


@pytest.mark.parametrize("most", [64, 1 << 19])
def test_native_calls_write_what_blocks_one_by_one_do(folder: Path, most: int) -> None:
    """And see the same, for a file and for memory, which is written block by block."""
    made, _ = pemlang.load(recipe(folder, saved())).programs()
    executor = CpuExecutor(ExecutionOptions(block=most, turn=2))
    with TensorReader() as reader, ExitStack() as stack:
        memory = [bytearray(output.size) for output in made.plan.outputs]
        seen = executor.execute(made.plan, reader, [MemoryTarget(data) for data in memory])
        files = [stack.enter_context(TemporaryFile()) for _ in memory]
        streamed = executor.execute(made.plan, reader, [FileTarget(x.fileno()) for x in files])
        for file, data in zip(files, memory, strict=True):
            assert os.pread(file.fileno(), len(data) + 1, 0) == data
    assert len(seen.outputs) == len(streamed.outputs) > 0
    for one, other in zip(seen.outputs, streamed.outputs, strict=True):
        assert one.rounding.keys() == other.rounding.keys()
        for factor, rounding in one.rounding.items():
            assert rounding.kept == other.rounding[factor].kept
            assert rounding.norm == pytest.approx(other.rounding[factor].norm, rel=1e-12)


@pytest.mark.parametrize("turn", [1, 2, 1000])
def test_tensors_that_no_block_has_room_for_are_done_by_parts(tmp_path: Path, turn: int) -> None:
    """Beside others or alone."""
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed, {"layers.0.q": (40, 90), "layers.1.q": (7, 8)})
    text = 'adapter a = "a"\nadapter b = "b"\nsave ties([a, b], density=0.5, over=factors) to "x"\n'
    [whole] = pemlang.load(recipe(tmp_path, text)).build().outputs
    wanted = tensors_of(whole.path)
    how = BuildOptions(block=64, turn=turn, force=True)
    [parts] = pemlang.load(recipe(tmp_path, text)).build(options=how).outputs
    made = tensors_of(parts.path)
    assert all(torch.equal(made[key], wanted[key]) for key in wanted)


def test_a_thread_takes_its_blocks_memory_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels keep what they were given: memory that grew would be there several times."""
    made, _ = pemlang.load(recipe(folder, saved())).programs()
    spans = [(loop.program, block_of(loop.program, BLOCKS.block)) for loop in made.plan.loops]
    assert len({block_memory([span]) for span in spans}) > 1
    moved: list[bool] = []

    class Watched(Arena):
        def pieces(self, *args: Any) -> Any:
            place = self._bytes
            pieces = super().pieces(*args)
            moved.append(self._bytes is not place)
            return pieces

    monkeypatch.setattr("pemlang.execute.cpu.Arena", Watched)
    build(folder, saved(), threads=1)
    assert len(moved) > 1
    assert not any(moved)


def test_a_program_of_its_own_at_each_layer(folder: Path) -> None:
    [built] = build(folder, DECLARED + 'save ramp(1, 3) * a to "x"\n').outputs
    scaled = tensors_of(built.path)
    for key, tensor in tensors_of(folder / "a").items():
        factor = (3 if "layer.1" in key else 1) if "lora_B" in key else 1
        assert torch.equal(scaled[key], factor * tensor)


# --- float8 --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_is_read_and_written(tmp_path: Path, dtype: torch.dtype) -> None:
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed, dtype=dtype)
    text = 'adapter a = "a"\nadapter b = "b"\n'
    [narrow] = build(tmp_path, text + 'save a ⊕ 0.5 ⊗ b to "x"\n').outputs
    a, b = tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b")
    for key, tensor in tensors_of(narrow.path).items():
        assert tensor.dtype == dtype
        wanted = (a[key].float() + 0.5 * b[key].float()).to(dtype)
        assert torch.equal(tensor.float(), wanted.float())
    [wide] = build(tmp_path, text + 'save a ⊕ 0.5 ⊗ b to "y" with dtype=f32\n').outputs
    for key, tensor in tensors_of(wide.path).items():
        assert torch.equal(tensor, a[key].float() + 0.5 * b[key].float())


# --- files that change -------------------------------------------------------------------------


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
    def late(requests: Sequence[OutputRequest]) -> BuildPlan:
        made = make_plan(requests)
        change(folder / "a" / "adapter_model.safetensors")
        return made

    monkeypatch.setattr("pemlang.pipeline.jobs.make_plan", late)
    with pytest.raises(pemlang.PemError) as wrong:
        build(folder, DECLARED + 'save a ⊕ c to "out/x"\n')
    assert [diagnostic.code for diagnostic in wrong.value.diagnostics] == ["PEM0412"]
    assert not (folder / "out").exists()
