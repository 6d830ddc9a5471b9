"""Adapters, and models, of which one has all experts of a layer in one parameter, as transformers 5
has them, and the other has each by itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.graph.dag import Graph
from pemlang.graph.node import TensorsNode
from pemlang.modules import SiteShape
from pemlang.modules.sites import EXPERTS

_EXPERT = re.compile(r"(?P<experts>.+\.experts)\.\d+\.(?P<module>[^.]+)(?:\.weight)?")


@dataclass(frozen=True, eq=False)
class StackedExperts:
    """What looks like the same experts in two adapters, by themselves and in one parameter.

    Attributes:
        x: the adapter that has each by itself.
        site: a site of it.
        parameter: what has that expert in the other adapter.
    """

    x: TensorsNode
    site: str
    parameter: str

    @property
    def note(self) -> str:
        """What it is, in words."""
        return f"{visible(self.site)} looks like a part of {visible(self.parameter)}"

    def help(self, _: Graph) -> str:
        """What to write where they are."""
        return (
            "save the one with each expert by itself in a recipe of its own, load what comes out "
            "with PEFT on the model in transformers 5, which stacks the experts, and declare what "
            'save_pretrained("stacked") then writes'
        )


def stacked_experts(
    stacked: TensorsNode, apart: TensorsNode, kept: Collection[str]
) -> StackedExperts | None:
    """What looks like experts that one adapter has in parameters, and another by themselves, but
    for sites that keep their names; None where it has none."""
    layers = {_layer(site.rpartition(".")[0]): site for site in in_parameters(stacked.shapes)}
    for site in apart.shapes if layers else ():
        experts = experts_of(site)
        parameter = layers.get(_layer(experts)) if experts else None
        if parameter is not None and not (site in kept or parameter in kept):
            return StackedExperts(apart, site, parameter)
    return None


def in_parameters(shapes: Mapping[str, SiteShape]) -> list[str]:
    """The sites that are parameters of experts."""
    return [site for site, shape in shapes.items() if shape.layer == EXPERTS]


def experts_of(name: str) -> str | None:
    """The module that has the experts of which a module, or its weight, is one."""
    match = _EXPERT.fullmatch(name)
    return None if match is None else match["experts"]


def _layer(experts: str) -> str:
    """The layer that some experts are in. Mixtral's block of them has had two names."""
    return experts.removesuffix(".experts").rpartition(".")[0]
