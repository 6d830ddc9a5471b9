"""Settings of mergekit as numbers and schedules of a recipe."""

from __future__ import annotations

from fractions import Fraction

from pemlang.convert.configuration import MergekitSetting, OverDepth
from pemlang.graph.numbers import shown
from pemlang.syntax.written import quoted

IN_LAYERS = "*.layers.*"
_OF_LAYERS = ("attn", "attention", "mlp", "proj", "layernorm", "experts")
"""What stands in names of tensors that lie in layers, and in no others."""


def schedule(setting: MergekitSetting, layers: int | None) -> str:
    """A setting as a recipe writes it.

    mergekit takes what lies in no layer for the first one, and in a slice of one layer the last
    number of a gradient.

    Args:
        setting: the setting.
        layers: the number of layers that it is spread over, where that is known.
    """
    rows = []
    for name, number in setting.rows:
        pattern = None if name is None else f"*{_plain(name)}*"
        inside = _within_layers(number, layers)
        if isinstance(number, Fraction) or (name and any(x in name for x in _OF_LAYERS)):
            rows.append((pattern, inside))
        elif pattern is None:
            rows += [(IN_LAYERS, inside), (None, shown(number[0]))]
        else:
            parts = _per([(IN_LAYERS, inside), (None, shown(number[0]))])
            rows.append((pattern, parts))
    return _per(rows)


def _within_layers(number: OverDepth, layers: int | None) -> str:
    if isinstance(number, Fraction):
        return shown(number)
    if layers == 1:
        return shown(number[-1])
    numbers = ", ".join(map(shown, number))
    return f"ramp({numbers})" if len(number) == 2 else f"ramp([{numbers}])"


def _per(rows: list[tuple[str | None, str]]) -> str:
    if rows[0][0] is None:
        return rows[0][1]
    shown_rows = (f"{'else' if p is None else quoted(p)}: {number}" for p, number in rows)
    return f"per {{ {', '.join(shown_rows)} }}"


def _plain(name: str) -> str:
    """A text as a pattern that it alone fits."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
