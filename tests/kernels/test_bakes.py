"""The steps that bake against their float64 meaning: every dtype of a weight, both orientations,
and matrices of several blocks of rows."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pytest
from support.kernels.loops import encoded

from pemlang.kernels import Builder, Value, computed, meaning
from pemlang.tensorfiles import FLOATS, decoded

SHAPES = {"small": (6, 5), "blocks": (700, 900), "convolution": (8, 3, 2, 5)}


def agree(
    builder: Builder[int, Hashable], result: Value, shapes: dict[int, tuple[int, ...]]
) -> None:
    """Hold what a program computes to what it means; slot 0 is the weight in its own dtype."""
    builder.store(result, "out", result.dtype)
    [call] = builder.calls(shapes=True)
    generator = np.random.default_rng(7)
    dtypes = {load.input: load.dtype for load in call.program.loads}
    stored = [
        encoded(generator.normal(size=shapes[source]), dtypes[slot]).reshape(shapes[source])
        for slot, source in enumerate(call.inputs)
    ]
    exact = [decoded(x, dtypes[slot], "F64") for slot, x in enumerate(stored)]
    [wanted] = meaning(call.program, exact, call.constants)
    [ours] = computed(call.program, stored, call.constants)
    assert ours.shape == wanted.shape
    assert ours.dtype == ("f8" if result.dtype == "F64" else "f4")
    tolerance = 1e-13 if result.dtype == "F64" else 1e-5
    assert np.abs(ours - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("turned", [False, True])
def test_a_product_is_added_as_it_means(dtype: str, name: str, turned: bool) -> None:
    shape = SHAPES[name]
    if turned and len(shape) > 2:
        pytest.skip("no convolution is stored transposed")
    work, rank = "F64" if dtype == "F64" else "F32", 3
    rows, inner = (shape[1], shape[:1]) if turned else (shape[0], shape[1:])
    shapes = {0: shape, 1: (rank, *inner), 2: (rows, rank, *[1] * (len(shape) - 2))}
    builder: Builder[int, Hashable] = Builder()
    weight = builder.cast(builder.load(0, dtype, shape), work)
    factors = [builder.load(slot, work, shapes[slot]) for slot in (1, 2)]
    agree(builder, builder.add_product(weight, factors, 0.7, turned), shapes)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("experts", [1, 3])
def test_products_of_experts_are_added_as_they_mean(dtype: str, turned: bool, experts: int) -> None:
    """One expert may have a matrix of two axes."""
    outputs, inputs, rank = 700, 90, 3
    shape = (experts, *((inputs, outputs) if turned else (outputs, inputs)))
    work = "F64" if dtype == "F64" else "F32"
    for weight_shape in (shape, shape[1:]) if experts == 1 else (shape,):
        shapes = {0: weight_shape, 1: (experts, rank, inputs), 2: (outputs, rank, experts)}
        builder: Builder[int, Hashable] = Builder()
        weight = builder.cast(builder.load(0, dtype, weight_shape), work)
        factors = [builder.load(slot, work, shapes[slot]) for slot in (1, 2)]
        agree(builder, builder.add_products(weight, factors, 0.7, turned), shapes)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("turned", [False, True])
def test_outputs_are_brought_to_their_lengths(dtype: str, name: str, turned: bool) -> None:
    shape = SHAPES[name]
    if turned and len(shape) > 2:
        pytest.skip("no convolution is stored transposed")
    work, rank = "F64" if dtype == "F64" else "F32", 3
    rows, inner = (shape[1], shape[:1]) if turned else (shape[0], shape[1:])
    ones = [1] * (len(shape) - 2)
    shapes = {0: shape, 1: (rank, *inner), 2: (rows, rank, *ones), 3: (1, rows, *ones)}
    builder: Builder[int, Hashable] = Builder()
    weight = builder.cast(builder.load(0, dtype, shape), work)
    a, b, lengths = (builder.load(slot, work, shapes[slot]) for slot in (1, 2, 3))
    made = builder.add_product_at_lengths(weight, (a, b), 0.7, turned, lengths)
    agree(builder, made, shapes)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("axis", [0, 1])
def test_gains_scale_along_an_axis(dtype: str, name: str, axis: int) -> None:
    shape = SHAPES[name]
    shapes = {0: shape, 1: (shape[axis], 1)}
    builder: Builder[int, Hashable] = Builder()
    weight = builder.cast(builder.load(0, dtype, shape), "F64" if dtype == "F64" else "F32")
    g = builder.load(1, "F64", shapes[1])
    agree(builder, builder.scale_along(weight, g, axis), shapes)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SHAPES)
def test_rows_are_put_in_their_places(dtype: str, name: str) -> None:
    shape = SHAPES[name]
    shapes = {0: shape, 1: (3, *shape[1:])}
    builder: Builder[int, Hashable] = Builder()
    weight = builder.cast(builder.load(0, dtype, shape), "F64" if dtype == "F64" else "F32")
    rows = builder.load(1, "F32", shapes[1])
    agree(builder, builder.put_rows(weight, rows, (5, 0, 2)), shapes)


def test_a_weight_is_not_widened_as_a_whole() -> None:
    """The program takes a weight of bf16 as it is stored: two bytes an element, not six."""
    builder: Builder[int, Hashable] = Builder()
    weight = builder.cast(builder.load(0, "BF16", (6, 5)), "F32")
    factors = [builder.load(slot, "F32", shape) for slot, shape in ((1, (2, 5)), (2, (6, 2)))]
    builder.store(builder.add_product(weight, factors, 1.0, False), "out", "BF16")
    [call] = builder.calls()
    assert [step.name for step in call.program.steps].count("cast") == 0
