"""Adapters of which one has a module that is several modules of the other, as `qkv_proj` is q, k
and v, and what brings them together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.adapter import ModulePart
from pemlang.formats.fused import parts_text
from pemlang.formats.namings import MAX_SHOWN, is_sayable
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import combined_leaves
from pemlang.graph.node import ModelNode, TensorsNode
from pemlang.modules import PARAMETRISATIONS, SiteShape
from pemlang.ops.experts import StackedExperts, stacked_experts
from pemlang.ops.names import TwoNames, declared_so, kept_names, two_names

_EXAMPLE = '{ "*.gate_up_proj": "*.gate_proj[0:8192], *.up_proj[8192:16384]" }'
_QKV, _GATE_UP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")

# The outputs of these are those of their parts, one part after the other. `query_key_value` is not
# among them: GPT-NeoX, Falcon and BLOOM have q, k and v of each head side by side in it.
_FUSED = {
    "self_attn.qkv_proj": (_QKV,),  # Phi-3
    "self_attn.W_pack": (_QKV,),  # Baichuan
    "attn.c_attn": (_QKV, ("q_attn", "k_attn", "v_attn")),  # GPT-2
    "attn.Wqkv": (_QKV, ("Wq", "Wk", "Wv")),  # ModernBERT, MPT
    "attn.qkv": (_QKV, ("q", "k", "v")),  # Qwen2-VL, ViT of timm
    "attn.to_qkv": (("to_q", "to_k", "to_v"),),  # diffusers
    "attn.to_added_qkv": (("add_q_proj", "add_k_proj", "add_v_proj"),),
    "mlp.gate_up_proj": (_GATE_UP,),  # Phi-3, GLM-4
}
"""How the names of modules end that are several in one, and what their parts may be called."""


@dataclass(frozen=True, eq=False)
class FusedModules:
    """What looks like several modules of one adapter that are one in another.

    Attributes:
        x: the adapter that has them in one.
        parts_of: the parts of such modules.
    """

    x: TensorsNode
    parts_of: Mapping[str, Sequence[ModulePart]]

    @property
    def note(self) -> str:
        """What it is, in words."""
        module, parts = next(iter(self.parts_of.items()))
        names = [part.name for part in parts]
        return f"{visible(module)} looks like {listed(names)} in one, in this order"

    def help(self, graph: Graph) -> str:
        """What to write where they are."""
        return declared_so(graph, self.x, self.parts_of, self._rules) or (
            "split the modules where the adapter is declared, by a rule such as "
            f"{self._rules(self.x) or _EXAMPLE} in its names="
        )

    def _rules(self, x: TensorsNode) -> str | None:
        """Rules that split the modules of an adapter; None where that takes too many."""
        rules: dict[str, str] = {}
        for module in [site for site in self.parts_of if site in x.shapes]:
            start, _, end = module.rpartition(".")
            alike = (shape for site, shape in x.shapes.items() if site.endswith(f".{end}"))
            same = all(shape == x.shapes[module] for shape in alike)
            before, star = (start, "*") if same else ("", "")
            parts = [
                replace(part, name=star + part.name.removeprefix(before))
                for part in self.parts_of[module]
            ]
            rules[star + module.removeprefix(before)] = parts_text(parts)
        if not 0 < len(rules) <= MAX_SHOWN or not all(map(is_sayable, rules)):
            return None
        return "{ " + ", ".join(f'"{old}": "{new}"' for old, new in rules.items()) + " }"


def same_modules(
    left: TensorsNode, right: TensorsNode
) -> TwoNames | FusedModules | StackedExperts | None:
    """What looks like the same modules in two adapters: by other names, or several in one."""
    kept = kept_names(left) | kept_names(right)
    for x, y in ((left, right), (right, left)):
        alike = _fused(x, y, kept) or stacked_experts(x, y, kept)
        if alike is not None:
            return alike
    return two_names(left, right)


def _fused(x: TensorsNode, y: TensorsNode, kept: Collection[str]) -> FusedModules | None:
    """The modules of one adapter that look like several modules of another in one, but for those
    that keep their names."""
    apart = {name: shape for name, shape in y.shapes.items() if name not in x.shapes}
    parts_of = {
        module: parts
        for module, shape in x.shapes.items()
        if module not in y.shapes and module not in kept
        if (parts := _parts(module, shape, lambda name, _: apart.get(name))) is not None
    }
    return FusedModules(x, parts_of) if parts_of else None


def hold_one_name(
    graph: Graph, left: TensorsNode, right: TensorsNode, texts: tuple[str, str]
) -> None:
    """Raise PEM0364 where a union would have the same modules twice, by two names."""
    if set(combined_leaves(right)) <= set(combined_leaves(left)):
        return  # one adapter has one name for a module
    twins = same_modules(left, right) if left.shapes != right.shapes else None
    if twins is not None:
        raise Fault(
            "PEM0364",
            f"`{texts[0]}` and `{texts[1]}` seem to change the same modules by two names: whatever "
            "loads what comes out finds half of it",
            twins.help(graph),
            (twins.note, _KEEPING),
        )


_KEEPING = (
    'where they are two modules, say that the names of one adapter are right: names={ "*": "*" }'
)


def fused_in(x: TensorsNode, model: ModelNode) -> FusedModules | None:
    """The modules of an adapter that look like several modules of a model in one."""

    def shape_there(name: str, whole: SiteShape) -> SiteShape | None:
        tensor = f"{name}.weight"
        if tensor not in model.shapes or tensor in x.shapes:
            return None
        stored = model.shapes[tensor].a
        ways = (whole.with_outputs(count) for count in stored)
        record = PARAMETRISATIONS[whole.kind]
        return next((shape for shape in ways if record.orientations(shape, stored)), None)

    parts_of = {
        module: parts
        for module, shape in x.shapes.items()
        if f"{module}.weight" not in model.shapes
        if (parts := _parts(module, shape, shape_there)) is not None
    }
    return FusedModules(x, parts_of) if parts_of else None


def _parts(
    module: str, shape: SiteShape, shape_there: Callable[[str, SiteShape], SiteShape | None]
) -> list[ModulePart] | None:
    """The parts of a module by their shapes elsewhere; None where it has none of them, or they do
    not make up the whole."""
    if not any(PARAMETRISATIONS[shape.kind].by_row(shape)):
        return None
    for names in _names_of_parts(module):
        shapes = [shape_there(name, shape) for name in names]
        there = [x for x in shapes if x is not None]
        alike = all(x.with_outputs(1) == shape.with_outputs(1) for x in there)
        outputs = [None if x is None else x.outputs for x in shapes]
        sizes = _sizes(shape.outputs, outputs) if there and alike else None
        if sizes is not None:
            ends = pairwise(accumulate(sizes, initial=0))
            return [ModulePart(name, *rows) for name, rows in zip(names, ends, strict=True)]
    return None


def _names_of_parts(module: str) -> Iterator[list[str]]:
    """What the parts of a module may be called, in order."""
    start = module.rpartition(".")[0]
    for fused, ways in _FUSED.items():
        if f".{module}".endswith(f".{fused}"):
            yield from ([f"{start}.{part}" for part in parts] for parts in ways)


def _sizes(total: int, outputs: Sequence[int | None]) -> list[int] | None:
    """How many outputs each part has, where some are not told; None where these are not all of the
    whole. k has as many as v, and gate as many as up."""
    first, equal = (outputs[:1], outputs[1:]) if len(outputs) == 3 else ((), outputs)
    each = next((size for size in equal if size is not None), None)
    if each is None:
        each = (total - (first[0] or 0)) // len(equal)
    sizes = [total - len(equal) * each] * len(first) + [each] * len(equal)
    fits = all(told in (None, size) for told, size in zip(outputs, sizes, strict=True))
    return sizes if fits and sum(sizes) == total and min(sizes) > 0 else None
