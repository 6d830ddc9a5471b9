"""Truncation and measures on both sides of the switch from Gram matrices to QR."""

from __future__ import annotations

import tracemalloc
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import lora, recipe
from support.kernels.loops import StoredTensors

import pemlang
from pemlang.execute import NATIVE, bytes_at_work, run_call, useful_threads
from pemlang.kernels import (
    MAX_CONDITION,
    NUMPY,
    Algebra,
    Builder,
    FusedLoop,
    KernelCall,
    LowRank,
    Plan,
    inner,
    inner_of_all,
    meaning,
    norm,
    overlap,
    singular_values,
    triangle,
    truncate,
)
from pemlang.tensorfiles import TensorReader

Matrix = NDArray[np.float64]


def tall(rows: int, columns: int, condition: float, seed: int = 0) -> Matrix:
    """A matrix with columns about alike in size, of a condition number."""
    random = np.random.default_rng(seed)
    u, _ = np.linalg.qr(random.standard_normal((rows, columns)))
    v, _ = np.linalg.qr(random.standard_normal((columns, columns)))
    return np.asarray(u * np.geomspace(1, 1 / condition, columns) @ v.T)


ALGEBRAS = pytest.mark.parametrize("algebra", [NUMPY, NATIVE], ids=["NumPy", "native"])


@ALGEBRAS
@pytest.mark.parametrize("condition", [1, 1e2, 1e3, 1e5, 1e8, 1e12])
def test_q_and_r_are_a_decomposition(condition: float, algebra: Algebra) -> None:
    x = tall(60, 8, condition)
    qr = triangle(x, algebra)
    assert (qr.inverse is not None) == (condition < MAX_CONDITION)
    q = qr.times(np.eye(8))
    np.testing.assert_allclose(q @ qr.r, x, atol=1e-12)
    # Cholesky loses ε·κ² of the orthogonality: 2·10⁻⁸ at the switch.
    np.testing.assert_allclose(q.T @ q, np.eye(8), atol=1e-7)


@ALGEBRAS
@pytest.mark.parametrize(
    ("x", "by_gram"),
    [
        (tall(60, 8, 10) * np.geomspace(1e-30, 1e30, 8), True),  # scales alone are no condition
        (np.hstack([tall(60, 4, 10)] * 2), False),
        (tall(60, 8, 10) * [1, 1, 1, 0, 1, 1, 1, 1], False),
        (np.zeros((60, 8)), False),
        (tall(8, 8, 10)[:5], False),
        (tall(60, 8, 10) * 1e200, False),
        (np.ones((60, 1)), True),
        (np.ones((1, 1)), True),
    ],
    ids=["scaled", "twice", "a zero column", "zero", "wide", "huge", "one column", "one"],
)
def test_which_way_it_goes(x: Matrix, by_gram: bool, algebra: Algebra) -> None:
    with np.errstate(over="ignore"):
        qr = triangle(x, algebra)
    assert (qr.inverse is not None) == by_gram
    size = min(x.shape)
    q = qr.times(np.eye(qr.r.shape[0]))
    np.testing.assert_allclose(q.T @ q, np.eye(size), atol=1e-10)
    np.testing.assert_allclose(q @ qr.r, x, rtol=1e-9, atol=1e-12 * np.abs(x).max(initial=0))


@pytest.mark.parametrize("b_condition", [1, 1e3, 1e6, 1e12])
@pytest.mark.parametrize("a_condition", [1, 1e3, 1e6, 1e12])
def test_truncation_is_the_best_on_both_sides(a_condition: float, b_condition: float) -> None:
    a, b = tall(50, 12, a_condition, 1).T, tall(40, 12, b_condition, 2)
    part = LowRank(a, b, 2.0)
    dense = 2.0 * b @ a
    values = np.linalg.svd(dense, compute_uv=False)
    new_a, new_b, (lost, whole) = truncate(part, 5)
    error = np.linalg.norm(2.0 * new_b @ new_a - dense)
    best = np.linalg.norm(values[5:])
    assert error <= best + 1e-8 * values[0]
    assert lost == pytest.approx(best, abs=1e-8 * values[0])
    assert whole == pytest.approx(np.linalg.norm(values), rel=1e-8)
    np.testing.assert_allclose(singular_values(part), values[:12], atol=1e-8 * values[0])
    assert norm(part) == pytest.approx(np.linalg.norm(dense), rel=1e-8)


def test_the_two_sides_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    part = LowRank(tall(50, 12, 50, 1).T, tall(40, 12, 50, 2), 0.5)
    by_gram = truncate(part, 5)
    monkeypatch.setattr("pemlang.kernels.lowrank.MAX_CONDITION", 0.0)
    by_qr = truncate(part, 5)
    for one, other in zip(by_gram, by_qr, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_terms_that_cancel() -> None:
    """a − a and a little: B is [B, −B, E]; what is left is E's."""
    random = np.random.default_rng(0)
    a, b = random.standard_normal((4, 30)), random.standard_normal((20, 4))
    rest = 1e-4 * random.standard_normal((20, 4))
    other = random.standard_normal((4, 30))
    part = LowRank(np.vstack([a, a, other]), np.hstack([b, -b, rest]), 1.0)
    new_a, new_b, _ = truncate(part, 4)
    np.testing.assert_allclose(new_b @ new_a, rest @ other, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_inner_products_and_overlaps_are_the_dense_ones(one: int, other: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    parts = [
        LowRank(random.standard_normal((r, 9)), random.standard_normal((7, r)), 1.5)
        for r in (one, other)
    ]
    dense = [1.5 * part.b @ part.a for part in parts]
    assert inner(*parts) == pytest.approx(float(np.sum(dense[0] * dense[1])), abs=1e-9)
    bases = [np.linalg.qr(part.a.T)[0] for part in parts]
    shared = np.linalg.norm(bases[0].T @ bases[1]) ** 2 / min(one, other)
    assert overlap(*(part.a for part in parts)) == pytest.approx(float(shared), abs=1e-9)


def test_overlap_of_rows_that_depend_on_each_other() -> None:
    rows = np.eye(4)
    assert overlap(np.vstack([rows[:2], rows[:2]]), rows[1:3]) == pytest.approx(0.5)
    assert overlap(np.zeros((2, 4)), rows[1:3]) == 0


def sum_of_three(rank: int, out: int, in_: int, cut: int) -> KernelCall:
    """The best approximation of the sum of three LoRAs; inputs are (number, factor)."""
    builder = Builder()
    loads = [
        (
            builder.cast(builder.load((n, "a"), "BF16", (rank, in_)), "F32"),
            builder.cast(builder.load((n, "b"), "BF16", (out, rank)), "F32"),
        )
        for n in range(3)
    ]
    a = builder.concat([a for a, _ in loads], 0)
    b = builder.concat([builder.scale(b, n - 0.5) for n, (_, b) in enumerate(loads)], 1)
    new_a, new_b, cost = builder.core_svd(a, b, 2.0, cut)
    builder.store(new_a, "a", "F32")
    builder.store(new_b, "b", "F32")
    builder.report(cost, "cost")
    [call] = builder.calls()
    return call


def test_gathered_rows_are_the_interpreters() -> None:
    """Rows of two matrices of other sizes, in runs; where both give a row, their mean."""
    builder = Builder()
    stored = [builder.load(number, "BF16", (rows, 3)) for number, rows in enumerate((5, 4))]
    loads = [builder.cast(value, "F32") for value in stored]
    runs = (((0, 2, 3), (4, 0, 1)), ((3, 0, 1), (4, 3, 1), (5, 1, 2)))
    builder.store(builder.gather_rows(loads, runs, 7), "rows", "F32")
    [call] = builder.calls()
    x, y = np.arange(15).reshape(5, 3) / 4, -np.arange(12.0).reshape(4, 3)
    bf16 = {n: (t.astype("<f4").view("<u4") >> 16).astype("<u2") for n, t in enumerate((x, y))}
    [computed] = run_call(call, StoredTensors(bf16)).values()
    [meant] = meaning(call.program, [(x, y)[n] for n in call.inputs], call.constants)
    wanted = np.stack([x[2], x[3], x[4], y[0], (x[0] + y[3]) / 2, y[1], y[2]])
    np.testing.assert_array_equal(computed, wanted)
    np.testing.assert_array_equal(meant, wanted)
    assert np.signbit(computed[3]).tolist() == [True, True, True]


def shapes_of(call: KernelCall) -> dict[Hashable, tuple[int, ...]]:
    """The shape of each input."""
    return {call.inputs[load.input]: load.shape for load in call.program.loads}


@pytest.mark.parametrize(("out", "in_"), [(9, 13), (13, 9), (6, 6)])
def test_a_program_of_matrices_is_the_interpreter(out: int, in_: int) -> None:
    call = sum_of_three(2, out, in_, 3)
    random = np.random.default_rng(3)
    dense = {name: random.integers(-8, 9, shape) / 4 for name, shape in shapes_of(call).items()}
    bf16 = {name: (x.astype("<f4").view("<u4") >> 16).astype("<u2") for name, x in dense.items()}
    computed = run_call(call, StoredTensors(bf16))
    wanted = meaning(call.program, [dense[name] for name in call.inputs], call.constants)
    assert set(call.outputs) == {"a", "b", "cost"}
    for slot, sink in enumerate(call.outputs):
        tolerance = 1e-10 if sink == "cost" else 1e-8
        np.testing.assert_allclose(computed[slot], wanted[slot], atol=tolerance)


def test_padding_and_the_norm_of_a_product() -> None:
    builder = Builder()
    x, y = builder.load("x", "F64", (2, 3)), builder.load("y", "F64", (3, 4))
    padded = builder.pad(x, 0, 5)
    builder.store(padded, "padded", "F64")
    builder.report(builder.whole(y, padded, 0.5), "whole")
    [call] = builder.calls()
    random = np.random.default_rng(0)
    dense = {"x": random.standard_normal((2, 3)), "y": random.standard_normal((3, 4))}
    computed = run_call(call, StoredTensors(dense))
    wanted = meaning(call.program, [dense[name] for name in call.inputs], call.constants)
    assert len(computed) == len(wanted) == 2
    for slot, array in enumerate(wanted):
        np.testing.assert_allclose(computed[slot], array, atol=1e-12)


def test_the_memory_of_a_site_is_known_beforehand() -> None:
    """Of one whose columns depend on each other too, which needs QR decompositions."""
    call = sum_of_three(16, 2000, 1500, 16)
    random = np.random.default_rng(0)
    takes = []
    for spread in (200, 1):
        stored = StoredTensors({
            name: np.full(shape, 0x3C00, "<u2") + random.integers(0, spread, shape, "<u2")
            for name, shape in shapes_of(call).items()
        })  # fmt: skip
        run_call(call, stored)
        tracemalloc.start()
        run_call(call, stored)
        takes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(takes) <= bytes_at_work(call.program) <= 2 * max(takes)


def test_small_sites_are_left_to_few_threads() -> None:
    """Which would wait for the interpreter; large ones to as many as were of use on sixteen
    processors, and loops to all there are."""
    small, large = sum_of_three(2, 30, 20, 2), sum_of_three(64, 8000, 8000, 64)
    assert useful_threads(Plan(sites=(small,) * 100)) == 1
    assert 6 < useful_threads(Plan(sites=(large,) * 100)) < 10
    assert useful_threads(Plan(sites=(small,) * 50 + (large,) * 50)) > 4
    builder = Builder()
    builder.store(builder.load("x", "BF16", (64, 4096)), "y", "BF16")
    [call] = builder.calls()
    loop = FusedLoop(((call, 1 << 28),), call.program, (), (), (), 1 << 28)
    assert useful_threads(Plan(sites=(small,) * 100, loops=(loop,))) > 4
    assert useful_threads(Plan(loops=(loop,))) > 1000
    joined = Builder()
    parts = [joined.load(name, "F32", (64, 8192)) for name in "ab"]
    joined.store(joined.concat(parts, 0), "y", "F32")
    assert useful_threads(Plan(sites=tuple(joined.calls()) * 100)) > 6


@pytest.mark.parametrize("count", [3, 12])
def test_all_inner_products_are_those_of_the_dense(count: int) -> None:
    """From common bases, and pair by pair where those would be large."""
    random = np.random.default_rng(count)
    parts = [LowRank(random.standard_normal((6, 50)), random.standard_normal((40, 6)), 0.5 + i)
             for i in range(count)]  # fmt: skip
    parts[1] = parts[0]
    dense = np.stack([(part.scale * part.b @ part.a).reshape(-1) for part in parts])
    for algebra in (NUMPY, NATIVE):
        np.testing.assert_allclose(inner_of_all(parts, algebra), dense @ dense.T, rtol=1e-10)


def test_a_vote_of_many_adapters_keeps_to_what_it_declares(tmp_path: Path) -> None:
    """It takes a matrix of each adapter, as long as all of them together are wide."""
    names = [f"x{number}" for number in range(12)]
    for seed, name in enumerate(names):
        lora(tmp_path / name, seed, {"layers.0.q": (300, 700)}, rank=8)
    text = "".join(f'adapter {name} = "{name}"\n' for name in names)
    text += f'save knots([{", ".join(names)}], density=0.5) to "out"\n'
    made, _ = pemlang.load(recipe(tmp_path, text)).programs()
    [call] = made.plan.sites
    with TensorReader() as reader:
        run_call(call, reader)
        tracemalloc.start()
        run_call(call, reader)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most <= bytes_at_work(call.program) <= 3 * most
