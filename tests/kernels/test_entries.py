"""Methods on entries, as they are written in steps, held to the references of their records: on
tensors, on each of two factors, and on Δ."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from pemlang.kernels import Builder, Elementwise, MergeInputs, drawn, meaning
from pemlang.ops import FUNCTIONS, METHODS

Dense = NDArray[np.float64]

NUMBERS = {"density": (0.3, 0.6, 1.0), "epsilon": (0.2,), "gamma": (0.0, 0.1), "t": (0.3,)}
SEEDS = (11.0, 12.0, 13.0)
NAMES = sorted(name for name, method in METHODS.items() if isinstance(method.kernel, Elementwise))


def settings(name: str) -> list[tuple[dict[str, float], dict[str, str]]]:
    """Numbers and words that a method may be told."""
    [signature] = FUNCTIONS[name].signatures
    params = [param for param in signature.params if param.name not in ("over", "rank", "seed")]
    words = {param.name: param.words for param in params if param.words}
    numbers = {param.name: NUMBERS.get(param.name, (1.5,)) for param in params}
    for other in (*words, "weights", "xs", "x", "y"):
        numbers.pop(other, None)
    return [
        (dict(zip(numbers, chosen, strict=True)), dict(zip(words, said, strict=True)))
        for chosen in product(*numbers.values())
        for said in product(*words.values())
    ]


def tensors(count: int, shape: tuple[int, int], seed: int) -> list[Dense]:
    return [np.random.default_rng([seed, n]).standard_normal(shape) for n in range(count)]


def inputs(
    name: str, parts: Sequence[Sequence], told: tuple[Mapping, Mapping], rank: int, over: str
) -> MergeInputs:
    count = len(parts)
    weights, scales = [0.7, -1.3, 0.4][:count], [2.0, 0.5, 1.0][:count]
    numbers, words = told
    return MergeInputs(
        name, parts, 0, weights, scales, SEEDS[:count], numbers, words, rank, over, "F64"
    )


def referred(
    name: str,
    xs: Sequence[Dense],
    weights: Sequence[float],
    told: tuple[Mapping, Mapping],
    part: int,
) -> Dense:
    """What the record's reference makes of some matrices."""
    reference = METHODS[name].kernel.reference
    given = {"weights": weights, **told[0], **told[1]}
    if "draws" in inspect.signature(reference).parameters:
        given["draws"] = [
            drawn((int(seed), part), 0, x.size).reshape(x.shape) / 2**32
            for seed, x in zip(SEEDS, xs, strict=False)
        ]
    return np.asarray(reference(list(xs), **given))


def meant(builder: Builder, arrays: Mapping[str, Dense]) -> list[Dense]:
    """What the steps mean, whatever parts they fell into, by the number of the output."""
    outputs: dict[int, Dense] = {}
    for call in builder.calls(shapes=True):
        made = meaning(call.program, [arrays[key] for key in call.inputs], call.constants)
        outputs |= dict(zip(call.outputs, made, strict=True))
    return [outputs[number] for number in sorted(outputs)]


def close(ours: Dense, wanted: Dense) -> None:
    np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_the_reference_on_tensors_and_on_factors(name: str) -> None:
    count = 2 if name == "nearswap" else 3
    shapes = {"a": (4, 30), "b": (25, 4)}
    for number, told in enumerate(settings(name)):
        xs = {key: tensors(count, shape, number) for key, shape in shapes.items()}
        builder = Builder()
        parts = [
            [builder.load(f"{key}{n}", "F64", shape) for key, shape in shapes.items()]
            for n in range(count)
        ]
        given = inputs(name, parts, told, 4, "factors")
        values, cost = METHODS[name].kernel.write(builder, given)
        assert cost is None
        for slot, value in enumerate(values):
            builder.store(value, slot, "F64")
        arrays = {f"{key}{n}": x for key in shapes for n, x in enumerate(xs[key])}
        ours = meant(builder, arrays)
        roots = [abs(w) ** 0.5 for w in given.weights]
        signed = [np.copysign(root, w) for root, w in zip(roots, given.weights, strict=True)]
        for part, (key, weights) in enumerate((("a", signed), ("b", roots))):
            close(ours[part], referred(name, xs[key], weights, told, part))


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_the_reference_on_deltas(name: str) -> None:
    count, shape = (2 if name == "nearswap" else 3), (20, 26)
    for number, told in enumerate(settings(name)):
        builder = Builder()
        pairs = [
            (tensors(1, (2 + n, shape[1]), n)[0], tensors(1, (shape[0], 2 + n), number)[0])
            for n in range(count)
        ]
        arrays = {f"{n}{i}": x for n, pair in enumerate(pairs) for i, x in enumerate(pair)}
        parts = [
            [builder.load(f"{n}{i}", "F64", x.shape) for i, x in enumerate(pair)]
            for n, pair in enumerate(pairs)
        ]
        given = inputs(name, parts, told, min(shape), "delta")
        for slot, value in enumerate(METHODS[name].kernel.write(builder, given)[0]):
            builder.store(value, slot, "F64")
        a, b = meant(builder, arrays)
        deltas = [s * (b @ a) for s, (a, b) in zip(given.scales, pairs, strict=True)]
        close(b @ a, referred(name, deltas, given.weights, told, 0))
