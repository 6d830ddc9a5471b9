"""Type annotations with refinements, `lora(rank=16, targets=[…], dtype=bf16)`: checked, never
trusted."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from pemlang.diagnostics import Fault, listed, nearest, visible
from pemlang.formats.peft_patterns import targets
from pemlang.graph.node import Node
from pemlang.graph.normal import adapter_type
from pemlang.graph.numbers import shown
from pemlang.ops.agree import TITLES
from pemlang.ops.record import ranks
from pemlang.tensorfiles.safetensors import NAMES

REFINEMENTS = ("rank", "targets", "dtype")


def check_annotation(node: Node, method: str, refinements: Mapping[str, Any], text: str) -> None:
    """Hold an adapter to its annotation.

    Raises:
        Fault: PEM0316 when it is not as annotated, PEM0340 an unknown refinement, PEM0341 an
            unknown dtype.
    """
    found = adapter_type(node).method
    if method not in ("adapter", found):
        raise Fault(
            "PEM0316",
            f"`{text}` is annotated {method}, it is {TITLES[found]}",
            found,
        )
    for name, value in refinements.items():
        if name not in REFINEMENTS:
            close = nearest(name, REFINEMENTS)
            raise Fault(
                "PEM0340",
                f"a type has no refinement `{visible(name, 40)}`",
                f"did you mean `{close}`?" if close else f"refine by {', '.join(REFINEMENTS)}",
            )
        _HOLD[name](node, value, text)


def _hold_rank(node: Node, wanted: Any, text: str) -> None:
    if not isinstance(wanted, Fraction) or wanted.denominator != 1 or wanted < 1:
        raise Fault("PEM0312", "rank is not a whole number of at least 1", "rank=16")
    if adapter_type(node).method != "lora":
        raise Fault("PEM0316", f"`{text}` is not a LoRA: it has no rank", "remove rank=…")
    other = {site: rank for site, rank in ranks(node).items() if rank != wanted}
    if other:
        site, rank = next(iter(other.items()))
        everywhere = set(ranks(node).values()) == {rank}
        where = "" if everywhere else f" at {visible(site)}"
        raise Fault(
            "PEM0316",
            f"`{text}` is annotated rank {shown(wanted)}, it has rank {rank}{where}",
            f"write rank={rank}" if everywhere else "remove rank=…: the ranks differ by site",
        )


def _hold_targets(node: Node, wanted: Any, text: str) -> None:
    if not isinstance(wanted, tuple) or not all(isinstance(item, str) for item in wanted):
        raise Fault("PEM0301", "targets is a list of strings", 'targets=["q_proj", "v_proj"]')
    sites = list(adapter_type(node).shapes)
    outside = [site for site in sites if not targets(wanted, site)]
    unused = [name for name in wanted if not any(targets((name,), site) for site in sites)]
    if outside or unused:
        said = f"changes {listed(outside)} too" if outside else f"does not change {listed(unused)}"
        has = sorted({site.rsplit(".", 1)[-1] for site in sites})
        named = ", ".join(f'"{visible(name)}"' for name in has)
        raise Fault(
            "PEM0316",
            f"`{text}` is annotated with targets {listed(wanted) or 'none'}, it {said}",
            f"write targets=[{named}]",
        )


def _hold_dtype(node: Node, wanted: Any, text: str) -> None:
    dtype = dtype_name(wanted)
    found = sorted(dtypes_of(node))
    if found not in ([dtype], []):  # a zero is of any dtype
        has = [name for name, spelt in NAMES.items() if spelt in found]
        raise Fault(
            "PEM0316",
            f"`{text}` is annotated {wanted}, it is {' and '.join(has)}",
            f"write dtype={has[0]}" if len(has) == 1 else "remove dtype=…: the dtypes differ",
        )


_HOLD = {"rank": _hold_rank, "targets": _hold_targets, "dtype": _hold_dtype}


def dtypes_of(node: Node) -> set[str]:
    """The dtypes of the adapters a value is made from."""
    found: set[str] = set()
    pending, seen = [node], set()
    while pending:
        here = pending.pop()
        if here in seen:
            continue
        seen.add(here)
        if here.adapter is not None:
            found |= here.adapter.layout.dtypes
        pending.extend(here.args)
    return found


def dtype_name(value: Any) -> str:
    """The file dtype a recipe names; raises PEM0341."""
    if not isinstance(value, str) or value not in NAMES:
        close = nearest(str(value), NAMES)
        raise Fault(
            "PEM0341",
            f"there is no dtype `{visible(value, 40)}`",
            f"did you mean `{close}`?" if close else f"dtypes are {', '.join(NAMES)}",
        )
    return NAMES[value]
