"""What computes the merge methods, held to what they mean: the programs of every method, as recipes
make them, run as a build runs them and by the float64 interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import save_file
from support import PREFIX, ia3, lora, recipe, save
from support.calls import adapters_of
from support.kernels.loops import run

import pemlang
from pemlang.execute import run_call
from pemlang.kernels import KernelCall, NumberSink, Plan, TensorSink, meaning
from pemlang.ops import FUNCTIONS, METHODS, OVER
from pemlang.tensorfiles import TensorReader, decoded

Dense = NDArray[np.float64]

SITES = {"layers.0.wide": (12, 16), "layers.0.tall": (14, 9)}
KINDS = {
    "lora": ["a", "b", "c"],
    "ranks": ["a", "b", "d"],
    "rank 1": ["r", "s"],
    "f64": ["e", "f"],
    "conv": ["p", "q"],
    "ia3": ["i", "j", "k"],
}
"""Adapters that can be merged with each other. Those of `ranks` have several ranks and scales."""

WEIGHTS = st.sampled_from(["0.5", "1", "1.5", "-0.3"])
VALUES = {
    "density": ["0.3", "0.5", "0.8", "1"],
    "epsilon": ["0.1", "0.15"],
    "gamma": ["0", "0.05", "0.2"],
    "t": ["0", "0.25", "1"],
    "seed": ["0", "7"],
    "scale": ["1", "0.5", "-2"],
    "by": ["1", "0.5"],
    "off_diagonal": ["0", "0.9", "1"],
    "rounds": ["1", "10"],
    "tolerance": ["0.00001"],
    "common": ["0.5", "0.8"],
    "units": ["1", "3", "6"],
    "threshold": ["0.00001", "0.3"],
    "r": ["0", "0.5"],
    "alpha": ["0.2", "3"],
    "ridge": ["0.01", "0.5"],
}
"""Values of the parameters that are numbers, as recipes spell them."""

TOLERANCE = {"F32": 2e-6, "F64": 1e-7}
"""How far results may be from what is meant, relative to the largest number."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merged")
    for seed, name in enumerate("abc"):
        lora(folder / name, seed, SITES, init=seed)
        collected(folder / name, seed, 4)
    lora(folder / "d", 3, SITES, rank=2, alpha=3, init=3)
    for seed, name in enumerate("rs"):
        lora(folder / name, seed, SITES, rank=1, init=seed)
    for seed, name in enumerate("ef"):
        lora(folder / name, seed, SITES, dtype=torch.float64, init=seed)
    for seed, name in enumerate("pq"):
        convolution(folder / name, seed)
    for seed, name in enumerate("ijk"):
        ia3(folder / name, seed)
        sizes = {"layer.0.key": (6, 1), "layer.1.key": (6, 1)}
        sizes |= {"layer.0.down": (1, 10), "layer.1.down": (1, 10)}
        squares = {f"{site}.fisher_l": size for site, size in sizes.items()}
        written(folder / name, {key: drawn(seed, size) ** 2 for key, size in squares.items()})
    return folder


def drawn(seed: int, shape: tuple[int, ...]) -> Dense:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def written(directory: Path, statistics: Mapping[str, Dense]) -> None:
    tensors = {key: torch.from_numpy(x.astype("f4")) for key, x in statistics.items()}
    save_file(tensors, directory / "statistics.safetensors")


def collected(directory: Path, seed: int, rank: int) -> None:
    """Statistics such as those of a few inputs would be."""
    statistics = {}
    for site, (out, in_) in SITES.items():
        inputs = drawn(seed, (5 * in_, in_))
        statistics[f"{site}.gram"] = inputs.T @ inputs / len(inputs)
        statistics[f"{site}.fisher_A"] = drawn(seed, (rank, in_)) ** 2
        statistics[f"{site}.fisher_B"] = drawn(seed, (out, rank)) ** 2
    written(directory, statistics)


def convolution(directory: Path, seed: int) -> None:
    shapes = {"A": (4, 3, 3, 3), "B": (8, 4, 1, 1)}
    tensors = {
        f"{PREFIX}layers.0.conv.lora_{factor}.weight": drawn(seed, shape).astype("f4")
        for factor, shape in shapes.items()
    }
    config = {
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["conv"],
        "base_model_name_or_path": "some/base",
    }  # fmt: skip
    save(directory, tensors, config)


def kinds_of(name: str, over: str) -> list[str]:
    """The kinds of adapters that a method merges."""
    method = METHODS[name]
    if method.statistics is not None:
        return ["lora"] if method.needs_factors else ["lora", "ia3"]
    apart = {"ranks"} if over == "factors" else set()
    if method.needs_factors or method.needs_matrices:
        apart |= {"ia3"}
    return [kind for kind in KINDS if kind not in apart]


@st.composite
def merges(draw: st.DrawFn, name: str, over: str) -> str:
    """A recipe that saves what a method makes of some adapters."""
    kind = draw(st.sampled_from(kinds_of(name, over)))
    [signature] = FUNCTIONS[name].signatures
    params = {param.name: param for param in signature.params}
    first = METHODS[name].ordered
    least, most = (first + 1, 3) if "xs" in params else (first, first)
    names = st.sampled_from(KINDS[kind])
    xs = draw(st.lists(names, min_size=least, max_size=most, unique=True))
    arguments = [adapters_of(name, xs)]
    for key, param in params.items():
        if key in ("xs", "x", "y"):
            continue
        if key == "over":
            value = over if kind != "ia3" else None
        elif key == "rank":
            ranked = over == "delta" and kind != "ia3"
            value = draw(st.sampled_from(["full", "3"])) if ranked else None
        elif key == "weights":
            weights = WEIGHTS.filter(lambda w: METHODS[name].statistics is None or w[0] != "-")
            value = f"[{', '.join(draw(weights) for _ in xs)}]"
        else:
            value = draw(st.sampled_from(param.words or VALUES[key]))
        arguments += [] if value is None else [f"{key}={value}"]
    declared = "".join(f'adapter {x} = "{x}"\n' for x in xs)
    return f'{declared}save {name}({", ".join(arguments)}) to "out"\n'


def cases() -> list[tuple[str, str]]:
    """Every method, over Δ and over the factors where it may be either."""
    chosen = []
    for name in METHODS:
        [signature] = FUNCTIONS[name].signatures
        overs = OVER.words if OVER in signature.params else ("delta",)
        chosen += [(name, over) for over in overs]
    return chosen


@pytest.mark.parametrize(("name", "over"), cases())
def test_merges_are_what_they_mean(folder: Path, name: str, over: str) -> None:
    # What is drawn is the same each time: in float32 an election may turn on a rounding.
    @settings(derandomize=True, deadline=None, max_examples=25)
    @given(merges(name, over))
    def check(text: str) -> None:
        made, _ = pemlang.load(recipe(folder, text)).programs()
        loops = [call for loop in made.plan.loops for call, _ in loop.calls]
        assert made.plan.sites or loops
        with TensorReader() as reader:
            for call in (*made.plan.sites, *loops):
                agrees(made.plan, call, reader)

    check()


def agrees(plan: Plan, call: KernelCall, reader: TensorReader) -> None:
    """Hold what a call computes at a site to what it means there."""
    program = call.program
    shapes = [call.shape if program.elementwise else load.shape for load in program.loads]
    stored = [
        reader.tensor(reference, load.dtype, shape)
        for reference, load, shape in zip(call.inputs, program.loads, shapes, strict=True)
    ]
    inputs = [decoded(x, load.dtype, "F64") for x, load in zip(stored, program.loads, strict=True)]
    meant = meaning(program, inputs, call.constants)
    if program.elementwise:
        _, exact = run(program, call.constants, [x.reshape(-1) for x in stored])
        computed = [x.reshape(call.shape) for x in exact]
    else:
        outputs = run_call(call, reader)
        computed = [outputs[slot] for slot in range(len(call.outputs))]
    for store in program.stores:
        computed[store.output] = computed[store.output] + store.base(call.constants)
    ours, wanted = results(plan, call, computed), results(plan, call, meant)
    narrow = any(step.exact_dtype == "F32" for step in program.stores)
    for what, exact in wanted.items():
        largest = max(1e-30, float(np.abs(exact).max()))
        tolerance = TOLERANCE["F32" if narrow else "F64"] * largest
        np.testing.assert_allclose(ours[what], exact, rtol=0, atol=tolerance, err_msg=what)


def results(plan: Plan, call: KernelCall, outputs: list[Dense]) -> dict[str, Dense]:
    """The Δ of a LoRA, whose factors may be any, or the one tensor of another adapter; and what a
    cut to a rank cost."""
    told: dict[str, Dense] = {}
    for sink, array in zip(call.outputs, outputs, strict=True):
        assert isinstance(sink, TensorSink | NumberSink)
        told["cost" if isinstance(sink, NumberSink) else plan.place(sink).factor] = array
    if "a" in told and "b" in told:
        a, b = told.pop("a"), told.pop("b")
        told["delta"] = b.reshape(len(b), -1).astype("f8") @ a.reshape(len(a), -1).astype("f8")
    return told
