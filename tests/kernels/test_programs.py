"""Kernels against the float64 interpreter, on random programs and dtypes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from programs import Drawn, programs, tensors

from pemlang.kernels.dtypes import DTYPES, decoded, encoded, stored_dtype
from pemlang.kernels.elementwise import BLOCK, Kernel, bytes_at_work
from pemlang.kernels.interpret import interpret
from pemlang.kernels.matrices import execute
from pemlang.kernels.program import Builder, Program

KERNELS = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
Bits = NDArray[np.generic]


def run(
    drawn: Drawn, inputs: Sequence[NDArray[np.float64]], block: int, kernel: Kernel | None = None
) -> tuple[list[Bits], list[NDArray[np.floating]]]:
    """The outputs of a program, as bits and exact, over blocks; buffers are poisoned before each
    block, so that nothing is taken for done that is not."""
    kernel = kernel or Kernel(drawn.piece.program, block)
    kernel.set(drawn.piece.consts)
    size = len(inputs[0]) if inputs else 7
    stored = [encoded(x, dtype) for x, dtype in zip(inputs, drawn.loads, strict=True)]
    out: list[Bits] = [np.full(size, 0x7F, stored_dtype(dtype)) for dtype in drawn.stores]
    exact: list[NDArray[np.floating]] = [np.full(size, np.nan) for _ in drawn.stores]
    for turn in range(kernel.passes):
        kept = []
        for at in range(0, size, block):
            for buffer in kernel._buffers.values():
                buffer.view("u1")[...] = 0xFF

            def read(slot: int, into: Bits, at: int = at) -> None:
                into[...] = stored[slot][at : at + into.size]

            def write(slot: int, numbers: NDArray[np.floating], bits: Bits, at: int = at) -> None:
                out[slot][at : at + bits.size] = bits
                exact[slot][at : at + bits.size] = numbers

            kept.append(kernel.run(turn, min(block, size - at), read, write))
        for number, index in enumerate(kernel.reduced(turn)):
            kernel.settle(index, [row[number] for row in kept])
    return out, exact


def close(drawn: Drawn, found: Sequence[Bits], wanted: Sequence[NDArray[np.float64]]) -> None:
    """Each number within the roundings of the work precision and one of its dtype."""
    for bits, exact, dtype in zip(found, wanted, drawn.stores, strict=True):
        got = decoded(bits, dtype, "F64").astype("f8")
        whole = np.broadcast_to(exact, got.shape)
        scale = np.maximum(np.abs(whole), 1.0)
        error = 2.0 ** -DTYPES[dtype].bits * np.abs(whole) + DTYPES[dtype].step
        error = error + 2.0**-22 * scale * drawn.depth
        inside = np.abs(whole) <= 0.9 * DTYPES[dtype].largest
        assert (np.abs(got - whole) <= error)[inside].all(), (got - whole, dtype)


def small(wanted: Sequence[NDArray[np.float64]]) -> bool:
    """Whether float32 has room for all of it, cancellation included."""
    return all(np.isfinite(x).all() and (np.abs(x) < 1e6).all() for x in wanted)


@KERNELS
@given(programs(), st.sampled_from([1, 2, 7, 8, 9, 31]), st.integers(0, 2**32 - 1))
def test_a_kernel_is_the_interpreter_up_to_rounding(drawn: Drawn, size: int, seed: int) -> None:
    inputs = tensors(drawn, size, seed)
    shaped = inputs or [np.zeros(7)]
    wanted = interpret(drawn.piece.program, shaped, drawn.piece.consts)
    if not small(wanted):
        return
    found, _ = run(drawn, inputs, 8)
    close(drawn, found, wanted)


@KERNELS
@given(programs(), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_blocks_of_any_size_give_the_same_bits(drawn: Drawn, size: int, seed: int) -> None:
    """Sums are of signs, so that their order does not show."""
    inputs = tensors(drawn, size, seed)
    whole, _ = run(drawn, inputs, 64)
    parts, _ = run(drawn, inputs, 5)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


@KERNELS
@given(programs(), st.integers(0, 2**32 - 1))
def test_a_kernel_forgets_what_it_ran_before(drawn: Drawn, seed: int) -> None:
    kernel = Kernel(drawn.piece.program, 8)
    for size in (31, 1, 8, 12):
        inputs = tensors(drawn, size, seed + size)
        again, _ = run(drawn, inputs, 8, kernel)
        fresh, _ = run(drawn, inputs, 8)
        for one, other in zip(again, fresh, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_kernel_takes_new_constants() -> None:
    builder = Builder()
    x = builder.cast(builder.load(0, "BF16", (4,)), "F32")
    builder.store(builder.scale(x, 2.0), 0, "F32")
    [piece] = builder.pieces()
    kernel = Kernel(piece.program, 4)
    numbers = np.array([1.0, -2.0, 0.5, 3.0])
    for constant in (2.0, -0.5, 2.0):
        drawn = Drawn(
            type(piece)(piece.program, (0,), (constant,), (0,), (4,)), ("BF16",), ("F32",), 1
        )
        [bits], _ = run(drawn, [numbers], 4, kernel)
        np.testing.assert_array_equal(bits, (constant * numbers).astype("f4"))


@KERNELS
@given(programs(), st.sampled_from([1, 2, 9]), st.integers(0, 2**32 - 1))
def test_a_program_over_matrices_does_the_same(drawn: Drawn, size: int, seed: int) -> None:
    """The two ways to run a step agree to the bit."""
    inputs = tensors(drawn, size, seed)
    stored = [encoded(x, dtype) for x, dtype in zip(inputs, drawn.loads, strict=True)]
    size = size if inputs else 7
    instrs = tuple(i._replace(shape=(size,)) for i in drawn.piece.program.instrs)
    with np.errstate(all="ignore"):
        _, wanted = run(drawn, inputs, 64)
    if not small([x.astype("f8") for x in wanted]):
        return
    found = execute(Program(instrs), lambda slot, *_: stored[slot], drawn.piece.consts)
    for slot, array in enumerate(wanted):
        np.testing.assert_array_equal(found[slot].astype(array.dtype), array)


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_blocks_of_the_real_size(size: int) -> None:
    builder = Builder()
    values = [
        builder.cast(builder.load(n, d, (size,)), "F32") for n, d in enumerate(("BF16", "F16"))
    ]
    builder.store(builder.fma(values[0], 0.5, values[1]), 0, "BF16")
    [piece] = builder.pieces()
    drawn = Drawn(piece, ("F16", "BF16"), ("BF16",), 2)
    inputs = tensors(drawn, size, 1)
    found, _ = run(drawn, inputs, BLOCK)
    close(drawn, found, interpret(piece.program, inputs, piece.consts))


def test_a_statistic_may_rest_on_another() -> None:
    """x minus the sum of what lies above the largest number less one: three passes."""
    builder = Builder()
    x = builder.load(0, "F32", (10,))
    top = builder.binary("sub", builder.reduce("max", x), builder.const(1.0, "F32", (10,)))
    near = builder.select(builder.compare("less", top, x), x, builder.const(0.0, "F32", (10,)))
    builder.store(builder.binary("sub", x, builder.reduce("sum", near)), 0, "F32")
    [piece] = builder.pieces()
    kernel = Kernel(piece.program, 4)
    assert kernel.passes == 3
    numbers = np.array([1, 5, 4.5, 2, 3, 5, 0, 4, 4.25, 1.0])
    found, _ = run(Drawn(piece, ("F32",), ("F32",), 4), [numbers], 4, kernel)
    wanted = numbers - numbers[numbers > 4].sum()
    np.testing.assert_array_equal(found[0], wanted.astype("f4"))
    np.testing.assert_allclose(interpret(piece.program, [numbers], piece.consts)[0], wanted)


@KERNELS
@given(programs(), st.integers(0, 2**32 - 1))
def test_the_registers_are_known_beforehand(drawn: Drawn, seed: int) -> None:
    kernel = Kernel(drawn.piece.program, 16)
    run(drawn, tensors(drawn, 40, seed), 16, kernel)
    taken = sum(buffer.nbytes for buffer in kernel._buffers.values())
    assert taken == bytes_at_work([drawn.piece.program], 16)


@pytest.mark.parametrize("many", [2, 200])
def test_a_long_sum_needs_no_more_registers(many: int) -> None:
    builder = Builder()
    total = None
    for number in range(many):
        x = builder.cast(builder.load(number, "BF16", (4,)), "F32")
        total = builder.scale(x, 0.5) if total is None else builder.fma(x, 0.25, total)
    assert total is not None
    builder.store(total, 0, "BF16")
    [piece] = builder.pieces()
    assert bytes_at_work([piece.program], 1) <= 16


@pytest.mark.parametrize("many", [2, 200])
def test_many_sums_of_two_need_no_more_registers(many: int) -> None:
    builder = Builder()
    x, y = (builder.cast(builder.load(n, "BF16", (4,)), "F32") for n in range(2))
    for number in range(many):
        builder.store(builder.fma(x, number / 7 + 2, y), number, "BF16")
    [piece] = builder.pieces()
    assert bytes_at_work([piece.program], 1) <= 24


def test_equal_sites_have_one_program() -> None:
    def piece(names: str, number: float) -> object:
        builder = Builder()
        a, b = (builder.cast(builder.load(name, "BF16", (3, 2)), "F32") for name in names)
        builder.store(builder.fma(a, number, b), names, "F32")
        return builder.pieces()[0].program

    assert piece("xy", 0.5) is piece("zw", 0.25)


def test_a_program_is_text() -> None:
    builder = Builder()
    a, b = (builder.cast(builder.load(name, "BF16", (3, 2)), "F32") for name in "ab")
    builder.store(builder.fma(a, 0.5, b), "out", "BF16")
    [piece] = builder.pieces()
    assert str(piece.program).splitlines() == [
        "%0 = load bf16 in0",
        "%1 = cast f32 %0",
        "%2 = load bf16 in1",
        "%3 = cast f32 %2",
        "%4 = fma f32 %3 %1 c0",
        "store bf16 %4 out0",
    ]
