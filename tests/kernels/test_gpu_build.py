"""Spans on a device: files, reports and messages are those of a CPU, whatever the chunks are."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import support
import torch
from gpu_support import DEVICES, opened
from loops import encoded

from pemlang.diagnostics import Fault
from pemlang.execute import cuda as gpu_build
from pemlang.execute import kernel_files
from pemlang.execute import local as stream
from pemlang.execute.cuda import Gpu
from pemlang.execute.elementwise import BLOCK
from pemlang.kernels.program import Builder, Program, Value
from pemlang.kernels.triton import triton_source
from pemlang.lower import plan
from pemlang.lower.plan import Failed, OutputPlan, Plan, Sink
from pemlang.pipeline.build import plan_of
from pemlang.source import Source
from pemlang.tensorfiles.dtypes import DTYPES
from pemlang.tensorfiles.reader import Files
from pemlang.tensorfiles.reader import Source as Tensor

BUDGET = 1 << 30
SIZES = (7, BLOCK - 3, 2 * BLOCK, 1, BLOCK // 2, 900_001)
Make = Callable[[Builder, list[Value]], Value]


@dataclass
class Ran:
    """What running a plan gave."""

    files: list[bytes]
    reports: list[stream.Report]


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
    pieces = []
    for index, size in enumerate(sizes):
        b = Builder()
        values = []
        for name, (dtype, _) in inputs.items():
            at = starts[index] * DTYPES[dtype].stored.itemsize
            tensor = b.load(Tensor(folder / name, at, f"t{index}"), dtype, (size,))
            values.append(b.cast(tensor, "F64" if dtype == "F64" else "F32"))
        for number, (dtype, make, around) in enumerate(outputs):
            b.store(make(b, values), Sink(number, index), dtype, around)
        pieces += b.pieces()
    made = Plan([
        OutputPlan(
            SimpleNamespace(tensors=[SimpleNamespace(dtype=dtype, what="a")] * len(sizes)),  # type: ignore[arg-type]
            b"",
            [start * DTYPES[dtype].stored.itemsize for start in starts],
            sum(sizes) * DTYPES[dtype].stored.itemsize,
        )
        for dtype, _, _ in outputs
    ])  # fmt: skip
    made.spans = plan._spans(made, pieces)
    return made


def ran(made: Plan, gpu: Gpu | None, budget: int = BUDGET) -> Ran:
    data = [bytearray(one.size) for one in made.outputs]
    targets = [stream.MemoryTarget(one) for one in data]
    with Files() as files:
        reports = stream.run(made, files, targets, 2, budget, device=gpu)
    return Ran([bytes(one) for one in data], reports)


def failed(made: Plan, gpu: Gpu | None) -> tuple[int, str, str]:
    with pytest.raises(Failed) as wrong:
        ran(made, gpu)
    error: Any = wrong.value.error
    return wrong.value.output, error.code, error.message


def assert_alike(one: Ran, other: Ran) -> None:
    assert one.files == other.files
    for ours, theirs in zip(one.reports, other.reports, strict=True):
        assert ours.rounding.keys() == theirs.rounding.keys()
        assert ours.cuts == theirs.cuts
        for what, seen in ours.rounding.items():
            assert seen.kept == theirs.rounding[what].kept
            assert seen.lost == pytest.approx(theirs.rounding[what].lost)
            assert seen.norm == pytest.approx(theirs.rounding[what].norm, rel=1e-5)


def normal(seed: int, scale: float = 1.0, sizes: Sequence[int] = SIZES) -> Any:
    return scale * np.random.default_rng(seed).normal(size=sum(sizes))


def merged(b: Builder, values: list[Value]) -> Value:
    return b.fma(values[1], -0.3, b.scale(values[0], 0.7))


def larger(b: Builder, values: list[Value]) -> Value:
    return b.select(b.compare("less", *values), values[1], values[0])


INPUTS = {"x": ("BF16", normal(1)), "y": ("F16", normal(2))}


@pytest.fixture(params=DEVICES)
def gpu(request: pytest.FixtureRequest) -> Any:
    with opened(request.param) as found:
        yield found


@pytest.mark.parametrize(
    "inputs", [INPUTS, {**INPUTS, "y": ("F64", normal(3))}], ids=["F32", "F64"]
)
def test_spans_give_the_files_and_reports_of_a_cpu(
    gpu: Gpu, inputs: dict[str, Any], tmp_path: Path
) -> None:
    made = planned(tmp_path, inputs, [(d, make, around) for d, make, around in (
        ("BF16", merged, 0.0), ("F8_E4M3", larger, 0.0), ("F32", merged, 1.0),
    )])  # fmt: skip
    assert len(made.spans) == 1
    assert_alike(ran(made, gpu), ran(made, None))


def test_what_needs_all_elements_first_stays_on_the_cpu(gpu: Gpu, tmp_path: Path) -> None:
    def share(b: Builder, values: list[Value]) -> Value:
        return b.binary("div", values[0], b.reduce("max", b.unary("abs", values[0])))

    made = planned(tmp_path, {"x": INPUTS["x"]}, [("F32", share, 0.0)])
    assert ran(made, gpu) == ran(made, None)
    assert not any(map(gpu.takes, made.spans))


def test_chunks_change_nothing(gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned(tmp_path, INPUTS, [("BF16", merged, 0.0), ("F8_E5M2", merged, 0.0)])
    one = ran(made, gpu)
    assert gpu.chunk(made.spans[0]) > sum(SIZES)
    smaller = ran(made, gpu, 2 * gpu_build.host_bytes(made.spans[0].program, 2 * BLOCK))
    assert gpu.chunk(made.spans[0]) == 2 * BLOCK
    monkeypatch.setattr(gpu_build, "CHUNK", BLOCK)
    assert ran(made, gpu) == smaller == one


@pytest.mark.parametrize("make", [merged, larger])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [3, 5 * BLOCK + 7, sum(SIZES) - 1])
def test_an_input_that_is_not_finite_is_blamed(
    gpu: Gpu, make: Make, bad: float, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_build, "CHUNK", BLOCK)
    numbers = normal(4)
    numbers[at] = bad
    made = planned(tmp_path, {**INPUTS, "y": ("F32", numbers)},
                   [("BF16", larger, 0.0), ("BF16", make, 0.0)])  # fmt: skip
    found = failed(made, gpu)
    assert found[:2] == (0, "PEM0502")
    tensor = int(np.searchsorted(np.cumsum(SIZES), at, side="right"))
    assert found[2].startswith(f"t{tensor} of")


@pytest.mark.parametrize(("dtype", "scale"), [("F16", 1e6), ("F8_E4M3", 1e3), ("F16", 1e-8)])
def test_numbers_that_do_not_fit_are_told(
    gpu: Gpu, dtype: str, scale: float, tmp_path: Path
) -> None:
    made = planned(tmp_path, {"x": ("F32", normal(1, scale)), "y": ("F32", normal(2, scale))},
                   [("F32", merged, 0.0), (dtype, merged, 0.0)])  # fmt: skip
    assert failed(made, gpu) == failed(made, None)
    assert failed(made, gpu)[:2] == (1, "PEM0503")


def test_a_step_that_overflows_is_told(gpu: Gpu, tmp_path: Path) -> None:
    made = planned(tmp_path, {"x": ("F32", normal(1, 1e38)), "y": ("F32", normal(2, 1e38))},
                   [("F32", lambda b, v: b.scale(merged(b, v), 1e9), 0.0)])  # fmt: skip
    assert failed(made, gpu) == failed(made, None)


def test_a_file_that_ends_early_is_told(gpu: Gpu, tmp_path: Path) -> None:
    made = planned(tmp_path, INPUTS, [("BF16", merged, 0.0)])
    with (tmp_path / "y").open("r+b") as file:
        file.truncate(2 * sum(SIZES) - 2)
    assert failed(made, gpu)[1] == failed(made, None)[1] == "PEM0412"


def test_it_does_not_matter_who_waits_for_whom(
    gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading, the device and writing go on at once, each now fast and now slow."""
    made = planned(tmp_path, INPUTS, [("BF16", merged, 0.0), ("F32", larger, 0.0)])
    meant = ran(made, None)
    monkeypatch.setattr(gpu_build, "CHUNK", BLOCK)
    at_once, most = Counter[str](), []
    rng = random.Random(1)

    def slow(kind: str, method: Any) -> Any:
        def slowed(*args: Any) -> None:
            at_once[kind] += 1
            most.append(dict(at_once))
            time.sleep(rng.choice((0.0, 0.004, 0.008)))
            method(*args)
            at_once[kind] -= 1

        return slowed

    for kind in ("fetch", "write"):
        monkeypatch.setattr(stream.SpanPart, kind, slow(kind, getattr(stream.SpanPart, kind)))
    assert_alike(ran(made, gpu), meant)
    assert any(one.get("fetch") == one.get("write") == 1 for one in most)
    assert all(count <= 1 for one in most for count in one.values())


def test_memory_is_held_to_the_room(gpu: Gpu, tmp_path: Path) -> None:
    made = planned(tmp_path, INPUTS, [("BF16", merged, 0.0)])
    [span] = made.spans
    least = gpu_build.host_bytes(span.program, BLOCK)
    for room in (least, 3 * least, BUDGET):
        assert 0 < gpu.reserve(made.spans, room) <= room
        assert gpu_build.host_bytes(span.program, gpu.chunk(span)) <= room
        assert gpu.host().nbytes < room
    assert gpu.reserve(made.spans, least - 1) == 0
    assert not gpu.takes(span)
    whole = ran(made, gpu)
    assert ran(made, gpu, stream.working_memory(made, 1)) == ran(made, None)
    assert whole.files == ran(made, None).files


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
    path = support.recipe(tmp_path, text)
    made, _ = plan_of(path, Source(str(path), text, tmp_path), {}, tmp_path)
    assert made.spans and made.sites
    assert_alike(ran(made, gpu), ran(made, None))


def test_what_keeps_triton_from_working_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(program: Program) -> Any:
        raise RuntimeError("no C compiler\nfound")

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(gpu_build, "_kernel", broken)
    with pytest.raises(Fault) as wrong:
        gpu_build.open_gpu("cpu")
    assert wrong.value.code == "PEM0522"
    assert wrong.value.message.endswith("Triton cannot work there: no C compiler")


def test_torch_is_imported_for_a_gpu_only() -> None:
    said = (
        "import pemlang.execute.cuda, sys; sys.exit(bool({'torch', 'triton'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", said], check=True)


# --- files of kernels ------------------------------------------------------------------------


def program() -> Program:
    b = Builder()
    b.store(b.scale(b.load("x", "F32", ()), 2.0), "y", "F32")
    [piece] = b.pieces()
    return piece.program


def test_a_file_with_another_text_is_replaced_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = kernel_files.module_of(program())
    path = Path(str(module.__file__))
    assert path.parent == tmp_path / "pemlang" / "kernels"
    assert path.read_text() == triton_source(program())
    path.write_text("raise SystemExit\n")
    assert callable(kernel_files.module_of(program()).kernel)
    assert path.read_text() == triton_source(program())
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_without_a_cache_kernels_have_files_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = kernel_files.module_of(program())
    assert Path(str(module.__file__)).read_text() == triton_source(program())
    assert tmp_path not in Path(str(module.__file__)).parents
