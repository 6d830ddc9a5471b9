"""Type annotations with refinements, `lora(rank=16, targets=[…], dtype=bf16)`: checked, never
trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from pemlang.check.values import RecipeValue
from pemlang.diagnostics import Fault, listed, nearest, visible
from pemlang.formats.adapter import kinds_text
from pemlang.graph.leaves import combined_leaves
from pemlang.graph.node import AdapterNode, Node
from pemlang.graph.numbers import shown
from pemlang.syntax import tree as t
from pemlang.tensorfiles.dtypes import NAMES

REFINEMENTS = ("rank", "targets", "dtype")


def check_annotation(
    node: AdapterNode,
    kind: str,
    refinements: Mapping[str, RecipeValue],
    text: str,
    written: Sequence[str] = (),
) -> None:
    """Hold an adapter to its annotation, of which `written` has the refinements.

    Raises:
        Fault: PEM0316 when it is not as annotated.
    """
    kinds = node.type.kinds
    if kind != "adapter" and kinds != (kind,):
        is_kind = kinds[0] if len(kinds) == 1 else "adapter"
        kept = [each for each in written if node.type.ranked or not each.startswith("rank")]
        raise Fault(
            "PEM0316",
            f"`{text}` is annotated {kind}, it is {kinds_text(kinds)}",
            f"did you mean `{is_kind}({', '.join(kept)})`?"
            if kept
            else f"did you mean `{is_kind}`?",
        )
    for name, value in refinements.items():
        _HOLD[name](node, value, text)


def hold_refinement(refinement: t.NamedArg, given: Mapping[str, RecipeValue]) -> None:
    """Raise PEM0318 for a refinement that is given twice, PEM0340 for one that there is none of."""
    name = refinement.name
    if name in given:
        raise Fault("PEM0318", f"`{visible(name)}` is given twice", "leave one of them out")
    if name not in REFINEMENTS:
        close = nearest(name, REFINEMENTS)
        raise Fault(
            "PEM0340",
            f"a type has no refinement `{visible(name, 40)}`",
            f"did you mean `{close}`?" if close else f"refine by {', '.join(REFINEMENTS)}",
            place=refinement.name_span,
        )


def _hold_rank(node: AdapterNode, wanted: RecipeValue, text: str) -> None:
    if not isinstance(wanted, Fraction) or wanted.denominator != 1 or wanted < 1:
        message = "rank is not a whole number of at least 1"
        raise Fault("PEM0312", message, "write one, as in rank=16")
    if not node.type.ranked:
        raise Fault("PEM0316", f"`{text}` is not a LoRA: it has no rank", "remove rank=…")
    ranks = {site: node.ranks[site] for site in node.type.ranked_shapes}
    other = {site: rank for site, rank in ranks.items() if rank != wanted}
    if other:
        site, rank = next(iter(other.items()))
        everywhere = set(ranks.values()) == {rank}
        where = "" if everywhere else f" at {visible(site)}"
        raise Fault(
            "PEM0316",
            f"`{text}` is annotated rank {shown(wanted)}, it has rank {rank}{where}",
            f"write rank={rank}" if everywhere else "remove rank=…: the ranks differ by site",
        )


def _hold_targets(node: AdapterNode, wanted: RecipeValue, text: str) -> None:
    names = [item for item in wanted if isinstance(item, str)] if isinstance(wanted, tuple) else []
    if not isinstance(wanted, tuple) or len(names) < len(wanted):
        help = 'write them as in targets=["q_proj", "v_proj"]'
        raise Fault("PEM0301", "targets is a list of strings", help)
    sites = list(node.shapes)
    outside = [site for site in sites if not any(_ends_with(site, name) for name in names)]
    unused = [name for name in names if not any(_ends_with(site, name) for site in sites)]
    if outside or unused:
        does = f"changes {listed(outside)} too" if outside else f"does not change {listed(unused)}"
        has = sorted({site.rsplit(".", 1)[-1] for site in sites})
        named = ", ".join(f'"{visible(name)}"' for name in has)
        raise Fault(
            "PEM0316",
            f"`{text}` is annotated with targets {listed(names) or 'none'}, it {does}",
            f"write targets=[{named}]",
        )


def _ends_with(site: str, name: str) -> bool:
    """Whether a name is a site's, or the whole last parts of it."""
    return f".{site}".endswith(f".{name}")


def _hold_dtype(node: AdapterNode, wanted: RecipeValue, text: str) -> None:
    dtype = dtype_name(wanted)
    dtypes = sorted(dtypes_of(node))
    if dtypes not in ([dtype], []):  # a zero is of any dtype
        has = [name for name, spelt in NAMES.items() if spelt in dtypes]
        raise Fault(
            "PEM0316",
            f"`{text}` is annotated {wanted}, it is {' and '.join(has)}",
            f"write dtype={has[0]}" if len(has) == 1 else "remove dtype=…: the dtypes differ",
        )


_HOLD = {"rank": _hold_rank, "targets": _hold_targets, "dtype": _hold_dtype}


def dtypes_of(node: Node) -> set[str]:
    """The dtypes of the adapters a value is made from."""
    return {dtype for leaf in combined_leaves(node) for dtype in leaf.adapter.layout.dtypes}


def dtype_name(value: object) -> str:
    """The file dtype a recipe names; raises PEM0341."""
    if not isinstance(value, str) or value not in NAMES:
        close = nearest(str(value), NAMES)
        raise Fault(
            "PEM0341",
            f"there is no dtype `{visible(value, 40)}`",
            f"did you mean `{close}`?" if close else f"give one of {', '.join(NAMES)}",
        )
    return NAMES[value]
