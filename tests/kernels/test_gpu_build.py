"""Loops on a device: files, reports and messages are those of a CPU, whatever the chunks are."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
from support.kernels.gpu_support import DEVICES, opened
from support.kernels.loops import encoded

import pemlang
from pemlang.execute import (
    BLOCK,
    CpuExecutor,
    ExecutionOptions,
    ExecutionResult,
    Gpu,
    LoopPart,
    MemoryTarget,
    OutputSeen,
    host_bytes,
    module_of,
    open_gpu,
    working_memory,
)
from pemlang.failures import InputChanged, InputNotFinite, NoGpu, TooLarge, TooSmall
from pemlang.kernels import (
    Abs,
    Builder,
    Div,
    Less,
    OutputFile,
    Plan,
    Program,
    TensorPlace,
    TensorSink,
    Value,
    triton_source,
)
from pemlang.lower import joined_loops
from pemlang.pipeline import fault_of
from pemlang.tensorfiles import DTYPES, TensorReader, TensorRef

BUDGET = 1 << 30
SIZES = (7, BLOCK - 3, 2 * BLOCK, 1, BLOCK // 2, 900_001)
Make = Callable[[Builder, list[Value]], Value]


@dataclass
class Ran:
    """What running a plan gave."""

    files: list[bytes]
    seen: Sequence[OutputSeen]


def planned(
    folder: Path, inputs: dict[str, tuple[str, Any]], outputs: Sequence[tuple[str, Make, float]],
    sizes: Sequence[int] = SIZES,
) -> Plan:  # fmt: skip
    """A plan of one program over tensors that lie one after the other.

    Args:
        inputs: dtype and numbers of each file.
        outputs: of each file the dtype, what is stored there, and what around.
    """
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    for name, (dtype, numbers) in inputs.items():
        (folder / name).write_bytes(encoded(numbers, dtype).tobytes())
    calls = []
    for index, size in enumerate(sizes):
        b = Builder()
        values = []
        for name, (dtype, _) in inputs.items():
            at = starts[index] * DTYPES[dtype].size
            tensor = b.load(TensorRef(folder / name, at, f"t{index}"), dtype, (size,))
            values.append(b.cast(tensor, "F64" if dtype == "F64" else "F32"))
        for number, (dtype, make, around) in enumerate(outputs):
            b.store(make(b, values), TensorSink(number, index), dtype, around)
        calls += b.calls()
    frame = Plan(tuple(_file(dtype, starts, sizes) for dtype, _, _ in outputs))
    return Plan(frame.outputs, tuple(joined_loops(frame, calls)))


def _file(dtype: str, starts: Sequence[int], sizes: Sequence[int]) -> OutputFile:
    """An output without a header."""
    width = DTYPES[dtype].size
    places = zip(starts, sizes, strict=True)
    return OutputFile(
        b"",
        tuple(
            TensorPlace(f"t{index}", dtype, (size,), start * width, "a")
            for index, (start, size) in enumerate(places)
        ),
        sum(sizes) * width,
    )


def executed(plan: Plan, gpu: Gpu | None, budget: int = BUDGET) -> tuple[ExecutionResult, Ran]:
    data = [bytearray(output.size) for output in plan.outputs]
    with TensorReader() as reader:
        executor = CpuExecutor(ExecutionOptions(threads=2, memory=budget), gpu)
        result = executor.execute(plan, reader, [MemoryTarget(file) for file in data])
    return result, Ran([bytes(file) for file in data], result.outputs)


def ran(plan: Plan, gpu: Gpu | None, budget: int = BUDGET) -> Ran:
    result, made = executed(plan, gpu, budget)
    assert result.failed is None
    return made


def failed(plan: Plan, gpu: Gpu | None) -> tuple[int, type[Exception], tuple[Any, ...]]:
    """The output with something wrong, and what it is."""
    result, _ = executed(plan, gpu)
    assert result.failed is not None
    return result.failed.output, type(result.failed.error), result.failed.error.args


def code_of(plan: Plan, gpu: Gpu | None) -> str:
    """The code of the diagnostic of what is wrong."""
    _, failure, fields = failed(plan, gpu)
    return fault_of(failure(*fields)).code


def assert_alike(one: Ran, other: Ran) -> None:
    assert one.files == other.files
    for ours, theirs in zip(one.seen, other.seen, strict=True):
        assert ours.rounding.keys() == theirs.rounding.keys()
        for factor, rounding in ours.rounding.items():
            assert rounding.kept == theirs.rounding[factor].kept
            assert rounding.lost == pytest.approx(theirs.rounding[factor].lost)
            assert rounding.norm == pytest.approx(theirs.rounding[factor].norm, rel=1e-5)


def normal(seed: int, scale: float = 1.0, sizes: Sequence[int] = SIZES) -> Any:
    return scale * np.random.default_rng(seed).normal(size=sum(sizes))


def merged(b: Builder, values: list[Value]) -> Value:
    return b.fma(values[1], -0.3, b.scale(values[0], 0.7))


def larger(b: Builder, values: list[Value]) -> Value:
    return b.select(b.compare(Less, *values), values[1], values[0])


INPUTS = {"x": ("BF16", normal(1)), "y": ("F16", normal(2))}


@pytest.fixture(params=DEVICES)
def gpu(request: pytest.FixtureRequest) -> Any:
    with opened(request.param) as device:
        yield device


@pytest.mark.parametrize(
    "inputs", [INPUTS, {**INPUTS, "y": ("F64", normal(3))}], ids=["F32", "F64"]
)
def test_loops_give_the_files_and_reports_of_a_cpu(
    gpu: Gpu, inputs: dict[str, Any], tmp_path: Path
) -> None:
    plan = planned(tmp_path, inputs, [
        ("BF16", merged, 0.0), ("F8_E4M3", larger, 0.0), ("F32", merged, 1.0),
    ])  # fmt: skip
    assert len(plan.loops) == 1
    assert_alike(ran(plan, gpu), ran(plan, None))


def test_what_needs_all_elements_first_stays_on_the_cpu(gpu: Gpu, tmp_path: Path) -> None:
    def share(b: Builder, values: list[Value]) -> Value:
        return b.binary(Div, values[0], b.reduce("max", b.unary(Abs, values[0])))

    plan = planned(tmp_path, {"x": INPUTS["x"]}, [("F32", share, 0.0)])
    assert ran(plan, gpu) == ran(plan, None)
    assert not any(map(gpu.takes, plan.loops))


def test_chunks_change_nothing(gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tmp_path, INPUTS, [("BF16", merged, 0.0), ("F8_E5M2", merged, 0.0)])
    [loop] = plan.loops
    at_once = ran(plan, gpu)
    assert gpu.chunk(loop) > sum(SIZES)
    in_chunks = ran(plan, gpu, 2 * room_for(loop.program, 2 * BLOCK))
    assert gpu.chunk(loop) == 2 * BLOCK
    monkeypatch.setattr("pemlang.execute.cuda.CHUNK", BLOCK)
    assert ran(plan, gpu) == in_chunks == at_once


def room_for(program: Program, chunk: int) -> int:
    """Host memory that lanes of a chunk take, with what is brought back to be looked at."""
    return host_bytes(program, chunk) + 8 * BLOCK


@pytest.mark.parametrize("make", [merged, larger])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [3, 5 * BLOCK + 7, sum(SIZES) - 1])
def test_an_input_that_is_not_finite_is_blamed(
    gpu: Gpu, make: Make, bad: float, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pemlang.execute.cuda.CHUNK", BLOCK)
    numbers = normal(4)
    numbers[at] = bad
    plan = planned(tmp_path, {**INPUTS, "y": ("F32", numbers)},
                   [("BF16", larger, 0.0), ("BF16", make, 0.0)])  # fmt: skip
    tensor = int(np.searchsorted(np.cumsum(SIZES), at, side="right"))
    blamed = (tmp_path / "y", f"t{tensor}", bool(np.isnan(bad)))
    assert failed(plan, gpu) == (0, InputNotFinite, blamed)
    assert fault_of(InputNotFinite(*blamed)).code == "PEM0502"
    assert fault_of(InputNotFinite(*blamed)).message.startswith(f"t{tensor} of")


@pytest.mark.parametrize(
    ("dtype", "scale", "failure"),
    [("F16", 1e6, TooLarge), ("F8_E4M3", 1e3, TooLarge), ("F16", 1e-8, TooSmall)],
)
def test_numbers_that_do_not_fit_are_told(
    gpu: Gpu, dtype: str, scale: float, failure: type[Exception], tmp_path: Path
) -> None:
    plan = planned(tmp_path, {"x": ("F32", normal(1, scale)), "y": ("F32", normal(2, scale))},
                   [("F32", merged, 0.0), (dtype, merged, 0.0)])  # fmt: skip
    assert failed(plan, gpu) == failed(plan, None) == (1, failure, (dtype,))
    assert code_of(plan, gpu) == "PEM0503"


def test_a_step_that_overflows_is_told(gpu: Gpu, tmp_path: Path) -> None:
    plan = planned(tmp_path, {"x": ("F32", normal(1, 1e38)), "y": ("F32", normal(2, 1e38))},
                   [("F32", lambda b, v: b.scale(merged(b, v), 1e9), 0.0)])  # fmt: skip
    assert failed(plan, gpu) == failed(plan, None)


def test_a_file_that_ends_early_is_told(gpu: Gpu, tmp_path: Path) -> None:
    plan = planned(tmp_path, INPUTS, [("BF16", merged, 0.0)])
    with (tmp_path / "y").open("r+b") as file:
        file.truncate(2 * sum(SIZES) - 2)
    assert failed(plan, gpu) == failed(plan, None) == (0, InputChanged, (tmp_path / "y",))
    assert code_of(plan, gpu) == "PEM0412"


def test_it_does_not_matter_who_waits_for_whom(
    gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading, the device and writing go on at once, each now fast and now slow."""
    plan = planned(tmp_path, INPUTS, [("BF16", merged, 0.0), ("F32", larger, 0.0)])
    wanted = ran(plan, None)
    monkeypatch.setattr("pemlang.execute.cuda.CHUNK", BLOCK)
    at_once, moments = Counter[str](), []
    rng = random.Random(1)

    def slow(kind: str, method: Any) -> Any:
        def slowed(*args: Any) -> None:
            at_once[kind] += 1
            moments.append(dict(at_once))
            time.sleep(rng.choice((0.0, 0.004, 0.008)))
            method(*args)
            at_once[kind] -= 1

        return slowed

    for kind in ("fetch", "write"):
        monkeypatch.setattr(LoopPart, kind, slow(kind, getattr(LoopPart, kind)))
    assert_alike(ran(plan, gpu), wanted)
    assert any(moment.get("fetch") == moment.get("write") == 1 for moment in moments)
    assert all(count <= 1 for moment in moments for count in moment.values())


def test_memory_is_held_to_the_room(gpu: Gpu, tmp_path: Path) -> None:
    plan = planned(tmp_path, INPUTS, [("BF16", merged, 0.0)])
    [loop] = plan.loops
    least = room_for(loop.program, BLOCK)
    for room in (least, 3 * least, BUDGET):
        assert 0 < gpu.reserve(plan.loops, room) <= room
        assert room_for(loop.program, gpu.chunk(loop)) <= room
        assert gpu.host().nbytes < room
    assert gpu.reserve(plan.loops, least - 1) == 0
    assert not gpu.takes(loop)
    whole = ran(plan, gpu)
    assert ran(plan, gpu, working_memory(plan, 1, ExecutionOptions())) == ran(plan, None)
    assert whole.files == ran(plan, None).files


def test_whole_builds_give_the_bytes_of_a_cpu(gpu: Gpu, tmp_path: Path) -> None:
    """With factors that are cut, gains, and several outputs."""
    support.lora(tmp_path / "a", 1, dtype=torch.bfloat16)
    support.lora(tmp_path / "b", 2, dtype=torch.float16)
    support.ia3(tmp_path / "g", 1, dtype=torch.bfloat16)
    support.ia3(tmp_path / "h", 2)
    text = """adapter a = "a"
adapter b = "b"
adapter g = "g"
adapter h = "h"
save a ⊕ -0.5 * b to "out/x" with dtype=f16
save a + b to "out/y" with rank=4
save g ⊕ h to "out/z" with dtype=bf16
"""
    made, _ = pemlang.load(support.recipe(tmp_path, text)).programs()
    assert made.plan.loops and made.plan.sites
    result, files = executed(made.plan, gpu)
    wanted, same = executed(made.plan, None)
    assert result.failed is wanted.failed is None
    assert_alike(files, same)
    assert wanted.numbers
    assert {sink: cost.tolist() for sink, cost in result.numbers.items()} == {
        sink: cost.tolist() for sink, cost in wanted.numbers.items()
    }


def test_what_keeps_triton_from_working_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(program: Program) -> Any:
        raise RuntimeError("no C compiler\nfound")

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr("pemlang.execute.cuda._kernel", broken)
    with pytest.raises(NoGpu) as wrong:
        open_gpu("cpu")
    fault = fault_of(wrong.value)
    assert fault.code == "PEM0522"
    assert fault.message.endswith("Triton cannot work there: no C compiler")


def test_torch_is_imported_for_a_gpu_only() -> None:
    script = (
        "import pemlang.execute.cuda, sys; sys.exit(bool({'torch', 'triton'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# --- files of kernels ------------------------------------------------------------------------


def program() -> Program:
    b = Builder()
    b.store(b.scale(b.load("x", "F32", ()), 2.0), "y", "F32")
    [call] = b.calls()
    return call.program


def test_a_file_with_another_text_is_replaced_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = module_of(program())
    path = Path(str(module.__file__))
    assert path.parent == tmp_path / "pemlang" / "kernels"
    assert path.read_text() == triton_source(program())
    path.write_text("raise SystemExit\n")
    assert callable(module_of(program()).kernel)
    assert path.read_text() == triton_source(program())
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_without_a_cache_kernels_have_files_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = module_of(program())
    assert Path(str(module.__file__)).read_text() == triton_source(program())
    assert tmp_path not in Path(str(module.__file__)).parents
