"""Generated Triton kernels: drawn programs held to the CPU's kernels and to the float64
interpreter, every code of every dtype, and what a compiler for GPUs makes of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import loops
import numpy as np
import pytest
import torch
from gpu_support import DEVICES, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import encoded
from numpy.typing import NDArray

from pemlang.execute.cuda import Gpu
from pemlang.execute.kernel_files import module_of
from pemlang.kernels.interpret import interpret
from pemlang.kernels.program import Builder, Piece, Program, Value, exact_dtypes, loaded, stored
from pemlang.kernels.triton import MOST_TENSORS, runs_on_gpu, triton_source
from pemlang.tensorfiles.dtypes import DTYPES, decoded, stored_dtype

# Numbers overflow on purpose, in the interpreter's NumPy too.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

Bits = NDArray[np.generic]
GUARD = 5
"""Elements after the last that must not be touched."""

FLOATS = st.sampled_from(sorted(DTYPES))
SIZES = st.one_of(st.sampled_from([1, 2, 127, 129, 1025]), st.integers(1, 700))
TORCH = {"F16": torch.float16, "BF16": torch.bfloat16, "F8_E5M2": torch.float8_e5m2,
         "F8_E4M3": torch.float8_e4m3fn}  # fmt: skip


@dataclass(frozen=True)
class Results:
    """By output slot: rounded bits, and the exact numbers."""

    bits: list[Bits]
    exact: list[Bits]


def on_device(gpu: Gpu, program: Program, inputs: Sequence[Bits], consts: Sequence[float],
              size: int) -> Results:  # fmt: skip
    """One launch. Outputs are poisoned before, and what lies after them is held to that."""

    def given_(array: Bits) -> torch.Tensor:
        signed = array.view("<i2") if array.dtype == np.dtype("<u2") else array
        return torch.from_numpy(signed.copy()).to(gpu.name)

    def poisoned(dtype: str) -> torch.Tensor:
        poison = np.full((size + GUARD) * stored_dtype(dtype).itemsize, 0xAB, "u1")
        return given_(poison.view(stored_dtype(dtype)))

    outs = [poisoned(dtype) for dtype in stored(program)]
    exacts = [poisoned(dtype) for dtype in exact_dtypes(program)]
    numbers = [gpu.numbers(consts, dtype) for dtype in ("F32", "F64")]
    kernel: Any = module_of(program).kernel
    kernel[(-(-size // 256),)](
        *map(given_, inputs), *outs, *exacts, *numbers, size, BLOCK=256, enable_fp_fusion=False
    )
    found = Results([], [])
    for dtype, tensor, to in chain(
        ((d, t, found.bits) for d, t in zip(stored(program), outs, strict=True)),
        ((d, t, found.exact) for d, t in zip(exact_dtypes(program), exacts, strict=True)),
    ):
        array = tensor.cpu().numpy().view(stored_dtype(dtype))
        assert (array[size:].view("u1") == 0xAB).all()
        to.append(array[:size])
    return found


def on_cpu(program: Program, inputs: Sequence[Bits], consts: Sequence[float]) -> Results:
    """The same from a CPU's loop."""
    return Results(*loops.run(program, consts, inputs))


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
BINARY = ("add", "sub", "mul", "div")


@st.composite
def programs(draw: st.DrawFn, whole: bool) -> Piece:
    """A program over one to three inputs.

    Args:
        whole: with steps and constants that are exact in float32 where its inputs are small
            whole numbers.
    """
    b = Builder()
    numbers = st.sampled_from(SMALL) if whole else st.floats(-3, 3)
    loads = [b.load(n, draw(FLOATS), ()) for n in range(draw(st.integers(1, 3)))]
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
        b.store(draw(st.sampled_from(values)), out, draw(FLOATS), around)
    b.store(_all_of(b, values), 3, "F64")
    [piece] = b.pieces()
    return piece


def _all_of(b: Builder, values: Sequence[Value]) -> Value:
    """The sum of all values, so that a program is of one part and no step is for nothing."""
    total = values[0]
    for value in values[1:]:
        total = b.binary("add", total, value)
    return total


def _arithmetic(b: Builder, draw: Any, pick: Any, first: Any, numbers: Any, whole: bool) -> Value:
    op = draw(st.sampled_from(BINARY[:2] if whole else BINARY))
    return b.binary(op, pick(), pick())


def _product(b: Builder, draw: Any, pick: Any, first: Any, numbers: Any, whole: bool) -> Value:
    return b.binary("mul", *(draw(st.sampled_from(first)) for _ in range(2)))


def _scaled(b: Builder, draw: Any, pick: Any, first: Any, numbers: Any, whole: bool) -> Value:
    return b.fma(pick(), draw(numbers), b.scale(pick(), draw(numbers)))


def _unary(b: Builder, draw: Any, pick: Any, first: Any, numbers: Any, whole: bool) -> Value:
    return b.unary(draw(st.sampled_from(["sign", "abs"])), pick())


def _chosen(b: Builder, draw: Any, pick: Any, first: Any, numbers: Any, whole: bool) -> Value:
    where = b.compare(draw(st.sampled_from(["less", "equal"])), pick(), pick())
    return b.select(
        where, pick(), b.const(draw(numbers), draw(st.sampled_from(["F32", "F64"])), ())
    )


def _truth(b: Builder, draw: Any, pick: Any, first: Any, numbers: Any, whole: bool) -> Value:
    return b.cast(b.compare("less", pick(), pick()), "F32")


STEPS = [_arithmetic, _product, _scaled, _unary, _chosen, _truth]


def drawn_inputs(program: Program, size: int, seed: int, whole: bool) -> list[Bits]:
    rng = np.random.default_rng(seed)
    found = []
    for dtype in loaded(program):
        numbers = rng.integers(-4, 5, size).astype("f8")
        if not whole:
            numbers *= rng.normal(size=size) * 2.0 ** rng.integers(-12, 5, size)
        found.append(encoded(numbers, dtype))
    return found


@pytest.mark.parametrize("device", DEVICES)
def test_drawn_programs_give_the_bits_of_the_cpu(device: str) -> None:
    @settings(max_examples=200, deadline=None)
    @given(programs(whole=False), SIZES, st.integers(0, 1 << 30))
    def check(piece: Piece, size: int, seed: int) -> None:
        inputs = drawn_inputs(piece.program, size, seed, whole=False)
        ours = on_device(gpu, piece.program, inputs, piece.consts, size)
        assert_same(piece.program, ours, on_cpu(piece.program, inputs, piece.consts))

    with opened(device) as gpu:
        check()


@pytest.mark.parametrize("device", DEVICES)
def test_drawn_programs_mean_what_the_interpreter_says(device: str) -> None:
    """On whole numbers, where every step is exact and only the end rounds."""

    @settings(max_examples=200, deadline=None)
    @given(programs(whole=True), SIZES, st.integers(0, 1 << 30))
    def check(piece: Piece, size: int, seed: int) -> None:
        program = piece.program
        inputs = drawn_inputs(program, size, seed, whole=True)
        ours = on_device(gpu, program, inputs, piece.consts, size)
        wide = [decoded(x, dtype, "F64") for x, dtype in zip(inputs, loaded(program), strict=True)]
        for dtype, bits, meant in zip(
            stored(program), ours.bits, interpret(program, wide, piece.consts), strict=True
        ):
            said = encoded(np.broadcast_to(meant, size) + 0.0, dtype)
            # Zeros have one sign only in what is meant.
            assert np.array_equal(*(decoded(x, dtype, "F64") for x in (bits, said)), equal_nan=True)

    with opened(device) as gpu:
        check()


# --- dtypes ----------------------------------------------------------------------------------


def rounding_of(source: str, dtype: str) -> Piece:
    b = Builder()
    b.store(b.load("x", source, ()), "y", dtype)
    [piece] = b.pieces()
    return piece


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", sorted(TORCH))
def test_every_code_is_read_as_torch_reads_it(device: str, dtype: str) -> None:
    stored_as = stored_dtype(dtype)
    codes = np.arange(256**stored_as.itemsize).astype(f"<u{stored_as.itemsize}").view(stored_as)
    raw = torch.from_numpy(codes.view(f"<i{stored_as.itemsize}").copy())
    with opened(device) as gpu:
        [found] = on_device(gpu, rounding_of(dtype, "F32").program, [codes], [], codes.size).bits
    assert np.array_equal(found, raw.view(TORCH[dtype]).float().numpy(), equal_nan=True)


def hard_numbers(dtype: str) -> NDArray[np.float64]:
    """All numbers of a dtype up to 16 bits, halfway points, and what is just beside those."""
    known = DTYPES[dtype]
    count = 1 << (8 * known.stored.itemsize - 1)
    every = decoded(np.arange(count).astype(known.stored.str.replace("f", "u")).view(known.stored),
                    dtype, "F64")  # fmt: skip
    every = every[np.isfinite(every)]
    halves = (every[:-1] + every[1:]) / 2
    beside = [halves * (1 + step) for step in (2.0**-52, -(2.0**-52), 2.0**-30, -(2.0**-23))]
    top = known.largest * np.array([1 + 2.0**-12, 1.03, 1.07, 2, 1e30])
    found = np.concatenate([every, halves, *beside, top, [1e-300, 5e-324, 2.0**-149]])
    return np.concatenate([found, -found])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("work", ["F32", "F64"])
@pytest.mark.parametrize("dtype", [*sorted(TORCH), "F32"])
def test_hard_numbers_are_rounded_once_to_even(device: str, work: str, dtype: str) -> None:
    numbers = hard_numbers("F16" if dtype == "F32" else dtype)
    if dtype == "F32":
        numbers = np.concatenate([numbers * (1 + 2.0**-24), numbers * (1 + 3 * 2.0**-25)])
    given_ = numbers.astype(stored_dtype(work))
    piece = rounding_of(work, dtype)
    with opened(device) as gpu:
        [found] = on_device(gpu, piece.program, [given_], [], given_.size).bits
    [meant] = on_cpu(piece.program, [given_], []).bits
    finite = np.isfinite(given_)
    assert np.array_equal(found[finite], meant[finite])


# --- text ------------------------------------------------------------------------------------


def everything() -> Piece:
    """A program with every step in both precisions, and every dtype on both sides."""
    b = Builder()
    values = [
        b.cast(b.load(dtype, dtype, ()), "F64" if dtype == "F64" else "F32") for dtype in DTYPES
    ]
    for value, other in (values[1:3], [b.cast(values[3], "F64"), values[0]]):
        where = b.compare("less", value, b.unary("abs", b.binary("div", value, other)))
        same = b.compare("equal", b.fma(value, 0.3, other), b.binary("mul", value, other))
        chosen = b.select(where, b.scale(value, 0.7), b.unary("sign", other))
        last = b.select(same, b.binary("sub", chosen, b.const(0.1, other.dtype, ())), other)
        values.append(last)
    total = _all_of(b, values)
    for value in (values[-2], total):
        for dtype in DTYPES:
            b.store(value, (value, dtype), dtype, 1.0)
    [piece] = b.pieces()
    return piece


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

    program = everything().program
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
    def merged(weight: float) -> Piece:
        b = Builder()
        one, two = (b.cast(b.load(name, "BF16", ()), "F32") for name in "ab")
        b.store(b.fma(two, weight, b.scale(one, 0.5)), "out", "BF16")
        [piece] = b.pieces()
        return piece

    text = triton_source(merged(0.25).program)
    assert text == triton_source(merged(0.125).program)
    assert "v5 = v2 + c1_f32 * v4\n" in text
    assert text.count("@triton.jit") == 3  # the kernel, and how to read and to write bf16
    compile(text, "kernel", "exec")


def test_what_has_no_kernel_stays_on_the_cpu() -> None:
    def piece_of(make: Any) -> Program:
        b = Builder()
        b.store(make(b, b.load("x", "F32", (3, 3))), "y", "F32")
        [piece] = b.pieces()
        return piece.program

    assert runs_on_gpu(piece_of(lambda b, x: b.scale(x, 2.0)))
    assert not runs_on_gpu(piece_of(lambda b, x: b.binary("div", x, b.reduce("max", x))))
    assert not runs_on_gpu(piece_of(lambda b, x: b.matmul(x, x)))

    def many(b: Builder, x: Value) -> Value:
        return _all_of(b, [x, *(b.load(n, "F32", (3, 3)) for n in range(MOST_TENSORS))])

    assert not runs_on_gpu(piece_of(many))
