"""Uses of every operator of adapters, drawn from its record: three operands, settings given."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from pemlang.ops import METHODS, Operator, Parameter, every_operator
from support.adapters import lora

SITES = {f"m.layers.{i}.{name}": (12, 16) for i in (0, 1) for name in "qv"}
ALIKE = ("a", "b", "c")
"""Adapters that fit each other in every way, with statistics of their data beside them."""

APART = {
    "sites": ("query", "first", "other"),
    "factors": ("wide", "loud"),
    "both": ("wide_query", "loud_first"),
}
"""Adapters that differ from those: in their modules, in rank and scale, in both."""

DECLARED = "".join(
    f'adapter {n} = "{n}"\n' for n in [*ALIKE, *(x for n in APART.values() for x in n)]
)


def stock(folder: Path) -> None:
    """Write them all."""
    query = {site: shape for site, shape in SITES.items() if site.endswith("q")}
    first = {site: shape for site, shape in SITES.items() if ".0." in site}
    for seed, name in enumerate(ALIKE):
        _collected(lora(folder / name, seed, SITES))
    _collected(lora(folder / "query", 3, query))
    lora(folder / "first", 4, first)
    lora(folder / "other", 5, {"m.layers.0.q": (12, 16), "m.layers.0.k": (12, 16)})
    lora(folder / "wide", 6, SITES, rank=8, alpha=16)
    lora(folder / "loud", 7, SITES, alpha=16)
    lora(folder / "wide_query", 8, query, rank=6, alpha=3)
    lora(folder / "loud_first", 9, first, alpha=2)


def _collected(directory: Path) -> None:
    sizes = {"gram": (16, 16), "fisher_A": (4, 16), "fisher_B": (12, 4)}
    tensors = {
        f"{site}.{what}": np.ones(size, "f4") for site in SITES for what, size in sizes.items()
    }
    save_file(tensors, directory / "statistics.safetensors")


def adapters_of(method: str, xs: Sequence[str]) -> str:
    """Some adapters as a call of a merge method has them: those in front, and the list."""
    first = METHODS[method].ordered
    return ", ".join([*xs[:first], *([f"[{', '.join(xs[first:])}]"] if xs[first:] else [])])


@dataclass(frozen=True)
class Drawn:
    """A use of an operator.

    Attributes:
        operator: of what.
        operands: the adapters, as written.
        settings: the other arguments by name, as written.
    """

    operator: Operator
    operands: tuple[str, ...]
    settings: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.operator.symbols[0] if self.operator.symbols else self.operator.name

    @property
    def listed(self) -> bool:
        return self.operator.signatures[0].params[0].kinds[0] == "[adapter]"

    @property
    def arguments(self) -> list[str]:
        """The operands as a call has them."""
        before = [param.kinds[0] for param in self.operator.signatures[0].params]
        if "[adapter]" not in before:
            return list(self.operands)
        first = before.index("[adapter]")
        return [*self.operands[:first], f"[{', '.join(self.operands[first:])}]"]

    @property
    def text(self) -> str:
        if self.operator.symbols and len(self.operands) == 1:
            return f"{self.name}{self.operands[0]}"
        if self.operator.symbols:
            return f" {self.name} ".join(self.operands)
        settings = [f"{name}={value}" for name, value in self.settings.items()]
        return f"{self.name}({', '.join([*self.arguments, *settings])})"

    def having(self, **settings: str) -> Drawn:
        """The same with other settings."""
        return replace(self, settings={**self.settings, **settings})

    def of(self, *operands: str) -> Drawn:
        """The same with other operands."""
        return replace(self, operands=operands)

    @property
    def by_statistics(self) -> bool:
        """Whether it takes nothing but adapters as they are declared."""
        method = METHODS.get(self.operator.name)
        return method is not None and method.statistics is not None

    @property
    def over_factors(self) -> bool:
        """Whether it combines A with A and B with B."""
        method = METHODS.get(self.operator.name)
        if method is not None:
            return method.factors or self.settings.get("over") == "factors"
        return self.operator.acts_on == "factors"


OPERATORS = [
    operator
    for operator in every_operator()
    if any(
        {"adapter", "[adapter]"} & set(param.kinds) and "[string]" not in param.kinds
        for signature in operator.signatures
        for param in signature.params
    )
]
"""Those that combine adapters, change one or measure them."""


def drawn(operator: Operator, rng: random.Random) -> Drawn:
    """A right use of an operator."""
    if operator.symbols:
        return Drawn(operator, _operands(operator, rng), {})
    operands: list[str] = []
    settings: dict[str, str] = {}
    for param in operator.signatures[0].params:
        if param.kinds[0] == "[adapter]" or param.variadic:
            operands += ALIKE[len(operands) :]
        elif param.kinds == ("adapter",) and param.name != "like":
            operands.append(ALIKE[len(operands)])
        elif param.required or rng.random() < 0.7:
            settings[param.name] = value(param, rng, len(operands))
    return _fitting(Drawn(operator, tuple(operands), settings), rng)


def _operands(operator: Operator, rng: random.Random) -> tuple[str, ...]:
    """Those of an operator that is no function; of a chain they have weights."""
    if operator.terms is not None:
        times = "*" if operator.symbols[0] in "+-" else "⊗"
        return tuple(rng.choice([name, f"{_number(rng)} {times} {name}"]) for name in ALIKE)
    if len(operator.signatures[0].params) == 1:
        return ("a",)
    return ("a", "0.5") if operator.symbols[0] == "/" else ("0.5", "a")


def _fitting(use: Drawn, rng: random.Random) -> Drawn:
    """The same without settings that do not go together, and with what has to be there."""
    settings = dict(use.settings)
    if use.operator.name == "compress":
        settings = {"rank": "2"} if rng.random() < 0.5 else {"energy": "0.9"}
    if settings.get("over") == "factors":
        settings.pop("rank", None)
    if "epsilon" in settings:
        settings["epsilon"] = "0.1"
    if use.operator.name == "pad":
        settings["rank"] = "8"
    return replace(use, settings=settings)


def _number(rng: random.Random) -> str:
    return rng.choice(["0.3", "2", "1.5", "0.25"])


def value(param: Parameter, rng: random.Random, operands: int = 3) -> str:
    """A value that a parameter takes, of a use with some operands."""
    if param.words:
        return rng.choice(param.words)
    if param.kinds == ("adapter",):
        return "b"
    if "[number]" in param.kinds:
        return f"[{', '.join(_number(rng) for _ in range(operands))}]"
    if param.kinds == ("bool",):
        return rng.choice(["true", "false"])
    if param.name == "rank":
        return "3"
    if param.within is None:
        return _number(rng)
    if param.within.whole:
        return "7"
    high = param.within.high or Fraction(1)
    return str(float((param.within.low + high) / 2))
