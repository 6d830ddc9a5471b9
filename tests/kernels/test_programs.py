"""Kernels against the float64 interpreter, on random programs and dtypes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.kernels import loops
from support.kernels.loops import Bits, Numbers, StoredTensors, encoded, memory_of
from support.kernels.programs import Drawn, programs, tensors

from pemlang.execute import BLOCK, CACHED, Arena, Kernel, block_memory, block_of, run_call
from pemlang.kernels import Abs, Builder, Less, Program, Sign, Sub, meaning
from pemlang.tensorfiles import FLOATS, decoded

KERNELS = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def run(
    drawn: Drawn, inputs: Sequence[NDArray[np.float64]], block: int, kernel: Kernel | None = None
) -> tuple[list[Bits], list[Numbers]]:
    stored = [encoded(x, dtype) for x, dtype in zip(inputs, drawn.loads, strict=True)]
    return loops.run(drawn.call.program, drawn.call.constants, stored, block, kernel)


def close(drawn: Drawn, outputs: Sequence[Bits], wanted: Sequence[NDArray[np.float64]]) -> None:
    """Each number within the roundings of the work precision and one of its dtype."""
    for bits, exact, dtype in zip(outputs, wanted, drawn.stores, strict=True):
        layout = FLOATS[dtype]
        ours = decoded(bits, dtype, "F64").astype("f8")
        whole = np.broadcast_to(exact, ours.shape)
        scale = np.maximum(np.abs(whole), 1.0)
        error = 2.0**-layout.bits * np.abs(whole) + layout.step
        error = error + 2.0**-22 * scale * drawn.depth
        inside = np.abs(whole) <= 0.9 * layout.largest
        assert (np.abs(ours - whole) <= error)[inside].all(), (ours - whole, dtype)


def small(wanted: Sequence[NDArray[np.float64]]) -> bool:
    """Whether float32 has room for all of it, cancellation included."""
    return all(np.isfinite(x).all() and (np.abs(x) < 1e6).all() for x in wanted)


@KERNELS
@given(programs(), st.sampled_from([1, 2, 7, 8, 9, 31]), st.integers(0, 2**32 - 1))
def test_a_kernel_is_the_interpreter_up_to_rounding(drawn: Drawn, size: int, seed: int) -> None:
    inputs = tensors(drawn, size, seed)
    shaped = inputs or [np.zeros(7)]
    wanted = meaning(drawn.call.program, shaped, drawn.call.constants)
    if not small(wanted):
        return
    outputs, _ = run(drawn, inputs, 8)
    close(drawn, outputs, wanted)


@KERNELS
@given(programs(), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_blocks_of_any_size_give_the_same_bits(drawn: Drawn, size: int, seed: int) -> None:
    """Sums are of signs, so that their order does not show."""
    inputs = tensors(drawn, size, seed)
    whole, _ = run(drawn, inputs, 64)
    parts, _ = run(drawn, inputs, 8)
    for at_once, in_parts in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(at_once, in_parts)


@KERNELS
@given(programs(), st.integers(0, 2**32 - 1))
def test_a_kernel_forgets_what_it_ran_before(drawn: Drawn, seed: int) -> None:
    kernel = Kernel(drawn.call.program, Arena(), 8)
    for size in (31, 1, 8, 12):
        inputs = tensors(drawn, size, seed + size)
        again, _ = run(drawn, inputs, 8, kernel)
        fresh, _ = run(drawn, inputs, 8)
        for used, new in zip(again, fresh, strict=True):
            np.testing.assert_array_equal(used, new)


def test_a_kernel_takes_new_constants() -> None:
    builder = Builder()
    x = builder.cast(builder.load(0, "BF16", (4,)), "F32")
    builder.store(builder.scale(x, 2.0), 0, "F32")
    [call] = builder.calls()
    kernel = Kernel(call.program, Arena(), 4)
    numbers = np.array([1.0, -2.0, 0.5, 3.0])
    for constant in (2.0, -0.5, 2.0):
        drawn = Drawn(replace(call, constants=(constant,)), ("BF16",), ("F32",), 1)
        [bits], _ = run(drawn, [numbers], 4, kernel)
        np.testing.assert_array_equal(bits, (constant * numbers).astype("f4"))


@KERNELS
@given(programs(), st.sampled_from([1, 2, 9]), st.integers(0, 2**32 - 1))
def test_a_program_over_matrices_does_the_same(drawn: Drawn, size: int, seed: int) -> None:
    """The two ways to run a step agree to the bit."""
    inputs = tensors(drawn, size, seed)
    stored = [encoded(x, dtype) for x, dtype in zip(inputs, drawn.loads, strict=True)]
    shape = (size if inputs else 7,)
    shaped = Program(tuple(replace(step, shape=shape) for step in drawn.call.program.steps))
    with np.errstate(all="ignore"):
        _, wanted = run(drawn, inputs, 64)
    if not small([x.astype("f8") for x in wanted]):
        return
    reader = StoredTensors(dict(zip(drawn.call.inputs, stored, strict=True)))
    computed = run_call(replace(drawn.call, program=shaped), reader)
    for slot, array in enumerate(wanted):
        np.testing.assert_array_equal(computed[slot].astype(array.dtype), array)


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_blocks_of_the_real_size(size: int) -> None:
    builder = Builder()
    values = [
        builder.cast(builder.load(n, d, (size,)), "F32") for n, d in enumerate(("BF16", "F16"))
    ]
    builder.store(builder.fma(values[0], 0.5, values[1]), 0, "BF16")
    [call] = builder.calls()
    drawn = Drawn(call, ("F16", "BF16"), ("BF16",), 2)
    inputs = tensors(drawn, size, 1)
    outputs, _ = run(drawn, inputs, BLOCK)
    close(drawn, outputs, meaning(call.program, inputs, call.constants))


def test_a_statistic_may_rest_on_another() -> None:
    """x minus the sum of what lies above the largest number less one: three passes."""
    builder = Builder()
    x = builder.load(0, "F32", (10,))
    top = builder.binary(Sub, builder.reduce("max", x), builder.const(1.0, "F32", (10,)))
    near = builder.select(builder.compare(Less, top, x), x, builder.const(0.0, "F32", (10,)))
    builder.store(builder.binary(Sub, x, builder.reduce("sum", near)), 0, "F32")
    [call] = builder.calls()
    kernel = Kernel(call.program, Arena(), 4)
    assert kernel.passes == 3
    numbers = np.array([1, 5, 4.5, 2, 3, 5, 0, 4, 4.25, 1.0])
    [bits], _ = run(Drawn(call, ("F32",), ("F32",), 4), [numbers], 4, kernel)
    wanted = numbers - numbers[numbers > 4].sum()
    np.testing.assert_array_equal(bits, wanted.astype("f4"))
    np.testing.assert_allclose(meaning(call.program, [numbers], call.constants)[0], wanted)


@KERNELS
@given(programs(), st.integers(0, 2**32 - 1))
def test_the_memory_is_known_beforehand(drawn: Drawn, seed: int) -> None:
    kernel = Kernel(drawn.call.program, Arena())
    run(drawn, tensors(drawn, 40, seed), 0, kernel)
    assert memory_of(kernel).nbytes <= block_memory([(drawn.call.program, kernel.span)])


@pytest.mark.parametrize("many", [1, 2, 200])
def test_many_inputs_need_no_more_memory(many: int) -> None:
    builder = Builder()
    total = None
    for number in range(many):
        x = builder.cast(builder.load(number, "BF16", (4,)), "F32")
        total = builder.scale(x, 0.5) if total is None else builder.fma(x, 0.25, total)
    assert total is not None
    builder.store(total, 0, "BF16")
    [call] = builder.calls()
    taken = block_of(call.program) * (2 * many + 2)
    assert taken <= CACHED
    assert 2 * taken > CACHED or block_of(call.program) == BLOCK
    assert block_memory([(call.program, block_of(call.program))]) <= 1.5 * CACHED


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_does_not_hide_behind_a_comparison(bad: float) -> None:
    builder = Builder()
    x, y = (builder.load(number, "F32", (20,)) for number in range(2))
    zero = builder.const(0.0, "F32", (20,))
    top = builder.reduce("max", builder.unary(Sign, x))
    where = builder.compare(Less, builder.unary(Abs, x), top)
    builder.store(builder.select(where, y, zero), 0, "F32")
    [call] = builder.calls()
    kernel = Kernel(call.program, Arena(), 32)
    kernel.start()
    for at in (3, 17):
        numbers = np.zeros(20, "f4")
        for array in (numbers, np.where(np.arange(20) == at, bad, numbers)):
            hidden = array is not numbers
            for block in kernel.inputs():
                block[:20] = array
            for size in (at, 20):
                [[square]] = kernel.run([size], [call.constants])
                assert math.isnan(square) == (hidden and size == 20)
            [exact] = kernel.exact(0, 0, 20, 0)
            assert (np.flatnonzero(np.isnan(exact)) == [at] * hidden).all()
            kernel.begin(call.constants)
            found = kernel.part(0, 20, 0)
            assert math.isnan(found.pop()) == hidden
            kernel.settle(0, [found])
            assert math.isnan(kernel.part(1, 20, 0)[-1]) == hidden


def test_equal_sites_have_one_program() -> None:
    def program(names: str, number: float) -> Program:
        builder = Builder()
        a, b = (builder.cast(builder.load(name, "BF16", (3, 2)), "F32") for name in names)
        builder.store(builder.fma(a, number, b), names, "F32")
        [call] = builder.calls()
        return call.program

    assert program("xy", 0.5) is program("zw", 0.25)


def test_a_program_is_text() -> None:
    builder = Builder()
    a, b = (builder.cast(builder.load(name, "BF16", (3, 2)), "F32") for name in "ab")
    builder.store(builder.fma(a, 0.5, b), "out", "BF16")
    [call] = builder.calls()
    assert str(call.program).splitlines() == [
        "%0 = load bf16 in0",
        "%1 = cast f32 %0",
        "%2 = load bf16 in1",
        "%3 = cast f32 %2",
        "%4 = fma f32 %3 %1 c0",
        "store bf16 %4 out0",
    ]
