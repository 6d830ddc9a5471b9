"""Recipe expressions as trees, and their text.

A tree is written with the fewest brackets its precedence needs, so that chains and bindings are
tested too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from support.laws.pool import declared


@dataclass(frozen=True)
class Tree:
    """One operation: what it is, its operands (trees), and what else it needs."""

    op: str
    args: tuple[Tree, ...] = ()
    data: Any = None

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(Writer().recipe(self))  # how Hypothesis shows it


def call(name: str, *args: Tree, **options: object) -> Tree:
    return Tree("call", args, (name, options))


def leaf(name: str) -> Tree:
    return Tree("leaf", data=name)


# --- text ----------------------------------------------------------------------------------

PRELUDE = """
def blend(x: adapter, y: adapter, by: number = 0.25) -> adapter = by * x + (1 - by) * y
def undo(x: adapter, y: adapter, by: number = 1) -> adapter = x - by * y
def eased(x: adapter, s: schedule) -> adapter = s * x
def fold(x: adapter, y: adapter) -> adapter = x ⊕ ⊖y
import std.paper (merge, unlearn)
"""
SUM, PRODUCT, UNARY, POSTFIX = 1, 2, 3, 4
INFIX = {"+": SUM, "-": SUM, "⊕": SUM, "⊖": SUM, "*": PRODUCT, "/": PRODUCT, "⊗": PRODUCT}
PREFIX = {"neg": "-", "pneg": "⊖"}
ASCII = {"⊕": ".+", "⊖": ".-", "⊗": ".*"}


class Writer:
    """Writes trees, and keeps what has to stand above them: declarations and lets."""

    def __init__(self, ascii: bool = False, names: Mapping[str, str] | None = None) -> None:
        self._ascii, self._names = ascii, names or {}
        self._leaves: set[str] = set()
        self._lets: list[str] = []

    def recipe(self, *trees: Tree) -> str:
        """A recipe in which the trees are x, y, …."""
        named = [
            f"let {name} = {self.text(tree)}" for name, tree in zip("xyz", trees, strict=False)
        ]
        return (
            declared(self._leaves, self._names) + PRELUDE + "\n".join([*self._lets, *named]) + "\n"
        )

    def text(self, tree: Tree, need: int = 0) -> str:
        """A tree as an operand of something that binds as tightly as `need`."""
        if tree.op in INFIX:
            binds = INFIX[tree.op]
            left, right = tree.args
            symbol = ASCII.get(tree.op, tree.op) if self._ascii else tree.op
            chain = f"{self.text(left, binds)} {symbol} {self.text(right, binds + 1)}"
            return f"({chain})" if binds < need else chain
        if tree.op in PREFIX:
            symbol = PREFIX[tree.op]
            symbol = ASCII.get(symbol, symbol) if self._ascii else symbol
            signed = f"{symbol}{self.text(tree.args[0], UNARY)}"
            return f"({signed})" if need > UNARY else signed
        write: Callable[[Tree], str] = getattr(self, f"_{tree.op}")
        return write(tree)

    def _list(self, trees: tuple[Tree, ...]) -> str:
        return ", ".join(self.text(tree) for tree in trees)

    def _leaf(self, tree: Tree) -> str:
        self._leaves.add(tree.data)
        return self._names.get(tree.data, tree.data)

    def _number(self, tree: Tree) -> str:
        return str(tree.data)

    def _select(self, tree: Tree) -> str:
        kind, *rest = tree.data
        if kind == "like":
            sites = f"like {self.text(rest[0])}"
        elif kind == "layers":
            sites = f"layers {rest[0]}..{rest[1]}"
        else:
            sites = ", ".join(f'"{glob}"' for glob in rest)
        return f"{self.text(tree.args[0], POSTFIX)}[{sites}]"

    def _call(self, tree: Tree) -> str:
        name, options = tree.data
        parts = [self._list(tree.args), *(f"{key}={value}" for key, value in options.items())]
        return f"{name}({', '.join(part for part in parts if part)})"

    def _steps(self, tree: Tree) -> str:
        return f"steps([{self._list(tree.args)}])"

    def _per(self, tree: Tree) -> str:
        *rows, otherwise = [self.text(arg) for arg in tree.args]
        cases = [f'"{glob}": {value}' for glob, value in zip(tree.data, rows, strict=True)]
        return f"per {{ {', '.join([*cases, f'else: {otherwise}'])} }}"

    def _let(self, tree: Tree) -> str:
        value = self.text(tree.args[0])
        name = f"n{len(self._lets)}"
        self._lets.append(f"let {name} = {value}")
        return name
