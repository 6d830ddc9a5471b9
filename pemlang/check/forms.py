"""Calls that are no operators: `sample(…)`, `same(…)`, `fails(…)`, of which tests are made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from pemlang.check.conditions import Condition, Explained
from pemlang.check.kinds import choose
from pemlang.check.scope import Stop
from pemlang.check.values import Declared, RecipeValue, Sample
from pemlang.check.wanted import want_kind
from pemlang.diagnostics import Fault, Report, nearest, visible
from pemlang.graph.formula import Formula
from pemlang.graph.leaves import Model, leaf
from pemlang.graph.node import Node
from pemlang.graph.numbers import shown
from pemlang.graph.types import ModelType
from pemlang.modules import PARAMETRISATIONS
from pemlang.ops import INFIX
from pemlang.ops.ranks import unmeasured
from pemlang.ops.record import Context
from pemlang.source import Span
from pemlang.syntax import tree as t

if TYPE_CHECKING:
    from pemlang.check.elaborate import Elaborator
    from pemlang.check.scope import Scope

MOST = {"rank": 256, "layers": 100, "sites": 100, "seed": (1 << 32) - 1}
"""What a sample may have at the most: a test is of something small."""

MOST_NUMBERS = 1 << 25
"""What all samples of a recipe may have together at the most: 128 MiB of them."""


def same(elaborator: Elaborator, tree: t.Call, scope: Scope) -> Condition:
    """`same(x, y)`: whether two values have one meaning, by the laws of the language; no numbers
    are read."""
    values = []
    for arg in _given(elaborator, tree, 2, "same(x, y)"):
        value = elaborator.value(arg, scope)
        with elaborator.at(arg.span):
            want_kind(value, ("adapter", "model", "number"))
        values.append(value)
    left, right = values
    if isinstance(left, Node) and isinstance(right, Node):
        is_same = left.key == right.key
    else:
        is_same = not isinstance(left, Node) and left == right
    sides = zip(_given(elaborator, tree, 2, ""), values, strict=True)
    texts = [(_text(arg.span), _normal(elaborator.formula, value)) for arg, value in sides]
    return Explained(is_same, tuple(f"{text} is {told}" for text, told in texts if text != told))


def fails(elaborator: Elaborator, tree: t.Call, scope: Scope) -> Condition:
    """`fails(x, "PEM0304")`: whether an expression is wrong in this way at the check."""
    expression, code = _given(elaborator, tree, 2, 'fails(x, "PEM0304")')
    wanted = elaborator.text(code, scope)
    with elaborator.at(code.span):
        if not _is_code(wanted):
            why = f"{visible(wanted, 40)!r} is no code of an error"
            raise Fault("PEM0382", why, 'give one as `pem explain` has it: "PEM0304"')
    report, claims = Report(), dict(elaborator.claims)
    with elaborator.reporting_to(report), suppress(Stop):
        elaborator.value(expression, scope)
    elaborator.claims = claims
    codes = sorted({told.code for told in report if told.severity == "error"})
    lines = [f"{told.code}: {told.message}" for told in report if told.severity == "error"]
    return Explained(wanted in codes, tuple(lines or [f"{_text(expression.span)} is right"]))


def sample(elaborator: Elaborator, tree: t.Call, scope: Scope) -> RecipeValue:
    """`sample(lora(rank=4, sites=["*.q_proj"], layers=2, seed=1))`: an adapter that is drawn."""
    [wanted] = _given(elaborator, tree, 1, "sample(lora(rank=4, seed=1))")
    with elaborator.at(tree.span):
        if not elaborator.is_testing:
            raise Fault(
                "PEM0382",
                "a sample is drawn in a test alone",
                'declare an adapter: adapter a = "path"; or put it into test "name" { … }',
            )
    with elaborator.at(wanted.span):
        drawn = _sample(elaborator, wanted, scope)
        elaborator.samples[drawn] = drawn.most_numbers
        if sum(elaborator.samples.values()) > MOST_NUMBERS:
            raise Fault(
                "PEM0382",
                f"the samples of this recipe have more than {MOST_NUMBERS:,} numbers",
                "give them a lower rank, fewer layers or fewer sites, or one seed to several",
            )
        stored = elaborator.inputs.sample(drawn)
    name = _text(tree.span)
    graph = elaborator.graph
    nodes = []
    for place, adapter in stored:
        declared = Declared(name, place, tree.span.source.directory)
        if adapter.format.holds == "model":
            node = graph.add(Model(ModelType(None, adapter.layout.shapes), place, adapter))
            elaborator.declare(node, declared, tree.span)
            nodes.append(node)
        else:
            drawn_leaf = leaf(graph, place, adapter, adapter.base)
            elaborator.declare(drawn_leaf, declared, tree.span)
            return drawn_leaf
    signature = choose(INFIX["-"], ["model", "model"])
    return cast("RecipeValue", signature.rule(Context(graph, (name, name), "-"), *nodes))


def is_sample(tree: t.Tree) -> bool:
    """Whether an expression draws an adapter."""
    return isinstance(tree, t.Call) and tree.form == "sample"


def _sample(elaborator: Elaborator, tree: t.Tree, scope: Scope) -> Sample:
    """What a sample is to be."""
    name = tree.name if isinstance(tree, t.Name) else ""
    args: tuple[t.Tree, ...] = ()
    if isinstance(tree, t.Call):
        name, args = tree.function.name, tree.args
    if name not in PARAMETRISATIONS:
        close = nearest(name, PARAMETRISATIONS)
        help = f"did you mean `{close}`?" if close else "write it as sample(lora(rank=4, seed=1))"
        raise Fault("PEM0317", f"there is no method `{visible(tree.span.text, 40)}`", help)
    numbers: dict[str, int] = {}
    sites = Sample(name).sites
    for arg in args:
        if not isinstance(arg, t.NamedArg) or arg.name not in MOST:
            names = ", ".join(f"{setting}=…" for setting in MOST)
            raise Fault(
                "PEM0319",
                f"a sample has no setting `{visible(arg.span.text, 40)}`",
                f"it takes {names}",
                place=arg.span,
            )
        if arg.name == "sites":
            sites = _sites(elaborator, arg, scope)
        else:
            numbers[arg.name] = _number(elaborator, arg, scope)
    return Sample(name, sites=sites, **numbers)


def _sites(elaborator: Elaborator, arg: t.NamedArg, scope: Scope) -> tuple[str, ...]:
    """The names of the modules of a sample."""
    sites = cast("tuple[str, ...]", elaborator.of_kind(arg.value, scope, "[string]"))
    if not 1 <= len(sites) <= MOST["sites"] or not all(map(_is_site, sites)):
        raise Fault(
            "PEM0382",
            "these are no sites of a sample",
            f'give 1 to {MOST["sites"]} names, with a `*` for the layer: sites=["*.q_proj"]',
            place=arg.value.span,
        )
    return sites


def _number(elaborator: Elaborator, arg: t.NamedArg, scope: Scope) -> int:
    """The value of a setting of a sample that is a number."""
    most = MOST[arg.name]
    number = unmeasured(elaborator.number(arg.value, scope), arg.name)
    least = 0 if arg.name == "seed" else 1
    if number.denominator != 1 or not least <= number <= most:
        raise Fault(
            "PEM0382",
            f"{arg.name} is {shown(number)}",
            f"give a whole number from {least} to {most}",
            place=arg.value.span,
        )
    return int(number)


def _is_site(text: str) -> bool:
    """Whether a text is a pattern that gives names of modules."""
    parts = text.split(".")
    plain = [part for part in parts if part != "*"]
    return (
        len(text) <= 100
        and len(parts) - len(plain) <= 1
        and all(part.isascii() and (part.isidentifier() or part.isdecimal()) for part in plain)
        and not all(part.isdecimal() for part in plain)
    )


def _is_code(text: str) -> bool:
    return len(text) == 7 and text.startswith("PEM") and text[3:].isdecimal()


def _given(elaborator: Elaborator, tree: t.Call, number: int, usage: str) -> list[t.Tree]:
    """The arguments of a call, by position alone; reports PEM0318."""
    with elaborator.at(tree.span):
        if len(tree.args) != number or any(isinstance(arg, t.NamedArg) for arg in tree.args):
            what = "one argument" if number == 1 else f"{number} arguments"
            raise Fault("PEM0318", f"`{tree.function.name}` takes {what}", f"call it as {usage}")
    return list(tree.args)


def _normal(write: Formula, value: object) -> str:
    """A value as a reader has it."""
    if isinstance(value, Node):
        return write.value(value)
    return shown(value)  # type: ignore[arg-type]


def _text(span: Span) -> str:
    """The text of an expression, short enough for a message."""
    text = " ".join(span.text.split())
    return visible(text, 60)


FORMS: dict[str, Callable[[Elaborator, t.Call, Scope], RecipeValue]] = {
    "sample": sample,
    "same": same,
    "fails": fails,
}
"""What evaluates each of them."""
assert FORMS.keys() == set(t.FORMS)
