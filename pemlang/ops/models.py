"""Models are points, adapters are vectors: a difference of models is an adapter, and a model and
an adapter are a model. They are typed here; nothing computes with whole weights yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.graph.node import AdapterNode, ModelNode, Node, Part
from pemlang.graph.types import AdapterType
from pemlang.modules.dense import DENSE
from pemlang.ops.mend import operand
from pemlang.ops.record import Context, kind_of

if TYPE_CHECKING:
    from pemlang.graph.formula import Formula
    from pemlang.graph.lowering import LoweringContext
    from pemlang.graph.node import Num
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.modules import SiteValues
    from pemlang.ops.schedule import Schedule


@dataclass(frozen=True, eq=False, repr=False)
class Model(ModelNode):
    """A model in files.

    Attributes:
        identity: what tells it from any other.
    """

    kind = "model"
    drawn_as = "adapter"

    identity: str

    def parts(self) -> tuple[Part, ...]:
        return (self.identity,)

    def rebuilt(self, new: Rebuilding) -> Node:
        return new.graph.add(self)

    def formula(self, write: Formula) -> str:
        return write.name(self)

    def invariant(self) -> None:
        pass


@dataclass(frozen=True, eq=False, repr=False)
class Bake(ModelNode):
    """model + adapter."""

    kind = "bake"
    compound = True

    model: ModelNode
    adapter: AdapterNode

    @property
    def args(self) -> tuple[Node, ...]:
        return (self.model, self.adapter)

    def rebuilt(self, new: Rebuilding) -> Node:
        return new.graph.add(Bake(self.type, new.node(self.model), new.adapter(self.adapter)))

    def formula(self, write: Formula) -> str:
        return f"{write.inner(self.model)} + {write.inner(self.adapter)}"

    @property
    def title(self) -> str:
        return "model + adapter"

    def invariant(self) -> None:
        pass


@dataclass(frozen=True, eq=False, repr=False)
class TaskVector(AdapterNode):
    """tuned − base."""

    kind = "task_vector"
    compound = True
    whole_models = True

    tuned: ModelNode
    base: ModelNode

    @property
    def args(self) -> tuple[Node, ...]:
        return (self.tuned, self.base)

    def rebuilt(self, new: Rebuilding) -> Node:
        return new.graph.add(TaskVector(self.type, new.node(self.tuned), new.node(self.base)))

    def _ranks(self) -> Mapping[str, int]:
        return {}

    def _scales(self) -> Mapping[str, float]:
        return {}

    def lower(
        self, ctx: LoweringContext, args: Mapping[AdapterNode, SiteValues | None]
    ) -> SiteValues | None:
        raise AssertionError("whole models are not computed with yet")

    def formula(self, write: Formula) -> str:
        return f"{write.inner(self.tuned)} − {write.inner(self.base)}"

    @property
    def title(self) -> str:
        return "task vector"

    def invariant(self) -> None:
        assert self.type.kinds == (DENSE.name,)
        assert self.tuned.type.shapes == self.base.type.shapes == self.shapes


# --- type rules ------------------------------------------------------------------------------


def bake(ctx: Context, model: ModelNode, x: AdapterNode) -> Bake:
    """The node of model + adapter; raises PEM0305 where the bases differ."""
    point, vector = model.type, x.type
    if point.base is not None and vector.base is not None and point.base != vector.base:
        raise Fault(
            "PEM0305",
            f"`{ctx.text(0)}` is of the base {visible(point.base)!r}, `{ctx.text(1)}` belongs to "
            f"{visible(vector.base)!r}",
            "add an adapter of this model",
        )
    return ctx.graph.add(Bake(point, model, x))


def task_vector(ctx: Context, x: ModelNode, y: ModelNode) -> TaskVector:
    """The node of model − model; raises PEM0307 where the architectures differ."""
    left, right = x.type, y.type
    if left.shapes != right.shapes:
        sites = {**left.shapes, **right.shapes}
        differ = [site for site in sites if left.shapes.get(site) != right.shapes.get(site)]
        raise Fault(
            "PEM0307",
            f"`{ctx.text(0)}` and `{ctx.text(1)}` are not the same architecture: "
            f"{listed(differ, 1)} differ",
            "subtract a model and the base it was tuned from",
        )
    return ctx.graph.add(TaskVector(AdapterType(left.base, left.shapes), x, y))


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
    model = ctx.text(0 if kind_of(x) == "model" else 1)
    raise Fault(
        "PEM0303",
        "models are points: they do not scale",
        f"scale what it adds to its base: b + 0.5 * ({operand(model)} - b)",
        ("a difference of models is an adapter, and adapters scale",),
    )
