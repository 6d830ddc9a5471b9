"""What is written of a call or of a chain of operators, for help that is made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pemlang.check.values import RecipeValue
from pemlang.graph.node import AdapterNode, ModelNode
from pemlang.ops.record import Parameter
from pemlang.ops.use import Use
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
