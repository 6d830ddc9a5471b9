"""`compress`: the best LoRA of a rank, of a LoRA or of a task vector."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.transformers import stored_as
from pemlang.graph.leaves import Model, combined_leaves
from pemlang.graph.lowering import LoweringContext, Truncation
from pemlang.graph.node import AdapterNode, Node, Num, Part, TensorsNode
from pemlang.graph.numbers import shown
from pemlang.graph.types import AdapterType
from pemlang.modules import PARAMETRISATIONS, Shapes, SiteShape, SiteValues
from pemlang.modules.dense import DENSE, lora_of_weight
from pemlang.modules.lora import LORA, truncated
from pemlang.ops.agree import need_factors
from pemlang.ops.mend import operand
from pemlang.ops.ranks import hold_rank, room_for, unmeasured, whole_rank
from pemlang.ops.record import Context, Operator, Parameter, Signature

if TYPE_CHECKING:
    from pemlang.graph.difference import Difference
    from pemlang.graph.formula import Formula
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.kernels.builder import Value


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
        top = {site: self._limit(shape) for site, shape in self.shapes.items()}
        own = {site: min(self.x.ranks[site], top[site]) for site in top if self._stays(site)}
        return {**top, **own}

    def _stays(self, site: str) -> bool:
        """Whether a site is of the kind that it was."""
        return self.x.shapes.get(site) == self.shapes[site]

    def _limit(self, shape: SiteShape) -> int:
        """The most that a site of a shape gets: a rank is an upper bound."""
        if not PARAMETRISATIONS[shape.kind].ranked:
            return 0
        return shape.full_rank if self.rank is None else room_for(self.rank, shape)

    def _scales(self) -> Mapping[str, float]:
        own = {site: x for site, x in self.x.scales.items() if self._stays(site)}
        return {**dict.fromkeys(self.shapes, 1.0), **own}

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        where = ctx.site if ctx.site in self.x.shapes else tensor_of(ctx.site)
        part = args[self.x] if where == ctx.site else ctx.at(self.x, where)
        if part is None or not self.type.record(ctx.site).factored:
            return part
        rank = self._limit(self.shapes[ctx.site])
        if self.energy is not None:
            rank = ctx.rank(self.x, where, float(self.energy))
        if not self._stays(ctx.site):
            return self._factorised(ctx, part, rank)
        if part.rank <= rank:
            cost = ctx.builder.whole(part.values[0], part.values[1], part.scale)
            ctx.truncations[self] = Truncation(cost, 0)
            return part
        cut, cost = truncated(ctx.builder, part, rank)
        ctx.truncations[self] = Truncation(cost, part.rank - rank)
        return cut

    def _factorised(self, ctx: LoweringContext, part: SiteValues, rank: int) -> SiteValues:
        """The factors of a matrix, which is stored transposed where it is an embedding's."""
        [x], shape = part.values, self.shapes[ctx.site]
        rank = min(rank, shape.full_rank)
        turned = _stored_as(self.x, tensor_of(ctx.site)) != "linear"
        kernel = len(x.shape) > 2
        if kernel:
            flat = (x.shape[0], math.prod(x.shape[1:]))
            x = ctx.builder.einsum(*_reshaped(x), flat)
        a, b, cost = ctx.builder.factorised(x, rank, turned)
        ctx.truncations[self] = Truncation(cost, shape.full_rank - rank)
        if kernel:
            factors = zip((a, b), LORA.shapes(shape, rank), strict=True)
            a, b = (ctx.builder.einsum(*_reshaped(y), size) for y, size in factors)
        return SiteValues(LORA, (a, b))

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
        if self.rank is not None and self.shapes == self.x.shapes:
            assert any(rank > self.ranks[site] for site, rank in self.x.ranks.items())


def compress(
    ctx: Context, x: AdapterNode, rank: Num | None = None, energy: Num | None = None
) -> AdapterNode:
    """The node of x cut to a rank or an energy.

    Laws: cutting to a rank that neither x nor min(out, in) is below is x; so
    compress(compress(x, k), m) is compress(x, k) for m ≥ k. Biases and norms of modules stay.
    """
    if (rank is None) == (energy is None):
        raise Fault(
            "PEM0313",
            f"{ctx.what} takes either a rank or an energy",
            "leave one of them out"
            if rank is not None
            else f"give one, as in compress({ctx.text(0)}, rank=16)",
        )
    type_ = _with_loras(x.type)
    if _has_tensors(x.shapes):
        type_ = _matrices_only(ctx, x)
    elif not type_.has_factors or type_ == x.type:
        what = "compress" if ctx.what == "compress" else "save … with rank or energy"
        need_factors(x, what, ctx.text(0), everywhere=False)
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
    hold_rank(ctx, limit, type_.ranked_shapes)
    same = type_ == x.type
    cut = x.cut(ctx.graph, limit) if same else None
    if cut is not None:
        return cut
    shapes = type_.ranked_shapes
    if same and all(x.ranks[s] <= room_for(limit, shapes[s]) for s in shapes):
        return x
    return ctx.graph.add(Compress(type_, x, limit, None))


def tensor_of(module: str) -> str:
    """The tensor of a model that a LoRA of one of its modules changes."""
    return f"{module}.weight"


def _stored_as(x: AdapterNode, tensor: str) -> str:
    """How the models that a task vector is made of store a matrix."""
    models = [leaf.adapter for leaf in combined_leaves(x) if isinstance(leaf, Model)]
    return stored_as(models[0], tensor) if models else "linear"


def _has_tensors(shapes: Shapes) -> bool:
    """Whether what is cut are tensors of a model, and no modules with biases beside them."""
    tensors = [site for site in shapes.modules if shapes[site].layer == DENSE.name]
    matrices = any(len(shapes[site].a) > 1 for site in tensors)
    return matrices or 0 < len(tensors) == len(shapes.modules)


def _reshaped(x: Value) -> tuple[str, tuple[Value]]:
    """A tensor, and the subscripts of an einsum that leaves its numbers as they are."""
    axes = "oihwd"[: len(x.shape)]
    return f"{axes}->{axes}", (x,)


def _with_loras(type_: AdapterType) -> AdapterType:
    """The type with a LoRA in the place of each whole weight of a module."""
    new = {site: lora_of_weight(shape) or shape for site, shape in type_.shapes.items()}
    return replace(type_, shapes=Shapes(new)) if new != dict(type_.shapes) else type_


def _matrices_only(ctx: Context, x: AdapterNode) -> AdapterType:
    """The LoRA type of a compressed task vector: all its tensors must be matrices."""
    type_ = x.type
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
    shapes = {}
    for site, (_, _, (rows, columns), _) in type_.shapes.items():
        how = _stored_as(x, site)
        out, in_ = (rows, columns) if how == "linear" else (columns, rows)
        layer = "embedding" if how == "embedding" else "linear"
        shapes[site.removesuffix(".weight")] = SiteShape(LORA.name, layer, (in_,), (out,))
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
