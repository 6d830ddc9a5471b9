"""An expression over the names of a recipe: what Python and notebooks ask the value of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from pemlang.check.checked import Checked
from pemlang.check.kinds import article
from pemlang.check.tests import Printed
from pemlang.check.wanted import list_kind
from pemlang.diagnostics import Diagnostic, Fault, PemError, Report, placed
from pemlang.execute.cpu import CpuExecutor
from pemlang.execute.executor import no_progress
from pemlang.execute.machine import one_algebra_thread
from pemlang.graph.node import NumberNode
from pemlang.lower.lowering import Lowering
from pemlang.pipeline.jobs import measuring_with
from pemlang.pipeline.prints import lines_of
from pemlang.source import Source, Span
from pemlang.syntax.parser import parse
from pemlang.tensorfiles.reader import TensorReader

SHOWN_AS = "<expression>"
"""What messages call the text of one."""

_BEFORE = "print "


def evaluated(
    source: Source, expression: str, check: Callable[[Source], Checked]
) -> tuple[Checked, Printed]:
    """A recipe that prints an expression as well, checked; and its value, with its place in the
    expression.

    Args:
        source: the recipe.
        expression: over its names, as one would write it into the recipe.
        check: of a recipe with another text.

    Raises:
        PemError: PEM0108 and others where it is no expression, and all that `check` raises; what
            is wrong in the expression has its place there.
    """
    expression = expression.strip()
    report = Report()
    statements = parse(Source(SHOWN_AS, _BEFORE + expression), report).statements
    if report.has_errors:
        raise PemError([_moved(told, 0, expression) for told in report])
    if len(statements) > 1:
        why = "more stands here than an expression"
        fault = Fault("PEM0108", why, "give one alone, as in 0.5 * a + b")
        raise PemError([fault.at(Span(Source(SHOWN_AS, expression), 0, len(expression)))])
    start = len(source.text) + 1
    longer = replace(source, text=f"{source.text}\n{_BEFORE}{expression}\n")
    try:
        checked = check(longer)
    except PemError as error:
        raise PemError([_moved(told, start, expression) for told in error.diagnostics]) from None
    value = next(printed.value for printed in checked.prints if printed.span.start >= start)
    return checked, Printed(value, Span(Source(SHOWN_AS, expression), 0, len(expression)))


def _moved(told: Diagnostic, start: int, expression: str) -> Diagnostic:
    """What is said of an expression at its place there, not where it was put."""
    span, offset = told.span, start + len(_BEFORE)
    if span is None or span.end <= start:
        return told
    if span.source.text[start:].rstrip("\n") != _BEFORE + expression:
        return told
    first = min(max(0, span.start - offset), len(expression))
    last = min(max(first, span.end - offset), len(expression))
    return replace(told, span=Span(Source(SHOWN_AS, expression), first, last))


def measured(checked: Checked, printed: Printed) -> float:
    """A number, once the weights that it needs are read.

    Raises:
        PemError: PEM0301 it is none; what reading says.
    """
    value = printed.value
    if isinstance(value, Fraction):
        return float(value)
    with placed(printed.span):
        if not isinstance(value, NumberNode):
            raise Fault(
                "PEM0301",
                f"this is {article(list_kind(value))}, a number is wanted",
                "measure it, as in norm(a) or cosine(a, b)",
            )
        with one_algebra_thread(), TensorReader() as reader:
            return float(_lowering(checked, reader).value(value))


def told(checked: Checked, printed: Printed) -> str:
    """A value as `print` tells it: a measure, or a normal form and a type."""
    with one_algebra_thread(), TensorReader() as reader:
        return "\n".join(lines_of([printed], _lowering(checked, reader), checked))


def _lowering(checked: Checked, reader: TensorReader) -> Lowering:
    return Lowering(checked.graph, measuring_with(CpuExecutor, reader, no_progress))
