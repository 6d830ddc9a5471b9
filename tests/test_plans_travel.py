"""Plans are data: pickled, and run in a fresh process that has never seen the recipe, they give the
bytes and the numbers that they give here."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import SITES, ia3, lora, recipe
from support.calls import adapters_of

import pemlang
from pemlang.execute import BACKENDS, CpuExecutor, ExecutionOptions, ExecutionResult, MemoryTarget
from pemlang.kernels import NumberSink, Plan
from pemlang.ops import FUNCTIONS, METHODS

SETTINGS = {"density": "0.5", "t": "0.5", "units": "2", "weights": "[1, 0.5]", "epsilon": "0.1"}
DECLARED = 'adapter a = "a"\nadapter b = "b"\nadapter i = "i"\nadapter j = "j"\n'


def call(method: str, over: str = "") -> str:
    """A method of two LoRAs, its parameters given where there is no default."""
    params = FUNCTIONS[method].signatures[0].params
    given = [f"{p.name}={SETTINGS[p.name]}" for p in params if p.name in SETTINGS]
    return f"{method}({', '.join([adapters_of(method, 'ab'), *given, *([over] if over else [])])})"


OVER_FACTORS = [
    name for name in METHODS if any(p.name == "over" for p in FUNCTIONS[name].signatures[0].params)
]
VALUES = {
    **{name: call(name) for name in METHODS},
    **{f"{name} over factors": call(name, "over=factors") for name in OVER_FACTORS},
    "ties with a rank": "ties([a, b], density=0.5, rank=3)",
    "ties of gains": "ties([i, j], density=0.5)",
    "+ with a rank": "compress(a + b, rank=3)",
    "+ with an energy": "compress(a + b, energy=0.8)",
    "⊕": "0.5 ⊗ a ⊕ 0.25 ⊗ b",
    "⊕ of gains": "i ⊕ 0.5 * j",
    "a measure": "cosine(a, b) * a + norm(b) * b",
}

FRONT_END = ("pemlang.check", "pemlang.syntax", "pemlang.api", "lark")
MIDDLE = ("pemlang.graph", "pemlang.ops", "pemlang.lower", "pemlang.formats", "pemlang.inputs")

RUN = """
import pickle, sys
from pemlang.execute import CpuExecutor, ExecutionOptions, MemoryTarget
from pemlang.tensorfiles import TensorReader

done = []
for plan in map(pickle.loads, pickle.load(sys.stdin.buffer)):
    data = [bytearray(file.size) for file in plan.outputs]
    with TensorReader() as reader:
        executor = CpuExecutor(ExecutionOptions(threads=2))
        result = executor.execute(plan, reader, [MemoryTarget(each) for each in data])
    done.append((data, result))
assert not set(sys.argv[1:]) & sys.modules.keys()
pickle.dump(done, sys.stdout.buffer)
"""


@dataclass(frozen=True)
class Run:
    """A plan that was run, its outputs' bytes and what was seen."""

    plan: Plan
    data: list[bytearray]
    result: ExecutionResult


RUNS: list[Run] = []
Elsewhere = tuple[list[bytearray], ExecutionResult]


class Recorder:
    """Runs plans as a CPU does, and keeps them."""

    def __init__(self, options: ExecutionOptions) -> None:
        self._inner = CpuExecutor(options)

    def execute(self, plan, reader, targets=(), progress=lambda *_: None):  # type: ignore[no-untyped-def]
        data = [bytearray(file.size) for file in plan.outputs]
        result = self._inner.execute(plan, reader, [MemoryTarget(x) for x in data], progress)
        for target, taken in zip(targets, data, strict=True):
            target.write(0, memoryview(taken))
        RUNS.append(Run(plan, data, result))
        return result


executor = Recorder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Run]]]:
    """What a build of each value ran."""
    folder = tmp_path_factory.mktemp("travel")
    for seed, name in enumerate("ab"):
        lora(folder / name, seed)
        statistics(folder / name, seed)
        ia3(folder / "ij"[seed], seed)
    recorded = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKENDS, "recorded", __name__)
        for number, (name, value) in enumerate(VALUES.items()):
            RUNS.clear()
            text = f'{DECLARED}save {value} to "out/{number}" with rank=full\n'
            options = pemlang.BuildOptions(device="recorded")
            pemlang.load(recipe(folder, text)).build(options=options)
            recorded[name] = list(RUNS)
    yield recorded


def statistics(adapter: Path, seed: int) -> None:
    """Statistics beside a LoRA, as collect_statistics writes them."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for site, (out, in_) in SITES.items():
        x = torch.randn(40, in_, generator=random)
        tensors[f"{site}.gram"] = x.T @ x / 40
        tensors[f"{site}.fisher_A"] = torch.rand(4, in_, generator=random)
        tensors[f"{site}.fisher_B"] = torch.rand(out, 4, generator=random)
    save_file(tensors, adapter / "statistics.safetensors")


@pytest.fixture(scope="module")
def elsewhere(runs: dict[str, list[Run]]) -> dict[str, list[Elsewhere]]:
    """What a fresh process makes of the same plans."""
    results = iter(run_elsewhere([run for recorded in runs.values() for run in recorded]))
    return {name: [next(results) for _ in recorded] for name, recorded in runs.items()}


def run_elsewhere(runs: Sequence[Run], *absent: str) -> list[Elsewhere]:
    """What a fresh process makes of some plans, which imports neither the front end nor what else
    is to be absent."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *FRONT_END, *absent],
        input=pickle.dumps([pickle.dumps(run.plan) for run in runs]),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return pickle.loads(done.stdout)


@pytest.mark.parametrize("name", VALUES)
def test_a_plan_runs_elsewhere_with_the_same_bytes(
    name: str,
    runs: dict[str, list[Run]],
    elsewhere: dict[str, list[Elsewhere]],
) -> None:
    assert any(run.data for run in runs[name])
    for run, (data, result) in zip(runs[name], elsewhere[name], strict=True):
        assert result.failed is None
        assert data == run.data
        assert result.outputs == run.result.outputs
        same_numbers(result, run.result)


@pytest.mark.parametrize("name", ["⊕", "⊕ of gains", "+ with a rank", "+ with an energy"])
def test_a_plan_of_sums_needs_no_graph(name: str, runs: dict[str, list[Run]]) -> None:
    built = [run for run in runs[name] if run.data]
    for run, (data, _) in zip(built, run_elsewhere(built, *MIDDLE), strict=True):
        assert data == run.data


def same_numbers(one: ExecutionResult, other: ExecutionResult) -> None:
    assert one.numbers.keys() == other.numbers.keys()
    sinks: Sequence[NumberSink] = list(one.numbers)
    for sink in sinks:
        np.testing.assert_array_equal(one.numbers[sink], other.numbers[sink])


def test_a_measure_is_a_plan_too(runs: dict[str, list[Run]]) -> None:
    *measured, built = runs["a measure"]
    assert measured and built.data
    assert all(run.result.numbers and not run.data for run in measured)
