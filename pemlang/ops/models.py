"""Models are points, adapters are vectors: a difference of models is an adapter, and a model and
an adapter are a model."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.graph.dag import Graph
from pemlang.graph.formula import count
from pemlang.graph.node import AdapterNode, ModelNode, Node, TensorsNode
from pemlang.graph.normal import linear, make_sum
from pemlang.graph.types import AdapterType
from pemlang.modules import Shapes, SiteShape, SiteValues
from pemlang.modules.dense import DENSE
from pemlang.ops.mend import operand
from pemlang.ops.record import Context, kind_of
from pemlang.ops.vocabulary import apart

if TYPE_CHECKING:
    from pemlang.graph.formula import Formula
    from pemlang.graph.lowering import LoweringContext
    from pemlang.graph.node import Num
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.ops.schedule import Schedule
    from pemlang.tensorfiles.safetensors import TensorEntry


@dataclass(frozen=True, eq=False, repr=False)
class Bake(ModelNode):
    """model + adapter, where the adapter has tensors of the model's own."""

    kind = "bake"
    compound = True

    model: ModelNode
    adapter: AdapterNode

    @property
    def args(self) -> tuple[TensorsNode, ...]:
        return (self.model, self.adapter)

    @property
    def whose(self) -> ModelNode:
        return self.model

    def entry(self, site: str) -> TensorEntry:
        return self.model.entry(site)

    def rebuilt(self, new: Rebuilding) -> Node:
        return baked(new.graph, new.node(self.model), new.adapter(self.adapter))

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        weights, change = args[self.model], args[self.adapter]
        assert weights is not None
        if change is None:
            return weights
        return DENSE.total(ctx.builder, [(1.0, weights), (1.0, change)], 1.0)

    @property
    def steady(self) -> bool:
        return True

    def formula(self, write: Formula) -> str:
        return f"{write.inner(self.model)} + {write.inner(self.adapter)}"

    @property
    def title(self) -> str:
        return "model + adapter"

    def invariant(self) -> None:
        assert self.adapter.type.kinds in ((), (DENSE.name,))
        assert all(self.shapes.get(site) == shape for site, shape in self.adapter.shapes.items())
        assert not isinstance(self.model, Bake), "a bake of a bake"


@dataclass(frozen=True, eq=False, repr=False)
class TaskVector(AdapterNode):
    """tuned − base."""

    kind = "task_vector"
    compound = True

    tuned: ModelNode
    base: ModelNode

    @property
    def args(self) -> tuple[TensorsNode, ...]:
        return (self.tuned, self.base)

    def rebuilt(self, new: Rebuilding) -> Node:
        return difference(new.graph, self.type, new.node(self.tuned), new.node(self.base))

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        tuned, base = args[self.tuned], args[self.base]
        assert tuned is not None and base is not None
        return DENSE.total(ctx.builder, [(1.0, tuned), (-1.0, base)], 1.0)

    @property
    def steady(self) -> bool:
        return True

    def formula(self, write: Formula) -> str:
        return f"{write.inner(self.tuned)} − {write.inner(self.base)}"

    @property
    def title(self) -> str:
        return "task vector"

    def invariant(self) -> None:
        assert self.type.kinds == (DENSE.name,)
        assert self.tuned.type.shapes == self.base.type.shapes == self.shapes
        assert self.tuned is not self.base, "x − x, which is zero"


def baked(graph: Graph, model: ModelNode, x: AdapterNode) -> ModelNode:
    """The node of model + adapter. Laws: m + 0 = m; (m + x) + y = m + (x + y), whole tensors before
    factors; b + (m − b) = m; m − (m − b) + x = b + x."""
    within = model.within(graph, lambda inner: baked(graph, inner, x))
    if within is not None:
        return within
    if isinstance(model, Bake):
        shapes = Shapes({**model.adapter.shapes, **x.shapes})
        type_ = AdapterType(x.type.base, shapes)
        x = linear(graph, type_, [(Fraction(1), model.adapter), (Fraction(1), x)])
        model = model.model
    terms = x.as_sum()
    back = next((t for t in terms if isinstance(t, TaskVector) and t.tuned is model), None)
    if back is not None and terms.pop(back) == -1 and back.shapes == x.shapes:
        model, x = back.base, make_sum(graph, x.type, terms)
    if not x.as_sum():
        return model
    if isinstance(x, TaskVector) and x.base is model:
        return x.tuned
    return graph.add(Bake(model.type, model, x))


def difference(graph: Graph, type_: AdapterType, x: ModelNode, y: ModelNode) -> AdapterNode:
    """The node of model − model. Laws: m − m = 0; (m + x) − m = x."""
    if x is y:
        return make_sum(graph, type_, {})
    if isinstance(x, Bake) and x.model is y:
        return linear(graph, type_, [(Fraction(1), x.adapter)])
    return graph.add(TaskVector(type_, x, y))


# --- type rules ------------------------------------------------------------------------------


def bake(ctx: Context, model: ModelNode, x: AdapterNode) -> ModelNode:
    """The node of model + adapter, which has tensors of the model's own.

    Raises:
        Fault: as hold_base; PEM0306 and PEM0307 the model has no tensor that the
            adapter changes, or one of another shape.
    """
    hold_base(ctx, model, x)
    point, vector = model.type, x.type
    missing = [site for site in vector.shapes if site not in point.shapes]
    if missing:
        raise Fault(
            "PEM0306",
            f"`{ctx.text(1)}` changes {count(len(missing), 'tensor')} that `{ctx.text(0)}` does "
            f"not have: {listed(missing)}",
            "add an adapter of this model",
        )
    _same_shapes(ctx, {site: point.shapes[site] for site in vector.shapes}, vector.shapes)
    return baked(ctx.graph, model, x)


def hold_base(ctx: Context, model: ModelNode, x: AdapterNode) -> None:
    """Raise PEM0305 for an adapter of another base."""
    point, vector = model.type, x.type
    if point.base is not None and vector.base is not None and point.base != vector.base:
        raise Fault(
            "PEM0305",
            f"`{ctx.text(0)}` is of the base {visible(point.base)!r}, `{ctx.text(1)}` belongs to "
            f"{visible(vector.base)!r}",
            "add an adapter of this model",
        )


def task_vector(ctx: Context, x: ModelNode, y: ModelNode) -> AdapterNode:
    """The node of model − model; raises PEM0307 as same_tensors."""
    same_tensors(ctx, x, y)
    left, right = x.type, y.type
    base = left.base if left.base is not None else right.base
    return difference(ctx.graph, AdapterType(base, left.shapes), x, y)


def same_tensors(ctx: Context, x: ModelNode, y: ModelNode) -> None:
    """Hold two models to have tensors of the same names and shapes; raises PEM0307."""
    if x.shapes != y.shapes:
        raise apart(ctx, x, y)


def _same_shapes(
    ctx: Context, left: Mapping[str, SiteShape], right: Mapping[str, SiteShape]
) -> None:
    """Raise PEM0307 for the first tensor that has two shapes."""
    differ = [site for site in left if left[site] != right[site]]
    if differ:
        first = differ[0]
        raise Fault(
            "PEM0307",
            f"{visible(first)} is {left[first]} in `{ctx.text(0)}` and {right[first]} in "
            f"`{ctx.text(1)}`",
            "add a difference of models of this architecture, each with the tokens of this one: "
            f"m[like {ctx.text(0)}]",
            (f"{len(differ)} tensors differ so",) if len(differ) > 1 else (),
        )


def points_do_not_add(ctx: Context, x: ModelNode, y: ModelNode) -> ModelNode:
    """Raise PEM0303."""
    raise Fault(
        "PEM0303",
        "models are points: they do not add",
        _halfway(ctx) if x.type.shapes == y.type.shapes else "give one model and adapters of it",
        ("a difference of models is an adapter, and adapters add to models: this is halfway",),
    )


def _halfway(ctx: Context) -> str:
    """The sum of two models with their difference, halved, in the place of the second."""
    halfway = None
    if ctx.use is not None:
        first, second = operand(ctx.use.text(0)), operand(ctx.use.text(1))
        halfway = ctx.use.replaced([(ctx.use.operands[1][0], f"0.5 * ({second} - {first})")])
    return halfway or "add half of their difference to the first"


def points_do_not_scale(
    ctx: Context, x: ModelNode | Num | Schedule, y: ModelNode | Num | Schedule
) -> ModelNode:
    """Raise PEM0303."""
    model = operand(ctx.text(0 if kind_of(x) == "model" else 1))
    raise Fault(
        "PEM0303",
        "models are points: they do not scale",
        f"scale what it adds to its base: b + 0.5 * ({model} - b)"
        if model != "b"
        else "scale what a model adds to it: b + 0.5 * (m - b)",
        ("a difference of models is an adapter, and adapters scale",),
    )
