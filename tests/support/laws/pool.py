"""The adapters that laws are drawn over, and what the compiler makes of a recipe over them."""

from __future__ import annotations

import itertools
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, settings

import pemlang
from pemlang.artifact import Built
from pemlang.check import Checked
from pemlang.execute import CpuExecutor, no_progress
from pemlang.graph import AdapterNode
from pemlang.lower import Lowering
from pemlang.pipeline import measuring_with
from pemlang.tensorfiles import TensorReader
from support import ia3, lora, recipe

ROWS = {"q": (6, 8), "v": (4, 8)}
SITES = {f"m.layers.{i}.{name}": shape for i in range(3) for name, shape in ROWS.items()}
GAINS = {f"m.layers.{i}.k": 5 for i in range(2)}
FORWARD = {f"m.layers.{i}.down": 7 for i in range(2)}

ALL = frozenset(SITES)
Q = frozenset(site for site in SITES if site.endswith(".q"))
V = ALL - Q
TWO = frozenset(site for site in SITES if ".2." not in site)
LATE = frozenset(site for site in SITES if ".0." not in site)
GAIN = frozenset([*GAINS, *FORWARD])
OUT = frozenset(GAINS)

# What each adapter changes. `a` to `h` have one rank and one scale, so that ⊕ takes them.
LIKE = {"a": ALL, "b": ALL, "c": ALL, "d": ALL, "h": ALL, "e": Q}
LORAS = {**LIKE, "g": ALL, "p": ALL, "r": ALL, "t": TWO, "u": V}
GAINED = {"i": GAIN, "j": GAIN, "k": GAIN, "w": GAIN, "o": OUT}
LIKE_RANK = 2
# Whole leaves of that rank, of float32 or wider.
LIKE_ALL = [name for name in LIKE if LIKE[name] == ALL and name != "h"]

LAWS = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def only(sites: Iterable[str]) -> dict[str, tuple[int, int]]:
    return {site: SITES[site] for site in SITES if site in sites}


@dataclass
class Pool:
    """A folder of adapters, in which recipes over them are written."""

    folder: Path
    _names: Any = field(default_factory=itertools.count)

    def recipe(self, text: str) -> pemlang.Recipe:
        return pemlang.load(recipe(self.folder, text, f"r{next(self._names)}.pem"))

    def checked(self, text: str) -> Checked:
        """A recipe that has been through every pass, its adapters known by content, its graph
        held to the invariant."""
        checked = self.recipe(text).identified()
        checked.graph.invariant()
        return checked

    def node(self, text: str, name: str = "x") -> AdapterNode:
        """The adapter that a name of a recipe stands for."""
        node = self.checked(text).names[name]
        assert isinstance(node, AdapterNode)
        return node

    def numbers(self, text: str, *expressions: str) -> list[float]:
        """The values of number expressions over a recipe."""
        lets = "".join(f"let m{n} = {number}\n" for n, number in enumerate(expressions))
        checked = self.checked(f"{text}\n{lets}")
        with TensorReader() as reader:
            measuring = measuring_with(CpuExecutor, reader, no_progress)
            lowering = Lowering(checked.graph, measuring)
            values = [checked.names[f"m{n}"] for n in range(len(expressions))]
            return [float(lowering.value(value)) for value in values]

    def built(self, text: str) -> tuple[Path, Built]:
        """The one output of a recipe."""
        [output] = self.recipe(text).build().outputs
        return output.path, output

    def evaluated(self, text: str) -> dict[str, torch.Tensor]:
        """The tensors of x; a warning, of initialisations that lie apart say, is no matter here."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pemlang.PemWarning)
            return self.recipe(text).evaluate("x")

    def hash(self, text: str) -> str:
        """The semantic hash of the one output of a recipe."""
        return self.built(text)[1].semantic_hash

    def error(self, text: str) -> str:
        """The code of the one error that building a recipe gives."""
        try:
            self.recipe(text).build()
        except pemlang.PemError as wrong:
            [code] = [d.code for d in wrong.diagnostics if d.severity == "error"]
            return code
        raise AssertionError("it built")


def declared(names: Iterable[str], called: Mapping[str, str] | None = None) -> str:
    """Declarations of some adapters of the pool, under other names where `called` has them."""
    other = called or {}
    return "".join(f'adapter {other.get(n, n)} = "{n}"\n' for n in sorted(set(names)))


def make(folder: Path) -> Pool:
    """The pool: like and unlike ranks, scales, dtypes, patterns and sites."""
    for seed, name in enumerate(["a", "b", "c"]):
        lora(folder / name, seed, SITES, LIKE_RANK, 4)
    lora(folder / "d", 3, SITES, LIKE_RANK, 4, torch.float64)
    lora(folder / "e", 4, only(Q), LIKE_RANK, 4)
    lora(folder / "h", 5, SITES, LIKE_RANK, 4, torch.bfloat16)
    lora(folder / "g", 6, SITES, 5, -2, torch.float16)
    ranks = {site: 1 + number % 3 for number, site in enumerate(SITES)}
    alphas = {"layers.1.q": 3.0, "v": 0.5}
    lora(folder / "p", 7, SITES, ranks, 6, alpha_pattern=alphas)
    lora(folder / "r", 8, SITES, 3, 5, use_rslora=True)
    lora(folder / "t", 9, only(TWO), 1, 1)
    lora(folder / "u", 10, only(V), 2, 3, use_rslora=True, alpha_pattern={"layers.0.v": 7})
    for seed, name in enumerate(["i", "j"]):
        ia3(folder / name, seed, GAINS, FORWARD)
    ia3(folder / "k", 2, GAINS, FORWARD, torch.bfloat16)
    ia3(folder / "w", 3, GAINS, FORWARD, torch.float64)
    ia3(folder / "o", 4, GAINS, {})
    shutil.copytree(folder / "a", folder / "elsewhere" / "a")
    return Pool(folder)
