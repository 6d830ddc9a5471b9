"""Operators that change the parameters of a LoRA and keep what it does, or most of it:
`compress`, `pad`, `rescale`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from pemlang.diagnostics import Fault, listed, visible
from pemlang.graph.node import AdapterType, Node, Num
from pemlang.graph.normal import adapter_type
from pemlang.graph.numbers import shown
from pemlang.modules.sites import Shapes, SiteShape
from pemlang.ops.agree import need_method, operand, same_space
from pemlang.ops.record import (
    NODE_KINDS,
    Context,
    Cut,
    NodeKind,
    Operator,
    Param,
    Run,
    Signature,
    node_kind,
    ranks,
    scales,
)

if TYPE_CHECKING:
    from pemlang.modules.factors import Factors

MAX_RANK = 1 << 20


def unmeasured(value: Num, what: str) -> Fraction:
    """A number that decides shapes; raises PEM0314 when it is measured."""
    if isinstance(value, Node):
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
        raise Fault("PEM0312", f"{what} is {shown(rank)}, not {whole}", f"{what}=16")
    return int(rank)


# --- compress ------------------------------------------------------------------------------


def compress(ctx: Context, x: Node, rank: Num | None = None, energy: Num | None = None) -> Node:
    """The node of x cut to a rank or an energy.

    Laws: cutting to a rank that x does not exceed is x; so compress(compress(x, k), m) is
    compress(x, k) for m ≥ k.
    """
    if (rank is None) == (energy is None):
        raise Fault(
            "PEM0313",
            f"{ctx.what} takes either a rank or an energy",
            "with energy=0.99"
            if ctx.what == "save"
            else f"compress({ctx.text(0)}, rank=16) or compress({ctx.text(0)}, energy=0.99)",
        )
    type_ = adapter_type(x)
    if type_.method == "dense":
        type_ = _matrices_only(ctx, type_)
    else:
        what = "compress" if ctx.what == "compress" else "save … with rank or energy"
        need_method(x, "lora", what, ctx.text(0))
    if energy is not None:
        if not 0 < unmeasured(energy, "energy") <= 1:
            raise Fault(
                "PEM0312",
                f"energy is {shown(energy)}, not a number above 0 and at most 1",
                "energy=0.99",
                ("energy=0.99 keeps 99 % of the squared norm",),
            )
        return ctx.graph.add("compress", (x,), (None, energy), type_)
    assert rank is not None
    limit = whole_rank(rank, "rank")
    over = [site for site, shape in type_.shapes.items() if limit > shape.full_rank]
    if over:
        least = min(type_.shapes[site].full_rank for site in over)
        raise Fault(
            "PEM0310",
            f"rank {limit} is above min(out, in) at {listed(over)}",
            f"rank={least}",
            (f"{visible(over[0])} is {type_.shapes[over[0]]}",),
        )
    if adapter_type(x).method == "lora" and all(r <= limit for r in ranks(x).values()):
        return x
    return NODE_KINDS[x.op].cut(ctx.graph, x, limit) or ctx.graph.add(
        "compress", (x,), (limit, None), type_
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
        site.removesuffix(".weight"): SiteShape("linear", shape.a[1:], shape.a[:1])
        for site, shape in type_.shapes.items()
    }
    return replace(type_, method="lora", shapes=Shapes(shapes))


def _select_matrices(text: str, matrices: Sequence[str]) -> str | None:
    ends = sorted({".".join(site.split(".")[-2:]) for site in matrices})
    patterns = ", ".join(f'"*{visible(end)}"' for end in ends)
    return f"select the matrices: {operand(text)}[{patterns}]" if ends else None


def _compress_ranks(node: Node) -> Mapping[str, int]:
    limit = node.attrs[0]
    shapes = adapter_type(node).shapes
    if adapter_type(node.args[0]).method == "dense":
        return {site: limit or shape.full_rank for site, shape in shapes.items()}
    top = {site: limit or shape.full_rank for site, shape in shapes.items()}
    return {site: min(rank, top[site]) for site, rank in ranks(node.args[0]).items()}


def _compress_scales(node: Node) -> Mapping[str, float]:
    if adapter_type(node.args[0]).method == "dense":
        return dict.fromkeys(adapter_type(node).shapes, 1.0)
    return scales(node.args[0])


def _lower_compress(
    run: Run, node: Node, site: str, args: Mapping[Node, Factors | None]
) -> Factors | None:
    from pemlang.modules.factors import truncated

    part = args[node.args[0]]
    limit, energy = node.attrs
    if part is None:
        return None
    rank = run.rank(node.args[0], float(energy)) if limit is None else limit
    if part.rank <= rank:
        cost = run.builder.whole(part.a, part.out, part.scale)
        run.cuts[node] = Cut(cost, 0)
        return part
    found, cost = truncated(run.builder, part, rank)
    run.cuts[node] = Cut(cost, part.rank - rank)
    return found


COMPRESS = Operator(
    name="compress",
    signatures=(
        Signature(
            (
                Param("x", ("adapter",)),
                Param("rank", ("number",), None),
                Param("energy", ("number",), None),
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

node_kind(
    NodeKind(
        "compress",
        _compress_ranks,
        _compress_scales,
        _lower_compress,
        lambda node: node.attrs[1] is None,  # an energy decides on a rank site by site
    )
)


# --- pad -----------------------------------------------------------------------------------


def _pad(ctx: Context, x: Node, rank: Num) -> Node:
    need_method(x, "lora", "pad", ctx.text(0))
    wanted = whole_rank(rank, "rank")
    above = [site for site, found in ranks(x).items() if found > wanted]
    if above:
        raise Fault(
            "PEM0315",
            f"`{ctx.text(0)}` has rank {ranks(x)[above[0]]} at {visible(above[0])}: "
            f"pad cannot bring it to {wanted}",
            f"compress({ctx.text(0)}, rank={wanted})",
        )
    if all(found == wanted for found in ranks(x).values()):
        return x
    # Law: pad(pad(x, k), m) = pad(x, m).
    inner = x.args[0] if x.op == "pad" else x
    return ctx.graph.add("pad", (inner,), (wanted,), adapter_type(x))


def _pad_ranks(node: Node) -> Mapping[str, int]:
    return dict.fromkeys(adapter_type(node).shapes, int(node.attrs[0]))


def _lower_pad(run: Run, node: Node, site: str, args: Mapping[Node, Factors | None]) -> Factors:
    from pemlang.modules.factors import padded, zeros

    part, rank = args[node.args[0]], node.attrs[0]
    if part is None:
        shape = adapter_type(node).shapes[site]
        return zeros(run.builder, shape.a, shape.b, rank, scales(node)[site])
    return padded(run.builder, part, rank)


PAD = Operator(
    name="pad",
    signatures=(
        Signature((Param("x", ("adapter",)), Param("rank", ("number",))), "adapter", _pad),
    ),
    summary="The same function at a higher rank: zero rows in A, zero columns in B.",
    formula="Δ = Δx",
    laws=("pad(x, rank=rank of x) = x", "pad(pad(x, k), m) = pad(x, m)"),
    reference=lambda x: x,
    acts_on="delta",
)

node_kind(
    NodeKind("pad", _pad_ranks, lambda node: scales(node.args[0]), _lower_pad, lambda node: True)
)


# --- rescale -------------------------------------------------------------------------------


def _rescale(ctx: Context, x: Node, like: Node) -> Node:
    need_method(x, "lora", "rescale", ctx.text(0))
    type_ = same_space(ctx, x, like)
    wanted = {site: float(scale) for site, scale in scales(like).items()}
    if wanted == scales(x):
        return x
    zero = [site for site, scale in wanted.items() if scale == 0]
    if zero:
        raise Fault(
            "PEM0312",
            f"`{ctx.text(1)}` has scale 0 at {visible(zero[0])}: nothing can be written at it",
            "rescale like an adapter whose lora_alpha is not 0",
        )
    # Law: rescale(rescale(x, …), like=y) = rescale(x, like=y).
    inner = x.args[0] if x.op == "rescale" else x
    if wanted == scales(inner):
        return inner
    return ctx.graph.add("rescale", (inner,), (tuple(sorted(wanted.items())),), type_)


def _lower_rescale(
    run: Run, node: Node, site: str, args: Mapping[Node, Factors | None]
) -> Factors | None:
    from pemlang.modules.factors import rescaled

    part = args[node.args[0]]
    return None if part is None else rescaled(run.builder, part, scales(node)[site])


RESCALE = Operator(
    name="rescale",
    signatures=(
        Signature((Param("x", ("adapter",)), Param("like", ("adapter",))), "adapter", _rescale),
    ),
    summary="The same function at another adapter's scale: the ratio of the scales moves into B.",
    formula="(A, B, s) → (A, B·s/s′, s′)",
    laws=("rescale(x, like=x) = x",),
    reference=lambda x, _: x,
    acts_on="delta",
)

node_kind(
    NodeKind(
        "rescale",
        lambda node: ranks(node.args[0]),
        lambda node: dict(node.attrs[0]),
        _lower_rescale,
    )
)

OPERATORS = (COMPRESS, PAD, RESCALE)
