"""Operators that change the parameters of a LoRA and keep what it does, or most of it:
`compress`, `pad`, `rescale`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.graph.lowering import LoweringContext, Truncation
from pemlang.graph.node import AdapterNode, Node, Num, NumberNode, Part
from pemlang.graph.numbers import shown
from pemlang.graph.types import AdapterType
from pemlang.modules import Shapes, SiteShape
from pemlang.modules.dense import DENSE
from pemlang.modules.lora import LORA, padded, rescaled, truncated
from pemlang.ops.agree import need_factors, same_space
from pemlang.ops.mend import operand
from pemlang.ops.record import Context, Operator, Parameter, Section, Signature, register

if TYPE_CHECKING:
    from pemlang.graph.difference import Difference
    from pemlang.graph.formula import Formula
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.modules import SiteValues

MAX_RANK = 1 << 20


def unmeasured(value: Num, what: str) -> Fraction:
    """A number that decides shapes; raises PEM0314 when it is measured."""
    if isinstance(value, NumberNode):
        raise Fault(
            "PEM0314",
            f"{what} is measured from weights, but has to be known before they are read",
            "write a number or a param",
        )
    return value


def whole_rank(value: Num, what: str) -> int:
    """A rank as a whole number of at least 1; raises PEM0312, or PEM0314 when it is measured."""
    rank = unmeasured(value, what)
    if rank.denominator != 1 or not 1 <= rank <= MAX_RANK:
        whole = f"a whole number from 1 to {MAX_RANK}"
        raise Fault(
            "PEM0312", f"{what} is {shown(rank)}, not {whole}", f"write one, as in {what}=16"
        )
    return int(rank)


# --- compress ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Compress(AdapterNode):
    """The best LoRA of a rank, or of the least rank that keeps a share of the squared norm.

    Attributes:
        x: of what.
        rank, energy: the one that is given.
    """

    kind = "compress"

    x: AdapterNode
    rank: int | None
    energy: Fraction | None

    @property
    def args(self) -> tuple[AdapterNode, ...]:
        return (self.x,)

    def parts(self) -> tuple[Part, ...]:
        return (self.rank, self.energy)

    def rebuilt(self, new: Rebuilding) -> Node:
        return new.graph.add(Compress(self.type, new.adapter(self.x), self.rank, self.energy))

    def _ranks(self) -> Mapping[str, int]:
        top = {site: self.rank or shape.full_rank for site, shape in self.shapes.items()}
        if not self.x.type.factored:
            return top
        return {site: min(rank, top[site]) for site, rank in self.x.ranks.items()}

    def _scales(self) -> Mapping[str, float]:
        return self.x.scales if self.x.type.factored else dict.fromkeys(self.shapes, 1.0)

    def lower(
        self, ctx: LoweringContext, args: Mapping[AdapterNode, SiteValues | None]
    ) -> SiteValues | None:
        part = args[self.x]
        if part is None:
            return None
        rank = ctx.rank(self.x, float(self.energy)) if self.energy is not None else self.rank
        assert rank is not None
        if part.rank <= rank:
            cost = ctx.builder.whole(part.values[0], part.values[1], part.scale)
            ctx.truncations[self] = Truncation(cost, 0)
            return part
        cut, cost = truncated(ctx.builder, part, rank)
        ctx.truncations[self] = Truncation(cost, part.rank - rank)
        return cut

    @property
    def steady(self) -> bool:
        return self.energy is None  # an energy decides on a rank site by site

    @property
    def bounded(self) -> bool:
        return self.energy is not None

    @property
    def is_cut(self) -> bool:
        return True

    @property
    def uncut(self) -> AdapterNode:
        return self.x

    @property
    def kept_energy(self) -> Fraction | None:
        return self.energy

    def differ(self, old: Node, new: Node, write: Difference) -> list[str] | None:
        if not (isinstance(old, AdapterNode) and isinstance(new, AdapterNode)):
            return None
        return write.values(old.uncut, new.uncut) + write.energies(old, new)

    def formula(self, write: Formula) -> str:
        by = ("rank", self.rank) if self.rank is not None else ("energy", self.energy)
        return write.call("compress", [write.value(self.x)], [by])

    @property
    def title(self) -> str:
        if self.rank is not None:
            return f"compress to rank {self.rank}"
        return f"compress to energy {self.energy}"

    @property
    def pictured(self) -> Node:
        return self.x

    def invariant(self) -> None:
        assert (self.rank is None) != (self.energy is None)
        if self.rank is not None and self.x.type.factored:
            assert any(rank > self.rank for rank in self.x.ranks.values())


def compress(
    ctx: Context, x: AdapterNode, rank: Num | None = None, energy: Num | None = None
) -> AdapterNode:
    """The node of x cut to a rank or an energy.

    Laws: cutting to a rank that x does not exceed is x; so compress(compress(x, k), m) is
    compress(x, k) for m ≥ k.
    """
    if (rank is None) == (energy is None):
        raise Fault(
            "PEM0313",
            f"{ctx.what} takes either a rank or an energy",
            "leave one of them out"
            if rank is not None
            else f"give one, as in compress({ctx.text(0)}, rank=16)",
        )
    type_ = x.type
    if type_.kinds == (DENSE.name,):
        type_ = _matrices_only(ctx, type_)
    else:
        what = "compress" if ctx.what == "compress" else "save … with rank or energy"
        need_factors(x, what, ctx.text(0))
    if energy is not None:
        share = unmeasured(energy, "energy")
        if not 0 < share <= 1:
            raise Fault(
                "PEM0312",
                f"energy is {shown(energy)}, not a number above 0 and at most 1",
                ctx.having("energy", shown(share / 100))
                if 1 < share <= 100
                else "write one, as in energy=0.99",
                ("energy=0.99 keeps 99 % of the squared norm",),
            )
        return ctx.graph.add(Compress(type_, x, None, share))
    assert rank is not None
    limit = whole_rank(rank, "rank")
    hold_rank(ctx, limit, type_.shapes)
    cut = x.cut(ctx.graph, limit)
    if cut is not None:
        return cut
    if x.type.factored and all(r <= limit for r in x.ranks.values()):
        return x
    return ctx.graph.add(Compress(type_, x, limit, None))


def hold_rank(ctx: Context, rank: int, shapes: Shapes) -> None:
    """Raise PEM0310 for a rank that a site has no room for."""
    above = [site for site, shape in shapes.items() if rank > shape.full_rank]
    if above:
        raise Fault(
            "PEM0310",
            f"rank {rank} is above min(out, in) at {listed(above)}",
            _within_room(ctx, rank, shapes, above),
            (f"{visible(above[0])} is {shapes[above[0]]}",),
        )


def _within_room(ctx: Context, rank: int, shapes: Shapes, above: Sequence[str]) -> str:
    """What to write instead of a rank that some sites have no room for: the most that they have,
    where that is the same for all; else it would cut each to what the smallest allows."""
    room = {shape.full_rank for shape in shapes.values()}
    if len(room) == 1:
        return ctx.having("rank", str(min(room)))
    least, names = min(room), sorted({site.rpartition(".")[2] for site in above})
    patterns = ", ".join(f'"*{visible(name)}"' for name in names[:4])
    return (
        f"a rank of {least} has room everywhere; for more elsewhere, cut x[{patterns}] apart from "
        "the rest, and join the two"
    )


def _matrices_only(ctx: Context, type_: AdapterType) -> AdapterType:
    """The LoRA type of a compressed task vector: all its tensors must be matrices."""
    others = [
        site
        for site, shape in type_.shapes.items()
        if len(shape.a) != 2 or not site.endswith(".weight")
    ]
    if others:
        raise Fault(
            "PEM0311",
            f"compress makes a LoRA, which changes matrices only; `{ctx.text(0)}` has "
            f"{listed(others)}",
            _select_matrices(ctx.text(0), [site for site in type_.shapes if site not in others]),
        )
    shapes = {
        site.removesuffix(".weight"): SiteShape(LORA.name, "linear", shape.a[1:], shape.a[:1])
        for site, shape in type_.shapes.items()
    }
    return replace(type_, shapes=Shapes(shapes))


def _select_matrices(text: str, matrices: Sequence[str]) -> str:
    ends = sorted({".".join(site.split(".")[-2:]) for site in matrices})
    patterns = ", ".join(f'"*{visible(end)}"' for end in ends)
    select = f"select the matrices: {operand(text)}[{patterns}]"
    return select if ends else "compress what changes matrices: this has none"


COMPRESS = Operator(
    name="compress",
    signatures=(
        Signature(
            (
                Parameter("x", ("adapter",)),
                Parameter("rank", ("number",), None),
                Parameter("energy", ("number",), None),
            ),
            "adapter",
            compress,
        ),
    ),
    summary="The best LoRA of a rank, or of the least rank that keeps a share of the squared norm.",
    formula="argmin ‖Δ − Δx‖ over rank(Δ) ≤ k at each site",
    laws=("compress(x, rank=k) = x where rank(x) ≤ k",),
    source="Eckart and Young 1936",
)


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
        return dict.fromkeys(self.shapes, self.rank)

    def _scales(self) -> Mapping[str, float]:
        return self.x.scales

    def lower(
        self, ctx: LoweringContext, args: Mapping[AdapterNode, SiteValues | None]
    ) -> SiteValues | None:
        part = args[self.x]
        if part is None:
            return ctx.zeros(self, self.rank, self.scales[ctx.site])
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
        assert self.x.at_most or any(rank < self.rank for rank in self.x.ranks.values()), (
            "a pad of nothing"
        )


def _pad(ctx: Context, x: AdapterNode, rank: Num) -> AdapterNode:
    need_factors(x, "pad", ctx.text(0))
    wanted = whole_rank(rank, "rank")
    above = [site for site, rank_there in x.ranks.items() if rank_there > wanted]
    if above:
        raise Fault(
            "PEM0315",
            f"`{ctx.text(0)}` has rank {x.ranks[above[0]]} at {visible(above[0])}: "
            f"pad cannot bring it to {wanted}",
            _called(ctx, "compress") or f"cut it with compress(x, rank={wanted})",
        )
    if not x.at_most and all(rank_there == wanted for rank_there in x.ranks.values()):
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
        self, ctx: LoweringContext, args: Mapping[AdapterNode, SiteValues | None]
    ) -> SiteValues | None:
        part = args[self.x]
        return None if part is None else rescaled(ctx.builder, part, self.scales[ctx.site])

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
        assert self.scales != self.x.scales, "a rescale to itself"


def _rescale(ctx: Context, x: AdapterNode, like: AdapterNode) -> AdapterNode:
    need_factors(x, "rescale", ctx.text(0))
    type_ = same_space(ctx, x, like)
    wanted = {site: float(scale) for site, scale in like.scales.items()}
    if wanted == x.scales:
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
    if wanted == inner.scales:
        return inner
    return ctx.graph.add(Rescale(type_, inner, tuple(sorted(wanted.items()))))


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
