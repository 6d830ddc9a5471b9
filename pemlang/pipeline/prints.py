"""What `print` tells: measures, types and normal forms."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from pemlang.check.checked import Checked
from pemlang.check.conditions import Condition
from pemlang.check.tests import Printed
from pemlang.check.values import RecipeValue
from pemlang.diagnostics import placed, visible
from pemlang.graph.formula import Formula, type_text
from pemlang.graph.node import Node, NumberNode
from pemlang.graph.numbers import shown
from pemlang.lower.lowering import Lowering
from pemlang.ops.schedule import Schedule


def lines_of(prints: Iterable[Printed], lowering: Lowering, checked: Checked) -> list[str]:
    """A line for each of some prints, `norm(a) is 3.2`; raises PemError where a number cannot be
    measured."""
    lines, write = [], Formula(checked.leaf_name)
    for printed in prints:
        with placed(printed.span):
            text = " ".join(printed.span.text.split())
            told = _text(printed.value, lowering, write)
            lines.append(told if text == told else f"{visible(text, 200)} is {told}")
    return lines


def _text(value: RecipeValue, lowering: Lowering, write: Formula) -> str:
    """A value as a reader has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(_text(item, lowering, write) for item in value)}]"
    if isinstance(value, NumberNode):
        return f"{float(lowering.value(value)):.6g}"
    if isinstance(value, Node):
        return f"{write.value(value)}: {type_text(value)}"
    if isinstance(value, Fraction):
        return shown(value)
    if isinstance(value, Condition):
        return "true" if value.holds(lowering.value) else "false"
    if isinstance(value, Schedule):
        return "a number for each site"
    return visible(str(value), 4096)
