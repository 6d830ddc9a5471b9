"""Kernels against the float64 interpreter, on random programs and dtypes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import loops
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import encoded
from numpy.typing import NDArray
from programs import Drawn, programs, tensors

from pemlang.execute.elementwise import BLOCK, CACHED, Arena, Kernel, block_of, bytes_at_work
from pemlang.execute.matrices import execute
from pemlang.kernels.interpret import interpret
from pemlang.kernels.program import Builder, Program
from pemlang.tensorfiles.dtypes import DTYPES, decoded

KERNELS = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
Bits = NDArray[np.generic]


def run(
    drawn: Drawn, inputs: Sequence[NDArray[np.float64]], block: int, kernel: Kernel | None = None
) -> tuple[list[Bits], list[NDArray[np.floating]]]:
    stored = [encoded(x, dtype) for x, dtype in zip(inputs, drawn.loads, strict=True)]
    return loops.run(drawn.piece.program, drawn.piece.consts, stored, block, kernel)


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
    kernel = Kernel(drawn.piece.program, Arena(), 8)
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
    kernel = Kernel(piece.program, Arena(), 4)
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
    kernel = Kernel(piece.program, Arena(), 4)
    assert kernel.passes == 3
    numbers = np.array([1, 5, 4.5, 2, 3, 5, 0, 4, 4.25, 1.0])
    found, _ = run(Drawn(piece, ("F32",), ("F32",), 4), [numbers], 4, kernel)
    wanted = numbers - numbers[numbers > 4].sum()
    np.testing.assert_array_equal(found[0], wanted.astype("f4"))
    np.testing.assert_allclose(interpret(piece.program, [numbers], piece.consts)[0], wanted)


@KERNELS
@given(programs(), st.integers(0, 2**32 - 1))
def test_the_memory_is_known_beforehand(drawn: Drawn, seed: int) -> None:
    kernel = Kernel(drawn.piece.program, Arena())
    run(drawn, tensors(drawn, 40, seed), 0, kernel)
    assert kernel._arena._bytes.nbytes <= bytes_at_work([drawn.piece.program])


@pytest.mark.parametrize("many", [1, 2, 200])
def test_many_inputs_need_no_more_memory(many: int) -> None:
    builder = Builder()
    total = None
    for number in range(many):
        x = builder.cast(builder.load(number, "BF16", (4,)), "F32")
        total = builder.scale(x, 0.5) if total is None else builder.fma(x, 0.25, total)
    assert total is not None
    builder.store(total, 0, "BF16")
    [piece] = builder.pieces()
    taken = block_of(piece.program) * (2 * many + 2)
    assert taken <= CACHED
    assert 2 * taken > CACHED or block_of(piece.program) == BLOCK
    assert bytes_at_work([piece.program]) <= 1.5 * CACHED


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_does_not_hide_behind_a_comparison(bad: float) -> None:
    builder = Builder()
    x, y = (builder.load(number, "F32", (20,)) for number in range(2))
    zero = builder.const(0.0, "F32", (20,))
    top = builder.reduce("max", builder.unary("sign", x))
    where = builder.compare("less", builder.unary("abs", x), top)
    builder.store(builder.select(where, y, zero), 0, "F32")
    [piece] = builder.pieces()
    kernel = Kernel(piece.program, Arena(), 32)
    kernel.start(piece.consts)
    for turn, at in ((0, 3), (0, 17), (1, 3), (1, 17)):
        numbers = np.zeros(20, "f4")
        for given_ in (numbers, np.where(np.arange(20) == at, bad, numbers)):
            kernel.read(turn, 20, lambda _, out, given_=given_: np.copyto(out, given_))
            hidden = given_ is not numbers
            assert math.isnan(kernel.run(turn, 0, 20)[-1]) == hidden
            assert not math.isnan(kernel.run(turn, 0, at)[-1])
            if turn == 1:
                [exact] = kernel.exact(0, 20)
                assert (np.flatnonzero(np.isnan(exact)) == [at] * hidden).all()


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
