"""What is written of a call or of a chain of operators: which argument each parameter takes, and
the use that help is made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

from pemlang.check.elsewhere import SETTINGS
from pemlang.check.kinds import article, fits
from pemlang.check.values import RecipeValue
from pemlang.check.wanted import list_kind
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, nearest, visible
from pemlang.graph.node import AdapterNode, ModelNode
from pemlang.ops import INFIX
from pemlang.ops.record import Parameter, kind_of
from pemlang.ops.use import Use, after, before, replaced
from pemlang.source import Span
from pemlang.syntax import tree as t


def chain_use(
    operators: Sequence[t.Symbol], values: Sequence[RecipeValue], spans: Sequence[Span]
) -> Use:
    """Operands with operators between them; an operator before one."""
    operands = [
        (span, value)
        for span, value in zip(spans, values, strict=True)
        if isinstance(value, AdapterNode | ModelNode)
    ]
    symbols = [operator.span for operator in operators] if len(operands) > len(operators) else []
    return Use(spans[0].to(spans[-1]), tuple(operands), tuple(symbols))


def run_of_terms(
    operators: Sequence[t.Symbol], values: Sequence[RecipeValue], total: RecipeValue, at: int
) -> int:
    """Where a run of operators of one family over adapters ends that begins with the value of
    the operands before `at`, and operand `at`."""
    terms = INFIX[operators[at - 1].symbol].terms
    end = at
    if terms is not None and kind_of(total) == "adapter":
        while (
            end < len(values)
            and INFIX[operators[end - 1].symbol].terms is terms
            and kind_of(values[end]) == "adapter"
        ):
            end += 1
    return max(end, at + 1)


def call_use(
    tree: t.Call, values: Sequence[RecipeValue], bound: Mapping[Parameter, int | None]
) -> Use:
    """A call of an operator; `bound` has the argument that each parameter takes."""
    operands: list[tuple[Span, AdapterNode | ModelNode]] = []
    for arg, value in zip(tree.args, values, strict=True):
        tree_of = written(arg)
        if isinstance(value, AdapterNode | ModelNode):
            operands.append((tree_of.span, value))
        elif isinstance(value, tuple) and isinstance(tree_of, t.ListOf):
            items = zip(tree_of.items, value, strict=True)
            operands += [(item.span, x) for item, x in items if isinstance(x, AdapterNode)]
    given = {p.name: written(tree.args[i]).span for p, i in bound.items() if i is not None}
    parts = tuple(arg.span for arg in tree.args)
    return Use(tree.span, tuple(operands), (), tree.function.span, parts, given)


def written(arg: t.Tree) -> t.Tree:
    """The value of an argument, without its name."""
    return arg.value if isinstance(arg, t.NamedArg) else arg


def _by_position(tree: t.Call) -> int:
    """How many arguments stand before the first that has a name."""
    named = [index for index, arg in enumerate(tree.args) if isinstance(arg, t.NamedArg)]
    return named[0] if named else len(tree.args)


def _want_listed(tree: t.Call, params: Sequence[Parameter], values: Sequence[RecipeValue]) -> None:
    """Raise PEM0318 where a function that takes a list is given its items, or the other way."""
    kinds = [list_kind(value) for value in values[: _by_position(tree)]]
    runs = list(_runs(params, kinds))
    if runs:
        param, start, _ = runs[0]
        what = article(f"[{kinds[start]}]") + (f" as `{param.name}`" if start else "")
        brackets = [
            edit
            for _, first_item, last_item in runs
            for edit in (
                before(tree.args[first_item].span, "["),
                after(tree.args[last_item].span, "]"),
            )
        ]
        raise Fault(
            "PEM0318",
            f"`{tree.function.name}` takes {what}",
            replaced(tree.span, brackets) or "put them in brackets: […]",
        )
    if not kinds or not params or kinds[0] in params[0].kinds:
        return
    first = params[0]
    [items, *_] = [arg.items for arg in tree.args[:1] if isinstance(arg, t.ListOf)] or [()]
    room = len(items) if first.variadic else sum(p.kinds == first.kinds for p in params)
    if 0 < len(items) <= room and kinds[0] in [f"[{kind}]" for kind in first.kinds]:
        span = tree.args[0].span
        ends = [
            (Span(span.source, span.start, items[0].span.start), ""),
            (Span(span.source, items[-1].span.end, span.end), ""),
        ]
        message = f"`{tree.function.name}` takes its {first.kinds[0]}s one by one, not as a list"
        raise Fault("PEM0318", message, replaced(tree.span, ends) or "leave the brackets out")


def _runs(
    params: Sequence[Parameter], kinds: Sequence[str]
) -> Iterator[tuple[Parameter, int, int]]:
    """Parameters that take a list and are given its items one after the other, with the first and
    the last of these; not where the next parameter takes one of them too.

    Args:
        params: of the function.
        kinds: of the arguments by position.
    """
    at = 0
    for number, param in enumerate(params):
        if at == len(kinds):
            return
        kind = kinds[at]
        alike = len(list(takewhile(kind.__eq__, kinds[at:])))
        if fits(kind, param.kinds):
            at += 1
            continue
        apart = not any(fits(kind, other.kinds) for other in params[number : number + alike])
        if alike < 2 or f"[{kind}]" not in param.kinds or not apart:
            return
        yield param, at, at + alike - 1
        at += alike


@dataclass(frozen=True)
class Bound:
    """A call's arguments by parameter: the index of each in the call, or None for a default."""

    positions: tuple[int | None, ...]
    rest: tuple[int, ...] = ()


def bind(params: Sequence[Parameter], tree: t.Call, values: Sequence[RecipeValue]) -> Bound:
    """Which argument each parameter takes.

    Args:
        params: the parameters.
        tree: the call.
        values: of its arguments.

    Raises:
        Fault: PEM0318 too many, too few, twice, or the items of a list for it; PEM0319 an unknown
            name.
    """
    _want_listed(tree, params, values)
    what = tree.function.name
    taken: dict[str, int] = {}
    rest: list[int] = []
    order = [p.name for p in params if not p.variadic]
    usage = f"{what}({', '.join(_usage(p) for p in params)})"
    _want_names(params, tree)
    for index, arg in enumerate(tree.args):
        if not isinstance(arg, t.NamedArg):
            if params and params[-1].variadic and index >= len(params) - 1:
                rest.append(index)
                continue
            if index >= len(params):
                raise Fault("PEM0318", f"`{what}` takes {_count(params)}", f"call it as {usage}")
        elif arg.name not in order:
            raise _unknown(arg, order, what, usage)
        name = arg.name if isinstance(arg, t.NamedArg) else order[index]
        if name in taken:
            help = f"give it once: {usage}"
            raise Fault("PEM0318", f"`{what}` is given `{name}` twice", help)
        taken[name] = index
    for param in params:
        if param.required and param.name not in taken and not (param.variadic and rest):
            message = f"`{what}` is not given `{param.name}`"
            raise Fault("PEM0318", message, f"add it: {_with(tree, param, usage)}")
    positions = tuple(taken.get(p.name) for p in params if not p.variadic)
    return Bound(positions, tuple(rest))


def _with(tree: t.Call, param: Parameter, usage: str) -> str:
    """A call with a place for one more argument; how to call it where there is none yet."""
    if not tree.args or param.variadic:
        return usage
    return replaced(tree.span, [after(tree.args[-1].span, f", {param.name}=…")]) or usage


def _want_names(params: Sequence[Parameter], tree: t.Call) -> None:
    """Raise PEM0318 where an argument by position follows one by name."""
    first = _by_position(tree)
    late = [arg for arg in tree.args[first:] if not isinstance(arg, t.NamedArg)]
    if late:
        given = {arg.name for arg in tree.args if isinstance(arg, t.NamedArg)}
        free = [p.name for p in params[first:] if p.name not in given and not p.variadic]
        names = zip(late, free, strict=False)
        help = replaced(tree.span, [before(arg.span, f"{name}=") for arg, name in names])
        one_way = len(free) == len(late)
        raise Fault(
            "PEM0318",
            "an argument by position follows one by name",
            (help if one_way else None) or "give its name too, or put it before those with names",
        )


def _unknown(arg: t.NamedArg, order: Sequence[str], what: str, usage: str) -> Fault:
    name = SETTINGS.get(arg.name)
    close = name if name in order else nearest(arg.name, order)
    return Fault(
        "PEM0319",
        f"`{what}` has no parameter `{visible(arg.name, 40)}`",
        f"did you mean `{close}`?" if close else f"call it as {usage}",
        place=arg.name_span,
    )


def _count(params: Sequence[Parameter]) -> str:
    most = "" if all(param.required for param in params) else "at most "
    if len(params) < 2:
        return most + ("one argument" if params else "no arguments")
    return f"{most}{len(params)} arguments"


def _usage(param: Parameter) -> str:
    if param.required and param.kinds and param.kinds[0].startswith("["):
        return f"{param.name}=[…]"
    shown = param.name + (", …" if param.variadic else "")
    return shown if param.required else f"{shown}=…"
