"""Layers of models as a model: a selection of layers, and `stack`. Layers are numbered anew; what
lies in no layer is the first model's where it stands before them, and the last one's after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.graph.node import ModelNode, Node, TensorsNode
from pemlang.graph.types import ModelType
from pemlang.modules import Shapes, SiteShape, SiteValues
from pemlang.modules.sites import layer_of, layer_start
from pemlang.ops.record import Context, Operator, Parameter, Section, Signature, register

if TYPE_CHECKING:
    from pemlang.graph.formula import Formula
    from pemlang.graph.lowering import LoweringContext
    from pemlang.graph.node import Part
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.tensorfiles.safetensors import TensorEntry

Ranges = tuple[tuple[int, int], ...]

_BEFORE = ("embed", "wte", "wpe", "shared")
"""What stands in the names of tensors that lie before the layers."""


@dataclass(frozen=True, eq=False, repr=False)
class Stack(ModelNode):
    """Layers of models, one range after the other.

    Attributes:
        models: the models.
        ranges: the first and the last layer of each that is taken.
    """

    kind = "stack"
    renames = True

    models: tuple[ModelNode, ...]
    ranges: Ranges

    @property
    def args(self) -> tuple[TensorsNode, ...]:
        return self.models

    def parts(self) -> tuple[Part, ...]:
        return (self.ranges,)

    @property
    def whose(self) -> ModelNode:
        return self.models[0]

    def entry(self, site: str) -> TensorEntry:
        model, name = self._places[site]
        return model.entry(name)

    def rebuilt(self, new: Rebuilding) -> Node:
        models = tuple(new.node(model) for model in self.models)
        return new.graph.add(Stack(self.type, models, self.ranges))

    @cached_property
    def _places(self) -> dict[str, tuple[ModelNode, str]]:
        return places(self.models, self.ranges)

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        return ctx.at(*self._places[ctx.site])

    def formula(self, write: Formula) -> str:
        parts = [
            f"{write.inner(model)}[layers {first}..{last}]"
            for model, (first, last) in zip(self.models, self.ranges, strict=True)
        ]
        return parts[0] if len(parts) == 1 else f"stack({', '.join(parts)})"

    def invariant(self) -> None:
        assert len(self.models) == len(self.ranges) > 0
        assert not any(isinstance(model, Stack) for model in self.models), "a stack in a stack"
        assert self._places.keys() == self.shapes.keys()


def places(models: Sequence[ModelNode], ranges: Ranges) -> dict[str, tuple[ModelNode, str]]:
    """Each tensor of a stack: whose it is, and what that calls it."""
    found: dict[str, tuple[ModelNode, str]] = {}
    offset = 0
    for index, (model, (first, last)) in enumerate(zip(models, ranges, strict=True)):
        for site in model.shapes:
            layer = layer_of(site)
            if layer is not None and first <= layer <= last:
                found[_numbered(site, layer - first + offset)] = (model, site)
            elif layer is None and index == (0 if _before(site) else len(models) - 1):
                found[site] = (model, site)
        offset += last - first + 1
    return found


def _numbered(site: str, layer: int) -> str:
    start = layer_start(site)
    assert start is not None
    return f"{site[:start]}{layer}{site[start:].lstrip('0123456789')}"


def _before(site: str) -> bool:
    return "embed_out" not in site and any(part in site for part in _BEFORE)


def selected_layers(ctx: Context, model: ModelNode, first: int, last: int) -> ModelNode:
    """The model of some layers of a model, both ends included.

    Laws: m[layers …] of all layers is m; a selection of a selection is one.

    Raises:
        Fault: PEM0320 it has not all of these layers; PEM0353 its layers stand in several places.
    """
    count = _layer_count(ctx, model)
    if first > last or last >= count:
        message = f"the model has layers 0 to {count - 1}, not {first} to {last}"
        help = f"layers {min(first, count - 1)}..{count - 1}"
        raise Fault("PEM0320", message, help if first <= last else f"layers {last}..{first}")
    return _stacked(ctx, _cut(model, first, last))


def _cut(model: ModelNode, first: int, last: int) -> list[tuple[ModelNode, int, int]]:
    """Layers of a model that may be a stack, as layers of the models in that."""
    if not isinstance(model, Stack):
        return [(model, first, last)]
    cut, offset = [], 0
    for part, (low, high) in zip(model.models, model.ranges, strict=True):
        begin, end = max(first, offset), min(last, offset + high - low)
        if begin <= end:
            cut.append((part, low + begin - offset, low + end - offset))
        offset += high - low + 1
    return cut


def _stack(ctx: Context, *models: ModelNode) -> ModelNode:
    parts = [part for model in models for part in _cut(model, 0, _layer_count(ctx, model) - 1)]
    return _stacked(ctx, parts)


def _stacked(ctx: Context, parts: Sequence[tuple[ModelNode, int, int]]) -> ModelNode:
    if len(parts) == 1:
        [(model, first, last)] = parts
        if (first, last) == (0, _layer_count(ctx, model) - 1):
            return model
    models = tuple(model for model, _, _ in parts)
    ranges = tuple((first, last) for _, first, last in parts)
    shapes = {site: model.shapes[name] for site, (model, name) in places(models, ranges).items()}
    _hold_alike(ctx, shapes)
    base = models[0].type.base
    return ctx.graph.add(Stack(ModelType(base, Shapes(shapes)), models, ranges))


def _layer_count(ctx: Context, model: ModelNode) -> int:
    """How many layers a model has; raises PEM0353 where they stand in several places."""
    layered = [(site, layer) for site in model.shapes if (layer := layer_of(site)) is not None]
    where = {site[: layer_start(site)] for site, _ in layered}
    if len(where) != 1:
        named = f"in {listed(sorted(where))}" if where else "nowhere"
        raise Fault(
            "PEM0353",
            f"the layers of this model are {named}: it is not one stack of layers",
            "take a model that has one, such as a language model without a vision tower",
        )
    return 1 + max(layer for _, layer in layered)


def _hold_alike(ctx: Context, shapes: Mapping[str, SiteShape]) -> None:
    """Raise PEM0353 for layers that differ: a config says one size for all of them."""
    first: dict[str, SiteShape] = {}
    for site, shape in shapes.items():
        if layer_of(site) is None:
            continue
        like = first.setdefault(_numbered(site, 0), shape)
        if like != shape:
            raise Fault(
                "PEM0353",
                f"{visible(site)} is {shape}, and {like} in another layer",
                "stack layers of models of one architecture and one size",
            )


STACK = Operator(
    name="stack",
    signatures=(Signature((Parameter("x", ("model",), variadic=True),), "model", _stack),),
    summary="The layers of models, one model after the other, numbered anew; what stands before "
    "the layers is the first model's, what stands after them the last one's.",
    formula="layers 0, 1, … of x, then those of the next",
    source="mergekit `passthrough`",
)

register(
    Section(
        "Layers of models",
        "`m[layers 8..15]` is the model of those layers of m, numbered from 0.",
        (STACK,),
    )
)
