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
from spec import verify
from support import ia3, lora, recipe

import pemlang
from pemlang.check.checked import Checked
from pemlang.diagnostics import PemError, PemWarning
from pemlang.graph.node import Node
from pemlang.pipeline.jobs import identified
from pemlang.pipeline.sweep import Point
from pemlang.source import Source

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
        held to the specification."""
        path = recipe(self.folder, text, f"r{next(self._names)}.pem")
        [found] = identified(path, Source(path.name, text, path.parent), [Point({})])
        verify(found.graph)
        return found

    def node(self, text: str, name: str = "x") -> Node:
        """The value of a name of a recipe."""
        node = self.checked(text).scope.values[name]
        assert isinstance(node, Node)
        return node

    def built(self, text: str) -> tuple[Path, pemlang.api.Built]:
        """The one output of a recipe."""
        [found] = self.recipe(text).build().outputs
        return found.path, found

    def evaluated(self, text: str) -> dict[str, torch.Tensor]:
        """The tensors of x; a warning, of initialisations that lie apart say, is no matter here."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PemWarning)
            return self.recipe(text).evaluate("x")

    def hash(self, text: str) -> str:
        """The semantic hash of the one output of a recipe."""
        return self.built(text)[1].semantic_hash

    def error(self, text: str) -> str:
        """The code of the one error that building a recipe gives."""
        try:
            self.recipe(text).build()
        except PemError as wrong:
            [found] = [d.code for d in wrong.diagnostics if d.severity == "error"]
            return found
        raise AssertionError("it built")


def declared(names: Iterable[str], called: Mapping[str, str] | None = None) -> str:
    """Declarations of some adapters of the pool, under other names where `called` has them."""
    said = called or {}
    return "".join(f'adapter {said.get(n, n)} = "{n}"\n' for n in sorted(set(names)))


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
