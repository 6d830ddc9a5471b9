"""Generated Triton kernels: drawn programs held to the CPU's kernels and to the float64
interpreter, every code of every dtype, and what a compiler for GPUs makes of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.kernels import loops
from support.kernels.gpu_support import DEVICES, opened
from support.kernels.loops import Bits, encoded

from pemlang.execute import Gpu, module_of
from pemlang.kernels import (
    MOST_TENSORS,
    Abs,
    Add,
    Builder,
    Div,
    Equal,
    KernelCall,
    Less,
    Mul,
    Program,
    Sign,
    Sub,
    Value,
    meaning,
    runs_on_gpu,
    triton_source,
)
from pemlang.tensorfiles import FLOATS, decoded, stored_dtype

# Numbers overflow on purpose, in the interpreter's NumPy too.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

GUARD = 5
"""Elements after the last that must not be touched."""

STORED = st.sampled_from(sorted(FLOATS))
SIZES = st.one_of(st.sampled_from([1, 2, 127, 129, 1025]), st.integers(1, 700))
TORCH = {"F16": torch.float16, "BF16": torch.bfloat16, "F8_E5M2": torch.float8_e5m2,
         "F8_E4M3": torch.float8_e4m3fn}  # fmt: skip


@dataclass(frozen=True)
class Results:
    """By output slot: rounded bits, and the exact numbers."""

    bits: list[Bits]
    exact: list[Bits]


def loaded(program: Program) -> list[str]:
    """The dtypes of the input slots."""
    return [load.dtype for load in program.loads]


def stored(program: Program) -> list[str]:
    """The dtypes of the output slots."""
    return [store.dtype for store in program.stores]


def exact_dtypes(program: Program) -> list[str]:
    """What the numbers of the output slots are in before they are rounded."""
    return [store.exact_dtype for store in program.stores]


def on_device(gpu: Gpu, program: Program, inputs: Sequence[Bits], constants: Sequence[float],
              size: int) -> Results:  # fmt: skip
    """One launch. Outputs are poisoned before, and what lies after them is held to that."""

    def sent(array: Bits) -> torch.Tensor:
        signed = array.view("<i2") if array.dtype == np.dtype("<u2") else array
        return torch.from_numpy(signed.copy()).to(gpu.name)

    def poisoned(dtype: str) -> torch.Tensor:
        poison = np.full((size + GUARD) * stored_dtype(dtype).itemsize, 0xAB, "u1")
        return sent(poison.view(stored_dtype(dtype)))

    outs = [poisoned(dtype) for dtype in stored(program)]
    exacts = [poisoned(dtype) for dtype in exact_dtypes(program)]
    numbers = [gpu.numbers(constants, dtype) for dtype in ("F32", "F64")]
    kernel: Any = module_of(program).kernel
    kernel[(-(-size // 256),)](
        *map(sent, inputs), *outs, *exacts, *numbers, size, BLOCK=256, enable_fp_fusion=False
    )
    return Results(
        [_written(t, d, size) for d, t in zip(stored(program), outs, strict=True)],
        [_written(t, d, size) for d, t in zip(exact_dtypes(program), exacts, strict=True)],
    )


def _written(tensor: torch.Tensor, dtype: str, size: int) -> Bits:
    """What a launch wrote, and that it wrote no more."""
    array = tensor.cpu().numpy().view(stored_dtype(dtype))
    assert (array[size:].view("u1") == 0xAB).all()
    return array[:size]


def on_cpu(program: Program, inputs: Sequence[Bits], constants: Sequence[float]) -> Results:
    """The same from a CPU's loop."""
    return Results(*loops.run(program, constants, inputs))


def assert_same(program: Program, one: Results, other: Results) -> None:
    """The same bits, but for the many NaNs."""
    for dtype, exact, ours, theirs in zip(
        stored(program), one.exact, one.bits, other.bits, strict=True
    ):
        whole = ~np.isnan(exact.astype("f8"))
        assert np.array_equal(ours[whole], theirs[whole]), dtype
    for exact, theirs in zip(one.exact, other.exact, strict=True):
        assert np.array_equal(exact, theirs, equal_nan=True)


# --- drawn programs --------------------------------------------------------------------------

SMALL = (-2.0, -1.0, -0.5, 0.5, 2.0, 3.0)
BINARY = (Add, Sub, Mul, Div)


@st.composite
def programs(draw: st.DrawFn, whole: bool) -> KernelCall:
    """A program over one to three inputs.

    Args:
        whole: with steps and constants that are exact in float32 where its inputs are small
            whole numbers.
    """
    b = Builder()
    numbers = st.sampled_from(SMALL) if whole else st.floats(-3, 3)
    loads = [b.load(n, draw(STORED), ()) for n in range(draw(st.integers(1, 3)))]
    values = [b.cast(load, draw(st.sampled_from([w for w in ("F32", "F64")
              if w == "F64" or load.dtype != "F64"]))) for load in loads]  # fmt: skip
    first = list(values)
    for _ in range(draw(st.integers(0, 6))):
        pick = lambda: draw(st.sampled_from(values))  # noqa: E731
        # The float64 interpreter computes with truths as truths: 1 + 1 = 1.
        step = draw(st.sampled_from(STEPS[:-1] if whole else STEPS))
        values.append(step(b, draw, pick, first, numbers, whole))
    for out in range(draw(st.integers(1, 3))):
        around = draw(st.sampled_from([0.0, 0.0, 1.0]))
        b.store(draw(st.sampled_from(values)), out, draw(STORED), around)
    b.store(_all_of(b, values), 3, "F64")
    [call] = b.calls()
    return call


def _all_of(b: Builder, values: Sequence[Value]) -> Value:
    """The sum of all values, so that a program is of one part and no step is for nothing."""
    total = values[0]
    for value in values[1:]:
        total = b.binary(Add, total, value)
    return total


def _arithmetic(b: Builder, draw: Any, pick: Any, first: Any, numbers: Any, whole: bool) -> Value:
    kind = draw(st.sampled_from(BINARY[:2] if whole else BINARY))
    return b.binary(kind, pick(), pick())


def _product(b: Builder, draw: Any, pick: Any, first: Any, numbers: Any, whole: bool) -> Value:
    return b.binary(Mul, *(draw(st.sampled_from(first)) for _ in range(2)))


def _scaled(b: Builder, draw: Any, pick: Any, first: Any, numbers: Any, whole: bool) -> Value:
    return b.fma(pick(), draw(numbers), b.scale(pick(), draw(numbers)))


def _unary(b: Builder, draw: Any, pick: Any, first: Any, numbers: Any, whole: bool) -> Value:
    return b.unary(draw(st.sampled_from([Sign, Abs])), pick())


def _chosen(b: Builder, draw: Any, pick: Any, first: Any, numbers: Any, whole: bool) -> Value:
    where = b.compare(draw(st.sampled_from([Less, Equal])), pick(), pick())
    return b.select(
        where, pick(), b.const(draw(numbers), draw(st.sampled_from(["F32", "F64"])), ())
    )


def _truth(b: Builder, draw: Any, pick: Any, first: Any, numbers: Any, whole: bool) -> Value:
    return b.cast(b.compare(Less, pick(), pick()), "F32")


STEPS = [_arithmetic, _product, _scaled, _unary, _chosen, _truth]


def drawn_inputs(program: Program, size: int, seed: int, whole: bool) -> list[Bits]:
    rng = np.random.default_rng(seed)
    inputs = []
    for dtype in loaded(program):
        numbers = rng.integers(-4, 5, size).astype("f8")
        if not whole:
            numbers *= rng.normal(size=size) * 2.0 ** rng.integers(-12, 5, size)
        inputs.append(encoded(numbers, dtype))
    return inputs


@pytest.mark.parametrize("device", DEVICES)
def test_drawn_programs_give_the_bits_of_the_cpu(device: str) -> None:
    @settings(max_examples=200, deadline=None)
    @given(programs(whole=False), SIZES, st.integers(0, 1 << 30))
    def check(call: KernelCall, size: int, seed: int) -> None:
        inputs = drawn_inputs(call.program, size, seed, whole=False)
        ours = on_device(gpu, call.program, inputs, call.constants, size)
        assert_same(call.program, ours, on_cpu(call.program, inputs, call.constants))

    with opened(device) as gpu:
        check()


@pytest.mark.parametrize("device", DEVICES)
def test_drawn_programs_mean_what_the_interpreter_says(device: str) -> None:
    """On whole numbers, where every step is exact and only the end rounds."""

    @settings(max_examples=200, deadline=None)
    @given(programs(whole=True), SIZES, st.integers(0, 1 << 30))
    def check(call: KernelCall, size: int, seed: int) -> None:
        program = call.program
        inputs = drawn_inputs(program, size, seed, whole=True)
        ours = on_device(gpu, program, inputs, call.constants, size)
        wide = [decoded(x, dtype, "F64") for x, dtype in zip(inputs, loaded(program), strict=True)]
        for dtype, bits, meant in zip(
            stored(program), ours.bits, meaning(program, wide, call.constants), strict=True
        ):
            wanted = encoded(np.broadcast_to(meant, size) + 0.0, dtype)
            # Zeros have one sign only in what is meant.
            numbers = [decoded(x, dtype, "F64") for x in (bits, wanted)]
            assert np.array_equal(*numbers, equal_nan=True)

    with opened(device) as gpu:
        check()


# --- dtypes ----------------------------------------------------------------------------------


def rounding_of(source: str, dtype: str) -> Program:
    b = Builder()
    b.store(b.load("x", source, ()), "y", dtype)
    [call] = b.calls()
    return call.program


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", sorted(TORCH))
def test_every_code_is_read_as_torch_reads_it(device: str, dtype: str) -> None:
    as_stored = stored_dtype(dtype)
    codes = np.arange(256**as_stored.itemsize).astype(f"<u{as_stored.itemsize}").view(as_stored)
    raw = torch.from_numpy(codes.view(f"<i{as_stored.itemsize}").copy())
    with opened(device) as gpu:
        [read] = on_device(gpu, rounding_of(dtype, "F32"), [codes], [], codes.size).bits
    assert np.array_equal(read, raw.view(TORCH[dtype]).float().numpy(), equal_nan=True)


def hard_numbers(dtype: str) -> NDArray[np.float64]:
    """All numbers of a dtype up to 16 bits, halfway points, and what is just beside those."""
    as_stored = stored_dtype(dtype)
    codes = np.arange(1 << (8 * as_stored.itemsize - 1)).astype(as_stored.str.replace("f", "u"))
    every = decoded(codes.view(as_stored), dtype, "F64")
    every = every[np.isfinite(every)]
    halves = (every[:-1] + every[1:]) / 2
    beside = [halves * (1 + step) for step in (2.0**-52, -(2.0**-52), 2.0**-30, -(2.0**-23))]
    top = FLOATS[dtype].largest * np.array([1 + 2.0**-12, 1.03, 1.07, 2, 1e30])
    positive = np.concatenate([every, halves, *beside, top, [1e-300, 5e-324, 2.0**-149]])
    return np.concatenate([positive, -positive])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("work", ["F32", "F64"])
@pytest.mark.parametrize("dtype", [*sorted(TORCH), "F32"])
def test_hard_numbers_are_rounded_once_to_even(device: str, work: str, dtype: str) -> None:
    numbers = hard_numbers("F16" if dtype == "F32" else dtype)
    if dtype == "F32":
        numbers = np.concatenate([numbers * (1 + 2.0**-24), numbers * (1 + 3 * 2.0**-25)])
    numbers = numbers.astype(stored_dtype(work))
    program = rounding_of(work, dtype)
    with opened(device) as gpu:
        [ours] = on_device(gpu, program, [numbers], [], numbers.size).bits
    [wanted] = on_cpu(program, [numbers], []).bits
    finite = np.isfinite(numbers)
    assert np.array_equal(ours[finite], wanted[finite])


# --- text ------------------------------------------------------------------------------------


def everything() -> Program:
    """A program with every step in both precisions, and every dtype on both sides."""
    b = Builder()
    values = [
        b.cast(b.load(dtype, dtype, ()), "F64" if dtype == "F64" else "F32") for dtype in FLOATS
    ]
    for value, other in (values[1:3], [b.cast(values[3], "F64"), values[0]]):
        where = b.compare(Less, value, b.unary(Abs, b.binary(Div, value, other)))
        same = b.compare(Equal, b.fma(value, 0.3, other), b.binary(Mul, value, other))
        chosen = b.select(where, b.scale(value, 0.7), b.unary(Sign, other))
        last = b.select(same, b.binary(Sub, chosen, b.const(0.1, other.dtype, ())), other)
        values.append(last)
    total = _all_of(b, values)
    for value in (values[-2], total):
        for dtype in FLOATS:
            b.store(value, (value, dtype), dtype, 1.0)
    [call] = b.calls()
    return call.program


@pytest.mark.parametrize("architecture", [75, 80, 90])
def test_kernels_compile_for_gpus_and_round_as_a_cpu_does(
    architecture: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler for GPUs needs none."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    for name in ("TRITON_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    program = everything()
    named = {"F64": "*fp64", "F32": "*fp32", "F16": "*fp16", "BF16": "*i16"}
    signature = {f"in{n}": named.get(d, "*u8") for n, d in enumerate(loaded(program))}
    signature |= {f"out{n}": named.get(d, "*u8") for n, d in enumerate(stored(program))}
    signature |= {f"exact{n}": named[d] for n, d in enumerate(exact_dtypes(program))}
    signature |= {"c_f32": "*fp32", "c_f64": "*fp64", "count": "i32", "BLOCK": "constexpr"}
    source = ASTSource(module_of(program).kernel, signature, {"BLOCK": 256})
    options = {"enable_fp_fusion": False}
    made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    assert made.asm["cubin"]
    text = made.asm["ptx"]
    arithmetic = set(re.findall(r"\b(?:add|sub|mul|div|fma|mad)\.\S*f(?:16|32|64)\b", text))
    assert arithmetic <= {f"{op}.rn.{kind}" for op in ("add", "sub", "mul", "div")
                          for kind in ("f32", "f64")}  # fmt: skip
    assert "ftz" not in text


def test_the_text_is_of_the_program_and_of_no_number() -> None:
    def merged(weight: float) -> Program:
        b = Builder()
        one, two = (b.cast(b.load(name, "BF16", ()), "F32") for name in "ab")
        b.store(b.fma(two, weight, b.scale(one, 0.5)), "out", "BF16")
        [call] = b.calls()
        return call.program

    text = triton_source(merged(0.25))
    assert text == triton_source(merged(0.125))
    assert "v5 = v2 + c1_f32 * v4\n" in text
    assert text.count("@triton.jit") == 3  # the kernel, and how to read and to write bf16
    compile(text, "kernel", "exec")


def test_what_has_no_kernel_stays_on_the_cpu() -> None:
    def program_of(make: Any) -> Program:
        b = Builder()
        b.store(make(b, b.load("x", "F32", (3, 3))), "y", "F32")
        [call] = b.calls()
        return call.program

    assert runs_on_gpu(program_of(lambda b, x: b.scale(x, 2.0)))
    assert not runs_on_gpu(program_of(lambda b, x: b.binary(Div, x, b.reduce("max", x))))
    assert not runs_on_gpu(program_of(lambda b, x: b.concat([x, x], 0)))

    def many(b: Builder, x: Value) -> Value:
        return _all_of(b, [x, *(b.load(n, "F32", (3, 3)) for n in range(MOST_TENSORS))])

    assert not runs_on_gpu(program_of(many))
