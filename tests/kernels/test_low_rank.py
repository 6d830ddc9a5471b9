"""Truncation and measures on both sides of the switch from Gram matrices to QR."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemlang.execute.matrices import bytes_at_work, execute
from pemlang.kernels.interpret import interpret
from pemlang.kernels.lowrank import (
    MAX_CONDITION,
    Arrays,
    inner,
    norm,
    overlap,
    singular_values,
    triangle,
    truncate,
)
from pemlang.kernels.program import Builder

Matrix = NDArray[np.float64]


def tall(rows: int, columns: int, condition: float, seed: int = 0) -> Matrix:
    """A matrix with columns about alike in size, of a condition number."""
    random = np.random.default_rng(seed)
    u, _ = np.linalg.qr(random.standard_normal((rows, columns)))
    v, _ = np.linalg.qr(random.standard_normal((columns, columns)))
    found: Matrix = u * np.geomspace(1, 1 / condition, columns) @ v.T
    return found


@pytest.mark.parametrize("condition", [1, 1e2, 1e3, 1e5, 1e8, 1e12])
def test_q_and_r_are_a_decomposition(condition: float) -> None:
    x = tall(60, 8, condition)
    found = triangle(x)
    assert (found.q is None) == (condition < MAX_CONDITION)
    q = found.times(np.eye(8))
    np.testing.assert_allclose(q @ found.r, x, atol=1e-12)
    # Cholesky loses ε·κ² of the orthogonality: 2·10⁻⁸ at the switch.
    np.testing.assert_allclose(q.T @ q, np.eye(8), atol=1e-7)


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
def test_which_way_it_goes(x: Matrix, by_gram: bool) -> None:
    with np.errstate(over="ignore"):
        found = triangle(x)
    assert (found.q is None) == by_gram
    size = min(x.shape)
    q = found.times(np.eye(found.r.shape[0]))
    np.testing.assert_allclose(q.T @ q, np.eye(size), atol=1e-10)
    np.testing.assert_allclose(q @ found.r, x, rtol=1e-9, atol=1e-12 * np.abs(x).max(initial=0))


@pytest.mark.parametrize("b_condition", [1, 1e3, 1e6, 1e12])
@pytest.mark.parametrize("a_condition", [1, 1e3, 1e6, 1e12])
def test_truncation_is_the_best_on_both_sides(a_condition: float, b_condition: float) -> None:
    a, b = tall(50, 12, a_condition, 1).T, tall(40, 12, b_condition, 2)
    part = Arrays(a, b, 2.0)
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
    part = Arrays(tall(50, 12, 50, 1).T, tall(40, 12, 50, 2), 0.5)
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
    part = Arrays(np.vstack([a, a, other]), np.hstack([b, -b, rest]), 1.0)
    new_a, new_b, _ = truncate(part, 4)
    np.testing.assert_allclose(new_b @ new_a, rest @ other, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_inner_products_and_overlaps_are_the_dense_ones(one: int, other: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    parts = [
        Arrays(random.standard_normal((r, 9)), random.standard_normal((7, r)), 1.5)
        for r in (one, other)
    ]
    dense = [1.5 * part.out @ part.a for part in parts]
    assert inner(*parts) == pytest.approx(float(np.sum(dense[0] * dense[1])), abs=1e-9)
    bases = [np.linalg.qr(part.a.T)[0] for part in parts]
    shared = np.linalg.norm(bases[0].T @ bases[1]) ** 2 / min(one, other)
    assert overlap(*parts) == pytest.approx(float(shared), abs=1e-9)


def test_overlap_of_rows_that_depend_on_each_other() -> None:
    rows = np.eye(4)
    one = Arrays(np.vstack([rows[:2], rows[:2]]), np.ones((3, 4)))
    other = Arrays(rows[1:3], np.ones((3, 2)))
    assert overlap(one, other) == pytest.approx(0.5)
    assert overlap(Arrays(np.zeros((2, 4)), np.ones((3, 2))), other) == 0


def sum_of_three(rank: int, out: int, in_: int, cut: int) -> Builder:
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
    return builder


@pytest.mark.parametrize(("out", "in_"), [(9, 13), (13, 9), (6, 6)])
def test_a_program_of_matrices_is_the_interpreter(out: int, in_: int) -> None:
    [piece] = sum_of_three(2, out, in_, 3).pieces()
    random = np.random.default_rng(3)
    shapes = [i.shape for i in piece.program.instrs if i.op == "load"]
    slots = [int(i.attrs[0][2:]) for i in piece.program.instrs if i.op == "load"]
    dense = dict(zip(slots, (random.integers(-8, 9, s) / 4 for s in shapes), strict=True))
    stored = {n: ((x.astype("<f4").view("<u4") >> 16).astype("<u2")) for n, x in dense.items()}
    found = execute(piece.program, lambda slot, *_: stored[slot], piece.consts)
    wanted = interpret(piece.program, [dense[n] for n in sorted(dense)], piece.consts)
    kinds = dict(zip(piece.outputs, wanted, strict=True))
    got = {sink: found[n] for n, sink in enumerate(piece.outputs)}
    np.testing.assert_allclose(got["cost"], kinds["cost"], atol=1e-10)
    for sink in "ab":
        np.testing.assert_allclose(got[sink], kinds[sink], atol=1e-8)


def test_padding_and_products() -> None:
    builder = Builder()
    x, y = builder.load("x", "F64", (2, 3)), builder.load("y", "F64", (3, 4))
    builder.store(builder.matmul(builder.pad(x, 0, 5), y), "xy", "F64")
    builder.report(builder.whole(y, builder.pad(x, 0, 5), 0.5), "whole")
    [piece] = builder.pieces()
    random = np.random.default_rng(0)
    given = {"x": random.standard_normal((2, 3)), "y": random.standard_normal((3, 4))}
    dense = [given[str(what)] for what in piece.inputs]
    found = execute(piece.program, lambda slot, *_: dense[slot], piece.consts)
    for slot, wanted in enumerate(interpret(piece.program, dense, piece.consts)):
        np.testing.assert_allclose(found[slot], wanted, atol=1e-12)


def test_the_memory_of_a_site_is_known_beforehand() -> None:
    import tracemalloc

    [piece] = sum_of_three(16, 2000, 1500, 16).pieces()
    stored = {
        int(i.attrs[0][2:]): np.full(i.shape, 0x3C00, "<u2") for i in piece.program.instrs
        if i.op == "load"
    }  # fmt: skip
    random = np.random.default_rng(0)
    stored = {n: bits + random.integers(0, 200, bits.shape, "<u2") for n, bits in stored.items()}
    execute(piece.program, lambda slot, *_: stored[slot], piece.consts)
    tracemalloc.start()
    execute(piece.program, lambda slot, *_: stored[slot].copy(), piece.consts)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most <= bytes_at_work(piece.program) <= 4 * most
