"""Values of params: given from outside as text or Python values, and held to their range."""

from __future__ import annotations

import re
from fractions import Fraction

from pemlang.check.conditions import Decided
from pemlang.check.values import ParamConstant
from pemlang.diagnostics import Fault, visible
from pemlang.graph.numbers import shown
from pemlang.syntax.builder import number_value

_NUMBER = re.compile(r"(-?)(\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?)", re.ASCII)


def setting(value: str | float | bool, kind: str, name: str) -> ParamConstant:
    """A value given from outside as the param's kind; raises PEM0212."""
    if kind == "bool":
        if isinstance(value, bool) or value in ("true", "false"):
            return Decided(value in (True, "true"))
    elif kind == "string" and isinstance(value, str):
        return value
    elif kind == "number" and not isinstance(value, bool):
        match = _NUMBER.fullmatch(str(value).strip())
        if match is not None:
            return number_value(match[2]) * (-1 if match[1] else 1)
    raise Fault(
        "PEM0212",
        f"{visible(repr(value), 40)} is not a {kind}, which `{visible(name)}` is",
        {"bool": "give true or false", "number": "give a number, such as 0.6"}.get(
            kind, "give a text"
        ),
    )


def hold_range(name: str, kind: str, value: ParamConstant, low: Fraction, high: Fraction) -> None:
    """Raise PEM0214 unless a value lies in a range, PEM0212 where there can be no such range."""
    if kind != "number":
        raise Fault("PEM0212", f"a {kind} has no range", "remove `in …`")
    if low > high:
        raise Fault(
            "PEM0212",
            f"no number lies in {shown(low)}..{shown(high)}",
            f"write the lower end first: in {shown(high)}..{shown(low)}",
        )
    assert isinstance(value, Fraction)
    if not low <= value <= high:
        raise Fault(
            "PEM0214",
            f"`{visible(name)}` is {shown(value)}, outside {shown(low)}..{shown(high)}",
            f"give a value from {shown(low)} to {shown(high)}",
        )
