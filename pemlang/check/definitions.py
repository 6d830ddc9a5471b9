"""What a `def` is before anyone calls it: its names, its kinds, its defaults."""

from __future__ import annotations

from pemlang.check.elaborate import Elaborator
from pemlang.check.kinds import KindChecker, Placed, article, fits, kind_of_type
from pemlang.check.params import NumberRange, declared_range
from pemlang.check.scope import Module, Scope, Stop, resolve_names
from pemlang.check.values import BaseName, Poison, RecipeValue
from pemlang.check.wanted import list_kind, want_kind
from pemlang.diagnostics import Fault
from pemlang.syntax import tree as t


def check_def(elaborator: Elaborator, tree: t.Def, scope: Scope) -> dict[str, NumberRange]:
    """Names and kinds of a function; raises Stop when they are wrong.

    Returns:
        The ranges of its params.
    """
    ranges: dict[str, NumberRange] = {}
    env: dict[str, str | None] = {name: _kind_or_none(v) for name, v in scope.values.items()}
    own: set[str] = set()
    for param in tree.params:
        fault = scope.taken(param.name.name)
        if param.name.name in own:
            message = f"two parameters are called `{param.name.name}`"
            fault = Fault("PEM0201", message, "choose another name")
        own.add(param.name.name)
        with elaborator.at(param.name.span):
            if fault is not None:
                raise fault
        with elaborator.at(param.type.span):
            env[param.name.name] = kind_of_type(param.type)
        within = declared_range(elaborator, param, str(env[param.name.name]), scope)
        if within is not None:
            ranges[param.name.name] = within
        if param.default is not None:
            resolve_names(param.default, scope, elaborator.report)
            default = elaborator.value(param.default, scope)
            with elaborator.at(param.default.span):
                want_kind(default, (str(env[param.name.name]),))
                if within is not None:
                    within.hold(param.name.name, default)
    resolve_names(tree.body, scope, elaborator.report, own.__contains__)
    try:
        kind = KindChecker(env).kind(tree.body)
    except Placed as placed:
        elaborator.report.add(placed.fault.at(placed.tree.span))
        raise Stop from None
    if tree.returns is not None and kind is not None:
        with elaborator.at(tree.returns.span):
            wanted = kind_of_type(tree.returns)
        with elaborator.at(tree.body.span):
            if not fits(kind, (wanted,)):
                raise Fault(
                    "PEM0301",
                    f"this is {article(kind)}, the function returns {article(wanted)}",
                    f"give {article(wanted)} here, or write -> {kind}",
                )
    return ranges


def _kind_or_none(value: RecipeValue) -> str | None:
    if isinstance(value, BaseName):
        return "model"
    return None if isinstance(value, Poison | Module) else list_kind(value)
