"""What a function takes, while a call of it is being written."""

from __future__ import annotations

from fractions import Fraction

from lsprotocol.types import (
    MarkupContent,
    MarkupKind,
    ParameterInformation,
    SignatureHelp,
    SignatureInformation,
)

from pemlang.graph.numbers import shown
from pemlang.lsp.analysis import Analysis
from pemlang.lsp.completion import function_of
from pemlang.lsp.cursor import CursorPlace, WrittenCall
from pemlang.ops import FUNCTIONS
from pemlang.ops.record import Parameter
from pemlang.show.operators import settings_of
from pemlang.syntax import tree as t


def signature_help(analysis: Analysis, cursor: CursorPlace) -> SignatureHelp | None:
    """The signature of the function that is being called; None where none is."""
    call = cursor.call
    if call is None:
        return None
    if call.function in FUNCTIONS:
        operator = FUNCTIONS[call.function]
        params, meant = operator.signatures[0].params, dict(settings_of(operator))
        taken = [(_written(x), x.name, meant.get(x.name, "")) for x in params]
        variadic = bool(params) and params[-1].variadic
        label = f"{call.function}({', '.join(text for text, *_ in taken)})"
        return _help(call, label, f"{operator.summary}\n\n{operator.formula}", taken, variadic)
    bound = function_of(analysis, call.function)
    if bound is None or not isinstance(bound.tree, t.Def):
        return None
    definition = bound.tree
    taken = [(" ".join(x.span.text.split()), x.name.name, "") for x in definition.params]
    label = definition.signature
    return _help(call, label, definition.doc, taken, variadic=False)


def _written(param: Parameter) -> str:
    kinds = " | ".join(param.words) if param.kinds == ("word",) else " | ".join(param.kinds)
    text = f"{param.name}{', …' if param.variadic else ''}: {kinds}"
    if isinstance(param.default, Fraction):
        return f"{text} = {shown(param.default)}"
    return text if param.required else f"{text} = {param.default or '…'}"


def _help(
    call: WrittenCall, label: str, about: str, taken: list[tuple[str, str, str]], variadic: bool
) -> SignatureHelp:
    names = [name for _, name, _ in taken]
    active = len(call.given) - 1
    if call.argument in names:
        active = names.index(call.argument)
    elif call.named:  # what comes next is named too
        active = len(names)
    elif variadic:
        active = min(active, len(names) - 1)
    information = SignatureInformation(
        label,
        MarkupContent(MarkupKind.PlainText, about),
        [ParameterInformation(text, meaning or None) for text, _, meaning in taken],
    )
    return SignatureHelp([information], 0, active if 0 <= active < len(names) else None)
