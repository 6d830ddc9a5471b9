"""Operators that change the parameters of a LoRA and keep what it does: `pad`, `rescale`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.graph.lowering import LoweringContext
from pemlang.graph.node import AdapterNode, Node, Num, Part, TensorsNode
from pemlang.modules import SiteValues
from pemlang.modules.lora import padded, rescaled
from pemlang.ops.agree import need_pair, same_space
from pemlang.ops.compress import COMPRESS
from pemlang.ops.ranks import whole_rank
from pemlang.ops.record import Context, Operator, Parameter, Section, Signature, register

if TYPE_CHECKING:
    from pemlang.graph.difference import Difference
    from pemlang.graph.formula import Formula
    from pemlang.graph.rebuild import Rebuilding

# --- pad -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Pad(AdapterNode):
    """The same function at a higher rank.

    Attributes:
        x: of what; no other pad.
        rank: the rank.
    """

    kind = "pad"

    x: AdapterNode
    rank: int

    @property
    def args(self) -> tuple[AdapterNode, ...]:
        return (self.x,)

    def parts(self) -> tuple[Part, ...]:
        return (self.rank,)

    def rebuilt(self, new: Rebuilding) -> Node:
        return new.graph.add(Pad(self.type, new.adapter(self.x), self.rank))

    def _ranks(self) -> Mapping[str, int]:
        ranked = dict.fromkeys(self.type.ranked_shapes, self.rank)
        return {**dict.fromkeys(self.shapes, 0), **ranked}

    def _scales(self) -> Mapping[str, float]:
        return self.x.scales

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        part = args[self.x]
        if part is None:
            return ctx.zeros(self, self.rank, self.scales.get(ctx.site, 1.0))
        return padded(ctx.builder, part, self.rank)

    @property
    def steady(self) -> bool:
        return True

    @property
    def rows_in_order(self) -> bool:
        return self.x.rows_in_order

    def formula(self, write: Formula) -> str:
        return write.call("pad", [write.value(self.x)], [("rank", self.rank)])

    def differ(self, old: Node, new: Node, write: Difference) -> list[str] | None:
        if isinstance(old, Pad) and isinstance(new, Pad):
            return write.values(old.x, new.x) or None
        return None

    @property
    def title(self) -> str:
        return f"pad to rank {self.rank}"

    @property
    def pictured(self) -> Node:
        return self.x

    @property
    def at_most(self) -> bool:
        return False

    def invariant(self) -> None:
        assert not isinstance(self.x, Pad), "a pad in a pad"
        assert all(rank <= self.rank for rank in self.x.ranks.values())
        ranks = [self.x.ranks[site] for site in self.type.ranked_shapes]
        assert self.x.at_most or min(ranks) < self.rank, "a pad of nothing"


def _pad(ctx: Context, x: AdapterNode, rank: Num) -> AdapterNode:
    need_pair(x, "pad", ctx.text(0))
    wanted = whole_rank(rank, "rank")
    above = [site for site, rank_there in x.ranks.items() if rank_there > wanted]
    if above:
        raise Fault(
            "PEM0315",
            f"`{ctx.text(0)}` has rank {x.ranks[above[0]]} at {visible(above[0])}: "
            f"pad cannot bring it to {wanted}",
            _called(ctx, "compress") or f"cut it with compress(x, rank={wanted})",
        )
    if not x.at_most and all(x.ranks[site] == wanted for site in x.type.ranked_shapes):
        return x
    # Law: pad(pad(x, k), m) = pad(x, m).
    return ctx.graph.add(Pad(x.type, x.x if isinstance(x, Pad) else x, wanted))


def _called(ctx: Context, name: str) -> str | None:
    """The call, of another function."""
    function = ctx.use.function if ctx.use is not None else None
    return ctx.use.replaced([(function, name)]) if ctx.use and function else None


PAD = Operator(
    name="pad",
    signatures=(
        Signature((Parameter("x", ("adapter",)), Parameter("rank", ("number",))), "adapter", _pad),
    ),
    summary="The same function at a higher rank: zero rows in A, zero columns in B.",
    formula="Δ = Δx",
    laws=("pad(x, rank=rank of x) = x", "pad(pad(x, k), m) = pad(x, m)"),
    reference=lambda x: x,
    acts_on="delta",
)


# --- rescale -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Rescale(AdapterNode):
    """The same function at other scales.

    Attributes:
        x: of what; no other rescale.
        wanted: the scale at each site, in name order.
    """

    kind = "rescale"

    x: AdapterNode
    wanted: tuple[tuple[str, float], ...]

    @property
    def args(self) -> tuple[AdapterNode, ...]:
        return (self.x,)

    def parts(self) -> tuple[Part, ...]:
        return (self.wanted,)

    def rebuilt(self, new: Rebuilding) -> Node:
        return new.graph.add(Rescale(self.type, new.adapter(self.x), self.wanted))

    def _ranks(self) -> Mapping[str, int]:
        return self.x.ranks

    def _scales(self) -> Mapping[str, float]:
        return dict(self.wanted)

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        part = args[self.x]
        scale = self.scales.get(ctx.site, 1.0)
        return None if part is None else rescaled(ctx.builder, part, scale)

    @property
    def rows_in_order(self) -> bool:
        return self.x.rows_in_order

    def formula(self, write: Formula) -> str:
        scales = sorted({scale for _, scale in self.wanted})
        to = f"{scales[0]:g}" if len(scales) == 1 else f"{scales[0]:g} … {scales[-1]:g}"
        return f"rescale({write.value(self.x)} to scale {to})"

    def differ(self, old: Node, new: Node, write: Difference) -> list[str] | None:
        if isinstance(old, Rescale) and isinstance(new, Rescale):
            return write.values(old.x, new.x) or None
        return None

    @property
    def pictured(self) -> Node:
        return self.x

    def invariant(self) -> None:
        assert not isinstance(self.x, Rescale), "a rescale in a rescale"
        assert any(x != self.x.scales[site] for site, x in self.wanted), "a rescale to itself"


def _rescale(ctx: Context, x: AdapterNode, like: AdapterNode) -> AdapterNode:
    need_pair(x, "rescale", ctx.text(0))
    type_ = same_space(ctx, x, like)
    wanted = {site: float(like.scales[site]) for site in type_.ranked_shapes}
    if wanted == _ranked_scales(x):
        return x
    zero = [site for site, scale in wanted.items() if scale == 0]
    if zero:
        raise Fault(
            "PEM0312",
            f"`{ctx.text(1)}` has scale 0 at {visible(zero[0])}: nothing can be written at it",
            "rescale like an adapter whose lora_alpha is not 0",
        )
    # Law: rescale(rescale(x, …), like=y) = rescale(x, like=y).
    inner = x.x if isinstance(x, Rescale) else x
    if wanted == _ranked_scales(inner):
        return inner
    return ctx.graph.add(Rescale(type_, inner, tuple(sorted(wanted.items()))))


def _ranked_scales(x: AdapterNode) -> dict[str, float]:
    return {site: x.scales[site] for site in x.type.ranked_shapes}


RESCALE = Operator(
    name="rescale",
    signatures=(
        Signature(
            (Parameter("x", ("adapter",)), Parameter("like", ("adapter",))), "adapter", _rescale
        ),
    ),
    summary="The same function at another adapter's scale: the ratio of the scales moves into B.",
    formula="(A, B, s) → (A, B·s/s′, s′)",
    laws=("rescale(x, like=x) = x",),
    reference=lambda x, _: x,
    acts_on="delta",
)

register(
    Section(
        "Ranks and scales",
        "The same function, or nearly, by other factors.",
        (COMPRESS, PAD, RESCALE),
    )
)
