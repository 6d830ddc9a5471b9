"""Which sites a selection chooses: by pattern, by layer, or as another adapter has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pemlang.check.scope import Scope
from pemlang.diagnostics import Fault
from pemlang.graph.normal import adapter_type
from pemlang.graph.numbers import shown
from pemlang.ops.schedule import layer_of, matching
from pemlang.ops.shaping import unmeasured
from pemlang.syntax import tree as t

if TYPE_CHECKING:
    from pemlang.check.elaborate import Elaborator


def selected(
    elaborator: Elaborator,
    selector: t.Globs | t.Layers | t.Like,
    sites: Sequence[str],
    scope: Scope,
) -> frozenset[str]:
    """The sites, of some, that a selector chooses; reports PEM0320 where there are none."""
    if isinstance(selector, t.Globs):
        found: set[str] = set()
        for pattern in selector.patterns:
            text = elaborator.value(pattern, scope)
            with elaborator.at(pattern.span):
                found.update(matching(text, sites))
        return frozenset(found)
    if isinstance(selector, t.Like):
        other = elaborator.of_kind(selector.other, scope, "adapter")
        kept = frozenset(sites) & frozenset(adapter_type(other).shapes)
        with elaborator.at(selector.span):
            if not kept:
                raise Fault("PEM0320", "the two adapters have no site in common", None)
        return kept
    first, last = (_layer(elaborator, tree, scope) for tree in (selector.first, selector.last))
    layers = {site: layer_of(site) for site in sites}
    chosen = {s for s, layer in layers.items() if layer is not None and first <= layer <= last}
    with elaborator.at(selector.span):
        if not chosen:
            raise _no_site({layer for layer in layers.values() if layer is not None})
    return frozenset(chosen)


def _layer(elaborator: Elaborator, tree: t.Tree, scope: Scope) -> int:
    number = elaborator.of_kind(tree, scope, "number")
    with elaborator.at(tree.span):
        layer = unmeasured(number, "the layer")
        if layer.denominator != 1 or layer < 0:
            raise Fault("PEM0312", f"a layer is a whole number, not {shown(layer)}", "layers 0..15")
    return int(layer)


def _no_site(layers: set[int]) -> Fault:
    if not layers:
        message = "the names of this adapter's sites have no layer numbers"
        return Fault("PEM0320", message, 'select by name: x["*query"]')
    low, high = min(layers), max(layers)
    message = f"no site lies in these layers: the adapter has layers {low} to {high}"
    return Fault("PEM0320", message, f"layers {low}..{high}")
