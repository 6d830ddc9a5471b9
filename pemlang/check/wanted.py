"""What a value has to be: of a kind, within bounds, of a size that can be walked."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from pemlang.check.conditions import Condition
from pemlang.check.elsewhere import WORDS
from pemlang.check.kinds import article, fits
from pemlang.diagnostics import Fault, nearest, visible
from pemlang.graph.numbers import shown
from pemlang.ops.record import Parameter, Within, kind_of
from pemlang.ops.schedule import Schedule
from pemlang.syntax import tree as t

MAX_SIZE = 5_000
MAX_DEPTH = 150


def list_kind(value: object) -> str:
    """The kind of a value, a list's with the kind of its items: [number]."""
    if isinstance(value, tuple):
        kinds = {list_kind(item) for item in value}
        kind = "schedule" if kinds == {"number", "schedule"} else "".join(kinds)
        return f"[{kind}]" if value else "[]"
    return kind_of(value)


def want_kind(value: object, kinds: Sequence[str], text: str = "…") -> None:
    """Raise PEM0301 unless a value is of one of some kinds; `text` is how it is written."""
    kind = list_kind(value)
    if not fits(kind, kinds):
        lists = len(kinds) > 2 and all(k.startswith("[") for k in kinds)
        wanted = "a list" if lists else " or ".join(article(k) for k in kinds)
        hint = "call it: name(…)" if kind == "function" else f"give {wanted} here"
        if tuple(kinds) == ("bool",):
            hint = "compare, as in len(xs) > 1, or write true or false"
        if f"[{kind}]" in kinds:
            hint = "put it in brackets: […]" if "…" in text else f"[{text}]"
        elif kind == "[number]" and "number" in kinds:
            hint = "give one number for all; docs/migrating.md has one for each adapter"
        raise Fault("PEM0301", f"this is {article(kind)}, {wanted} is wanted", hint)


def want_value(value: object) -> None:
    """Raise PEM0301 for what a name may stand for and is no value: a function, an imported file."""
    instead = {"function": "call it: name(…)", "module": "name what is in it: module.name"}
    if kind_of(value) in instead:
        message = f"{article(kind_of(value))} is no value"
        raise Fault("PEM0301", message, instead[kind_of(value)])


def want_within(value: object, param: Parameter, arg: t.Tree) -> None:
    """Raise PEM0326 unless a value is one of the numbers or the words that a parameter takes;
    `arg` is the argument as written."""
    name = f"{param.name}=" if isinstance(arg, t.NamedArg) else ""
    takes_numbers = "number" in param.kinds and not isinstance(value, str)
    if param.words and value not in param.words and not takes_numbers:
        text = arg.value.span.text if isinstance(arg, t.NamedArg) else arg.span.text
        close = WORDS.get((param.name, text.casefold())) or nearest(text, param.words)
        word = close or param.words[0]
        given = repr(visible(value, 40)) if isinstance(value, str) else article(list_kind(value))
        raise Fault(
            "PEM0326",
            f"{param.name} is {given}, not {param.choice}",
            f"{name}{word}" if name else f'"{word}"',
        )
    if param.within and isinstance(value, Fraction) and value not in param.within:
        raise Fault(
            "PEM0326",
            f"{param.name} is {shown(value)}: it takes {param.within}",
            f"{name}{_near(value, param, param.within)}",
        )


def _near(value: Fraction, param: Parameter, within: Within) -> str:
    """A number that a parameter takes, for one that it does not: what it is by default where that
    lies outside, else one near it."""
    if within.high == 1 and 10 <= value <= 100:
        return shown(value / 100)  # in percent
    below, above = value <= within.low, within.high is not None and value > within.high
    if (below or above) and isinstance(param.default, Fraction):
        return shown(param.default)
    if above and within.high is not None:
        return shown(within.high)
    if below and within.open:
        return shown(within.low + (1 if within.high is None else (within.high - within.low) / 2))
    return shown(within.low if below else Fraction(round(value)))


def hold_size(value: Condition | Schedule) -> None:
    """Raise PEM0333 when a value that is walked part by part has too many, or too deep ones."""
    if value.size > MAX_SIZE or value.depth > MAX_DEPTH:
        raise Fault(
            "PEM0333",
            f"this {value.kind} has more than {MAX_SIZE:,} parts or is more than {MAX_DEPTH} deep",
            "split it, or write it without values that are each built on the one before",
        )
