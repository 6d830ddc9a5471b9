"""Kinds: which operator signature fits, and whether a function's body can ever be right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pemlang.diagnostics import Fault, nearest, visible
from pemlang.modules import PARAMETRISATIONS
from pemlang.ops import FUNCTIONS, INFIX, PREFIX
from pemlang.ops.record import ITEM, Operator, Signature
from pemlang.syntax import tree as t

PLAIN = ("number", "string", "bool", "schedule", "model", "adapter")
# What other languages call our types.
_ELSEWHERE = {"float": "number", "int": "number", "str": "string", "boolean": "bool"}


def article(kind: str) -> str:
    """A kind with its article: an adapter, a number, a list."""
    if kind.startswith("["):
        inner = kind.strip("[]")
        return f"a list of {inner}s" if inner else "a list"
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def fits(kind: str, wanted: Sequence[str]) -> bool:
    """Whether a kind may stand where one of `wanted` is. A number is a constant schedule."""
    return (
        kind in wanted
        or (kind == "number" and "schedule" in wanted)
        or (kind == "string" and "word" in wanted)
        or (kind == "[]" and any(w.startswith("[") for w in wanted))
    )


def kind_of_type(tree: t.Tree) -> str:
    """The kind a type annotation names; raises PEM0317 when it names none, PEM0340 when it refines
    what has no refinements."""
    if isinstance(tree, t.TypeList):
        return f"[{kind_of_type(tree.item)}]"
    assert isinstance(tree, t.TypeName)
    if tree.name in PARAMETRISATIONS:
        return "adapter"
    if tree.name in PLAIN:
        if tree.refinements and tree.name != "adapter":
            raise Fault(
                "PEM0340",
                f"the type {tree.name} has no refinements",
                f"did you mean `{tree.name}`?",
            )
        return tree.name
    close = _ELSEWHERE.get(tree.name) or nearest(tree.name, [*PLAIN, *PARAMETRISATIONS])
    raise Fault(
        "PEM0317",
        f"there is no type `{visible(tree.name, 40)}`",
        f"did you mean `{close}`?"
        if close
        else "write one of " + ", ".join([*PLAIN, *PARAMETRISATIONS]),
    )


def choose(operator: Operator, kinds: Sequence[str]) -> Signature:
    """The signature of an infix or prefix operator that takes these kinds; raises PEM0302."""
    for signature in operator.signatures:
        if len(signature.params) == len(kinds) and all(
            fits(kind, param.kinds) for kind, param in zip(kinds, signature.params, strict=True)
        ):
            return signature
    symbol = operator.symbols[0]
    given = " and ".join(article(kind) for kind in kinds)
    hint = _hint(symbol, kinds) or f"see what it takes: pem ops '{symbol}'"
    raise Fault("PEM0302", f"`{symbol}` does not take {given}", hint)


def _hint(symbol: str, kinds: Sequence[str]) -> str | None:
    if "function" in kinds:
        return "call the function: name(…)"
    if set(kinds) == {"number", "adapter"} and symbol in "+-⊕⊖":
        return f"to scale an adapter, write number {'⊗' if symbol in '⊕⊖' else '*'} adapter"
    if set(kinds) == {"number", "adapter"} and symbol == "/":
        return "a number divides an adapter: adapter / number"
    if set(kinds) == {"adapter"} and symbol in "*/⊗":
        return "scale an adapter by a number, as in 0.5 * a: two adapters do not multiply"
    if set(kinds) == {"adapter", "model"} and symbol == "+":
        return "write the model first: model + adapter"
    if set(kinds) == {"string"}:
        return 'put texts together by names in braces: "{a}{b}"'
    return None


# --- the body of a function, before anyone calls it ----------------------------------------


class KindChecker:
    """The kind of an expression whose values are not known yet.

    `kind` gives None where it depends on something that is wrong already or not known.
    """

    def __init__(self, env: Mapping[str, str | None]) -> None:
        self._env = env

    def kind(self, tree: t.Tree) -> str | None:
        kind_of_one = _KINDS.get(type(tree))
        return None if kind_of_one is None else kind_of_one(self, tree)

    def _name(self, tree: t.Name) -> str | None:
        return self._env.get(tree.name) if tree.module is None else None

    def _truth(self, tree: t.Tree) -> str:
        self._children(tree)
        return "bool"

    def _unary(self, tree: t.Unary) -> str | None:
        return self._operator(PREFIX, tree.operator, [self.kind(tree.operand)])

    def _chain(self, tree: t.Chain) -> str | None:
        kind = self.kind(tree.operands[0])
        for operator, operand in zip(tree.operators, tree.operands[1:], strict=True):
            kind = self._operator(INFIX, operator, [kind, self.kind(operand)])
        return kind

    def _call(self, tree: t.Call) -> str | None:
        if tree.function.module is not None or tree.function.name not in FUNCTIONS:
            return None
        self._children(tree)
        called = FUNCTIONS[tree.function.name]
        returns = called.signatures[0].returns
        return None if called.of_models or returns == ITEM else returns

    def _list(self, tree: t.ListOf) -> str | None:
        kinds = {self.kind(item) for item in tree.items}
        return f"[{kinds.pop()}]" if len(kinds) == 1 and None not in kinds else None

    def _item(self, tree: t.Tree) -> str | None:
        """Of the items of a list."""
        kind = self.kind(tree)
        return kind[1:-1] or None if kind and kind.startswith("[") else None

    def _chosen(self, tree: t.If) -> str | None:
        condition = self.kind(tree.condition)
        if condition not in (None, "bool"):
            message = f"this is {article(str(condition))}, a bool is wanted"
            raise Placed(Fault("PEM0301", message, "write a condition"), tree.condition)
        kinds = {self.kind(tree.then), self.kind(tree.otherwise)}
        if kinds == {"number", "schedule"}:
            return "schedule"
        if len(kinds) > 1 and None not in kinds:
            both = " and ".join(article(str(kind)) for kind in sorted(map(str, kinds)))
            message = f"what is chosen is of one kind, these are {both}"
            raise Placed(Fault("PEM0301", message, "give two values of one kind"), tree)
        return kinds.pop() if len(kinds) == 1 else None

    def _for_each(self, tree: t.ForEach) -> str | None:
        env = dict(self._env)
        for name, source in zip(tree.names, tree.lists, strict=False):
            env[name.name] = self._item(source)
        kind = KindChecker(env).kind(tree.body)
        return None if kind is None else f"[{kind}]"

    def _children(self, tree: t.Tree) -> None:
        for child in tree.children():
            self.kind(child.value if isinstance(child, t.NamedArg) else child)

    def _selected(self, tree: t.Selection) -> str | None:
        kind = self.kind(tree.operand)
        if kind not in (None, "adapter"):
            raise Placed(not_selectable(str(kind)), tree)
        return kind

    def _operator(
        self, table: Mapping[str, Operator], operator: t.Symbol, kinds: list[str | None]
    ) -> str | None:
        certain = [kind for kind in kinds if kind is not None]
        if len(certain) < len(kinds):
            return None
        if operator.symbol not in table:
            raise Placed(not_prefix(operator.symbol), operator)
        try:
            return choose(table[operator.symbol], certain).returns
        except Fault as fault:
            raise Placed(fault, operator) from None


_KINDS: dict[type[t.Tree], Callable[..., str | None]] = {
    t.Number: lambda _, tree: "number",
    t.String: lambda _, tree: "string",
    t.Per: lambda _, tree: "schedule",
    t.Bool: KindChecker._truth,
    t.Compare: KindChecker._truth,
    t.Logic: KindChecker._truth,
    t.Name: KindChecker._name,
    t.Selection: KindChecker._selected,
    t.Unary: KindChecker._unary,
    t.Chain: KindChecker._chain,
    t.If: KindChecker._chosen,
    t.ListOf: KindChecker._list,
    t.ForEach: KindChecker._for_each,
    t.Index: lambda kinds, tree: kinds._item(tree.operand),
    t.Call: KindChecker._call,
}
"""What gives the kind of each kind of expression."""


class Placed(Exception):
    """A fault with its place in the tree."""

    def __init__(self, fault: Fault, tree: t.Tree) -> None:
        self.fault, self.tree = fault, tree


def not_selectable(kind: str) -> Fault:
    """What to say of a selection from something that has no sites."""
    return Fault(
        "PEM0302", f"{article(kind)} has no sites to select", "select from an adapter: x[…]"
    )


def not_prefix(symbol: str) -> Fault:
    """What to say of an operator that needs a value on its left."""
    return Fault("PEM0302", f"`{symbol}` stands between two values", "write - or ⊖ to negate")
