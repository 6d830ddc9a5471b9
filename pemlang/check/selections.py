"""Which sites a selection chooses: by layer, or as another adapter has them. Patterns are matched
in ops/schedule.py, where `per` matches them too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

from pemlang.check.kinds import not_selectable
from pemlang.diagnostics import Fault, listed, visible
from pemlang.graph.leaves import combined_leaves
from pemlang.graph.node import AdapterNode, ModelNode, Num, TensorsNode
from pemlang.graph.numbers import shown
from pemlang.modules.sites import layer_of
from pemlang.ops.exact import restrict
from pemlang.ops.ranks import unmeasured
from pemlang.ops.record import Context, kind_of
from pemlang.ops.schedule import matching, named_by
from pemlang.ops.stack import selected_layers
from pemlang.ops.vocabulary import model_like
from pemlang.syntax import tree as t

if TYPE_CHECKING:
    from pemlang.check.elaborate import Elaborator
    from pemlang.check.scope import Scope


def selection(elaborator: Elaborator, tree: t.Selection, scope: Scope) -> AdapterNode | ModelNode:
    """`x[layers 0..15]`, `x["*.q_proj"]`, `x[like y]`."""
    operand = elaborator.value(tree.operand, scope)
    if isinstance(operand, ModelNode) and isinstance(tree.selector, t.Layers):
        first, last = layers(elaborator, tree.selector, scope)
        with elaborator.at(tree.selector.span):
            return selected_layers(Context(elaborator.graph), operand, first, last)
    if isinstance(operand, ModelNode) and isinstance(tree.selector, t.Like):
        like = cast("ModelNode", elaborator.of_kind(tree.selector.other, scope, "model"))
        with elaborator.at(tree.span):
            return model_like(Context(elaborator.graph), operand, like)
    with elaborator.at(tree.operand.span):
        if not isinstance(operand, AdapterNode):
            raise not_selectable(kind_of(operand))
    sites = selected(elaborator, tree.selector, operand, scope)
    return restrict(Context(elaborator.graph), operand, sites)


def selected(
    elaborator: Elaborator,
    selector: t.Globs | t.Layers | t.Like,
    x: AdapterNode,
    scope: Scope,
) -> frozenset[str]:
    """The sites that a selection chooses of an adapter's; reports what is wrong with it."""
    sites = tuple(x.shapes)
    if isinstance(selector, t.Globs):
        matched: set[str] = set()
        for pattern in selector.patterns:
            text = elaborator.string(pattern, scope)
            with elaborator.at(pattern.span):
                if not named_by(text, sites):
                    _hold_no_head(text, x)
                matched.update(matching(text, sites))
        return frozenset(matched)
    if isinstance(selector, t.Like):
        other = elaborator.of_kind(selector.other, scope, "adapter", "model")
        assert isinstance(other, TensorsNode)
        with elaborator.at(selector.span):
            return common(sites, other.shapes)
    first, last = layers(elaborator, selector, scope)
    with elaborator.at(selector.span):
        chosen = in_layers(first, last, sites)
    past = beyond(first, last, sites)
    if past is not None:
        elaborator.report.add(past.at(selector.span, "warning"))
    return chosen


def _hold_no_head(pattern: str, x: AdapterNode) -> None:
    """Raise PEM0320 where a pattern that names no site names heads."""
    whole = [module for leaf in combined_leaves(x) for module in leaf.adapter.whole_modules]
    heads = named_by(pattern, dict.fromkeys(whole))
    if heads:
        raise Fault(
            "PEM0320",
            f'the pattern "{visible(pattern, 80)}" names no site: {listed(heads)} is saved whole '
            "(modules_to_save)",
            "leave it out: heads stay with what is made from their adapter, whatever is selected; "
            "a save with heads=none has none",
        )


def layers(elaborator: Elaborator, selector: t.Layers, scope: Scope) -> tuple[int, int]:
    """The first and the last layer of a range; reports what is wrong with it."""
    first, last = (_layer(elaborator, tree, scope) for tree in (selector.first, selector.last))
    return first, last


def _layer(elaborator: Elaborator, tree: t.Tree, scope: Scope) -> int:
    number = elaborator.number(tree, scope)
    with elaborator.at(tree.span):
        return whole_layer(number)


def whole_layer(number: Num) -> int:
    """The number of a layer; raises PEM0312 for what is no whole number, PEM0314 a measured one."""
    layer = unmeasured(number, "the layer")
    if layer.denominator != 1 or layer < 0:
        raise Fault(
            "PEM0312",
            f"a layer is a whole number, not {shown(layer)}",
            "write a range of layers as 0..15",
        )
    return int(layer)


def in_layers(first: int, last: int, sites: Sequence[str]) -> frozenset[str]:
    """The sites in a range of layers; raises PEM0320 where there are none."""
    if first > last:
        message = f"there are no layers from {first} to {last}: the first is above the last"
        raise Fault("PEM0320", message, f"layers {last}..{first}")
    layers = {site: layer_of(site) for site in sites}
    chosen = {s for s, layer in layers.items() if layer is not None and first <= layer <= last}
    if chosen:
        return frozenset(chosen)
    numbers = [layer for layer in layers.values() if layer is not None]
    if not numbers:
        message = "the names of this adapter's sites have no layer numbers"
        raise Fault("PEM0320", message, 'select by name: x["*query"]')
    low, high = min(numbers), max(numbers)
    message = f"no site lies in these layers: the adapter has layers {low} to {high}"
    raise Fault("PEM0320", message, f"layers {low}..{high}")


def beyond(first: int, last: int, sites: Iterable[str]) -> Fault | None:
    """PEM0706 where a range of layers that chooses sites names layers at its ends that none of the
    adapter's sites lies in."""
    numbers = [layer for site in sites if (layer := layer_of(site)) is not None]
    low, high = min(numbers), max(numbers)
    if low <= first and last <= high:
        return None
    return Fault(
        "PEM0706",
        f"the adapter has layers {low} to {high}, not all of {first} to {last}",
        f"layers {max(first, low)}..{min(last, high)}",
    )


def common(sites: Iterable[str], others: Iterable[str]) -> frozenset[str]:
    """The sites that two adapters share; raises PEM0320 where there are none."""
    kept = frozenset(sites) & frozenset(others)
    if not kept:
        message = "the two adapters have no site in common"
        raise Fault("PEM0320", message, "select like an adapter that changes some of the same")
    return kept
