"""Means of models: a combination of points whose weights sum to one is a point, and so is what a
method makes of whole weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault
from pemlang.graph.coef import at
from pemlang.graph.dag import Graph
from pemlang.graph.node import AdapterNode, ModelNode, Node, TensorsNode
from pemlang.graph.normal import Sum
from pemlang.graph.types import AdapterType, ModelType
from pemlang.modules.dense import DENSE
from pemlang.ops.models import same_tensors
from pemlang.ops.record import Context, Parameter, Result, Signature

if TYPE_CHECKING:
    from pemlang.graph.formula import Formula
    from pemlang.graph.lowering import LoweringContext
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.modules import SiteValues
    from pemlang.tensorfiles.safetensors import TensorEntry


@dataclass(frozen=True, eq=False, repr=False)
class WholeWeights(AdapterNode):
    """The weights of a model as a vector: what it adds to a model of zeros."""

    kind = "whole_weights"

    model: ModelNode

    @property
    def args(self) -> tuple[TensorsNode, ...]:
        return (self.model,)

    def rebuilt(self, new: Rebuilding) -> Node:
        return weights_of(new.graph, new.node(self.model))

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        return args[self.model]

    @property
    def steady(self) -> bool:
        return True

    def formula(self, write: Formula) -> str:
        return write.inner(self.model)

    @property
    def title(self) -> str:
        return "weights"

    def invariant(self) -> None:
        assert self.shapes == self.model.shapes
        assert not isinstance(self.model, Point), "the weights of weights"


@dataclass(frozen=True, eq=False, repr=False)
class Point(ModelNode):
    """A model by its weights.

    Attributes:
        weights: all of them.
        like: the model that it has all else from.
    """

    kind = "point"

    weights: AdapterNode
    like: ModelNode

    @property
    def args(self) -> tuple[TensorsNode, ...]:
        return (self.weights, self.like)

    @property
    def whose(self) -> ModelNode:
        return self.like

    def entry(self, site: str) -> TensorEntry:
        return self.like.entry(site)

    def rebuilt(self, new: Rebuilding) -> Node:
        return _point(new.graph, self.type, new.adapter(self.weights), new.node(self.like))

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        weights = args[self.weights]
        return weights or DENSE.zeros(ctx.builder, self.shapes[ctx.site], 0, 1.0)

    @property
    def steady(self) -> bool:
        return True

    def formula(self, write: Formula) -> str:
        return write.value(self.weights)

    @property
    def title(self) -> str:
        return "model"

    def invariant(self) -> None:
        assert self.shapes == self.weights.shapes == self.like.shapes
        assert not isinstance(self.weights, WholeWeights), "the model of a model's weights"


def weights_of(graph: Graph, model: ModelNode) -> AdapterNode:
    """All weights of a model as a vector. Law: the weights of the model of some weights are
    those."""
    if isinstance(model, Point):
        return model.weights
    return graph.add(WholeWeights(AdapterType(model.type.base, model.shapes), model))


def _point(graph: Graph, type_: ModelType, weights: AdapterNode, like: ModelNode) -> ModelNode:
    """Law: the model of the weights of a model is that model."""
    if isinstance(weights, WholeWeights):
        return weights.model
    return graph.add(Point(type_, weights, like))


# --- the type rule ---------------------------------------------------------------------------

_OF_MODELS = {"adapter": "model", "[adapter]": "[model]"}


def of_models(signature: Signature) -> Signature:
    """The signature of an operator on models: what its rule makes of their weights."""
    params = tuple(_of_models(param) for param in signature.params)
    return Signature(params, "model", _on_points(signature.rule))


def _of_models(param: Parameter) -> Parameter:
    return replace(param, kinds=tuple(_OF_MODELS.get(kind, kind) for kind in param.kinds))


def _on_points(rule: Callable[..., Result]) -> Callable[..., Result]:
    def on_points(ctx: Context, *given: object) -> ModelNode:
        models = [x for value in given for x in _listed(value) if isinstance(x, ModelNode)]
        for index, model in enumerate(models[1:], 1):
            texts = (ctx.items or ctx.texts)[:1] + (ctx.items or ctx.texts)[index : index + 1]
            same_tensors(Context(ctx.graph, texts, ctx.what), models[0], model)
        weights = rule(ctx, *(_as_weights(ctx.graph, value) for value in given))
        assert isinstance(weights, AdapterNode)
        _hold_sum(ctx, weights)
        base = next((x.type.base for x in models if x.type.base is not None), None)
        type_ = ModelType(base, weights.shapes)
        return _point(ctx.graph, type_, weights, models[0])

    return on_points


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, tuple) else (value,)


def _as_weights(graph: Graph, value: object) -> object:
    if isinstance(value, tuple):
        return tuple(_as_weights(graph, item) for item in value)
    return weights_of(graph, value) if isinstance(value, ModelNode) else value


def _hold_sum(ctx: Context, weights: AdapterNode) -> None:
    """Raise PEM0303 for a sum of models that is no mean of them."""
    if not isinstance(weights, Sum):
        return
    terms = weights.as_sum()
    for site in weights.shapes:
        here = [at(coef, site) for x, coef in terms.items() if site in x.shapes]
        exact = [number for number in here if isinstance(number, Fraction)]
        if len(exact) == len(here) and sum(exact) != 1:
            raise Fault(
                "PEM0303",
                f"models are points: a sum of them is one only where the weights sum to 1, and "
                f"here they sum to {float(sum(exact)):g}",
                ctx.having("normalize", "true"),
            )
