"""What depends on whole tensors and on where an element stands: thresholds, draws, places in rows,
and the products that Δ is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import build, config_of, lora, save, tensors_of
from support.kernels.loops import encoded, run

from pemlang.execute import NATIVE
from pemlang.kernels import Abs, Builder, Program, Value, computed, drawn
from pemlang.tensorfiles import decoded

PLACES = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
Numbers = NDArray[np.floating]


def numbers(seed: int, size: int, kind: str) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return {
        "normal": rng.standard_normal(size),
        "equal": np.full(size, 0.25),
        "few": rng.integers(-3, 4, size) / 4,
        "zeros": rng.standard_normal(size) * (rng.random(size) < 0.3),
        "wide": rng.standard_normal(size) * 2.0 ** rng.integers(-100, 100, size),
    }[kind]


KINDS = st.sampled_from(["normal", "equal", "few", "zeros", "wide"])


def loaded(builder: Builder, stored: str, work: str, shape: tuple[int, ...]) -> Value:
    return builder.unary(Abs, builder.cast(builder.load(0, stored, shape), work))


DTYPES = [("BF16", "F32"), ("F16", "F32"), ("F32", "F32"), ("F32", "F64"), ("F64", "F64")]


@PLACES
@given(
    st.sampled_from(DTYPES), st.integers(1, 3000), KINDS, st.integers(0, 2**32 - 1), st.data()
)  # fmt: skip
def test_a_threshold_is_exact(
    dtypes: tuple[str, str], size: int, kind: str, seed: int, data: st.DataObject
) -> None:
    stored, work = dtypes
    k = data.draw(st.integers(0, size))
    with np.errstate(all="ignore"):
        bits = encoded(np.clip(numbers(seed, size, kind), -6e4, 6e4), stored)
    builder = Builder()
    x = loaded(builder, stored, work, (size,))
    builder.store(builder.kth(x, 1.0, builder.const(k, "F64", (size,))), 0, work)
    [call] = builder.calls()
    sizes = np.sort(np.abs(decoded(bits, stored, "F64")))[::-1]
    wanted = sizes[k - 1] if k else np.inf
    for span in (4096, 512):
        [threshold], _ = run(call.program, call.constants, [bits], span)
        assert (threshold == wanted).all()


@PLACES
@given(
    st.sampled_from(["F32", "F64"]),
    st.sampled_from([1, 2, 5, 15, 16, 17, 40, 63, 64, 65, 200, 1000, 5000]),
    st.integers(1, 4), KINDS, st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_places_are_those_of_a_stable_sort(
    dtype: str, columns: int, rows: int, kind: str, seed: int
) -> None:
    x = numbers(seed, rows * columns, kind)
    bits = encoded(x, dtype)
    builder = Builder()
    builder.store(builder.place(loaded(builder, dtype, dtype, (rows, columns)), columns), 0, "F64")
    [call] = builder.calls()
    [places], _ = run(call.program, call.constants, [bits], 1 << 15)
    sizes = np.abs(bits).reshape(rows, columns)
    order = np.argsort(sizes, axis=1, kind="stable")
    wanted = np.argsort(order, axis=1, kind="stable")
    np.testing.assert_array_equal(places.reshape(rows, columns), wanted)


@pytest.mark.parametrize("size", [1, 7, 8, 100, 1000])
@pytest.mark.parametrize("seed", [0, 5, 2**53 - 1])
def test_draws_are_those_of_the_generator(size: int, seed: int) -> None:
    builder = Builder()
    x = builder.load(0, "F32", (size,))
    builder.store(builder.draw(x, seed, 1), 0, "F64")
    [call] = builder.calls()
    wanted = drawn((seed, 1), 0, size) / 2**32
    for span in (2048, 16):
        [draws], _ = run(call.program, call.constants, [np.zeros(size, "f4")], span)
        np.testing.assert_array_equal(draws, wanted)


# --- Δ -------------------------------------------------------------------------------------


def total(count: int, dtype: str) -> Program:
    """The sum of some Δ."""
    builder = Builder()
    values = [builder.load(number, dtype, (1, 1)) for number in range(count)]
    sum_ = values[0]
    for value in values[1:]:
        sum_ = builder.fma(value, 1.0, sum_)
    builder.store(sum_, 0, dtype)
    [call] = builder.calls()
    return call.program


def factors(
    shape: tuple[int, int], ranks: Sequence[int], kind: str
) -> list[tuple[Numbers, Numbers]]:
    rng = np.random.default_rng([*shape, *ranks])
    rows, columns = shape
    return [
        (
            rng.standard_normal((rank, columns)).astype(kind),
            rng.standard_normal((rows, rank)).astype(kind),
        )
        for rank in ranks
    ]


@pytest.mark.parametrize("dtype", ["F32", "F64"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (9, 16), (33, 47), (130, 300), (7, 40000)])
@pytest.mark.parametrize("ranks", [(1,), (3, 8), (16, 2, 5)])
def test_deltas_are_formed_in_the_order_of_the_rank(
    dtype: str, shape: tuple[int, int], ranks: Sequence[int]
) -> None:
    pairs = factors(shape, ranks, "f4" if dtype == "F32" else "f8")
    ours, square = NATIVE.over_deltas(total(len(ranks), dtype), pairs, ())
    [wanted] = computed(total(len(ranks), dtype), [b @ a for a, b in pairs], ())
    assert square == pytest.approx(np.sum(ours.astype("f8") ** 2), rel=1e-9)
    assert np.allclose(ours, wanted, rtol=1e-5 if dtype == "F32" else 1e-12, atol=1e-5)
    if dtype == "F32" and len(ranks) == 1:
        # A product of two float32 is exact in float64; the sums of a step are rounded once.
        [(a, b)] = pairs
        exact = np.zeros(shape, "f4")
        for k in range(ranks[0]):
            exact = (exact.astype("f8") + np.outer(b[:, k].astype("f8"), a[k])).astype("f4")
        assert (ours == exact).mean() > 0.9999  # but where float64 rounds before float32 does


def test_deltas_do_not_depend_on_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = factors((100, 50), (4, 6), "f4")
    whole, _ = NATIVE.over_deltas(total(2, "F32"), pairs, ())
    monkeypatch.setattr("pemlang.kernels.steps.deltas.TILE", 800)
    tiled, _ = NATIVE.over_deltas(total(2, "F32"), pairs, ())
    np.testing.assert_array_equal(tiled, whole)


@pytest.mark.parametrize(("over", "power"), [("delta", 34), ("factors", 68)])
def test_a_selection_by_variance_has_room_for_squares(
    tmp_path: Path, over: str, power: int
) -> None:
    """Variances of numbers that float32 has room for, whose squares it has none for."""
    text = f'save sce([a, b], density=0.4, over={over}) to "o" with rank=full, dtype=f64\n'
    chosen = []
    for size in (1.0, 2.0**power, 2.0**-power):
        folder = tmp_path / str(size)
        for seed, name in enumerate("ab"):
            lora(folder / name, seed, {"layers.0.q": (20, 33)}, rank=3)
            tensors = {key: size * x for key, x in tensors_of(folder / name).items()}
            save(folder / name, tensors, config_of(folder / name))
        [built] = build(folder, 'adapter a = "a"\nadapter b = "b"\n' + text).outputs
        chosen.append([(x != 0).numpy() for x in tensors_of(built.path).values()])
    for same in zip(*chosen, strict=True):
        assert all((where == same[0]).all() for where in same)
