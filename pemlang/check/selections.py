"""Which sites a selection chooses: by layer, or as another adapter has them. Patterns are matched
in ops/schedule.py, where `per` matches them too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pemlang.diagnostics import Fault
from pemlang.graph.node import Num
from pemlang.graph.numbers import shown
from pemlang.ops.schedule import layer_of
from pemlang.ops.shaping import unmeasured


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
