"""The tree of a recipe: what was written, with its place, and nothing resolved yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from fractions import Fraction

from pemlang.source import Span


@dataclass(frozen=True, slots=True)
class Tree:
    """A piece of a recipe and where it stands."""

    span: Span

    def children(self) -> Iterator[Tree]:
        """Every tree directly below this one, found from the fields so that none is skipped."""
        for field in fields(self):
            value = getattr(self, field.name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Tree):
                    yield item


# --- expressions ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number(Tree):
    value: Fraction


@dataclass(frozen=True, slots=True)
class String(Tree):
    """Text parts and the names interpolated between them."""

    parts: tuple[str | Name, ...]


@dataclass(frozen=True, slots=True)
class Bool(Tree):
    value: bool


@dataclass(frozen=True, slots=True)
class Name(Tree):
    """A name, or `module.name`."""

    name: str
    module: str | None = None


@dataclass(frozen=True, slots=True)
class ListOf(Tree):
    items: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Chain(Tree):
    """Operands joined left to right by operators of one precedence: a long sum is not deep."""

    operands: tuple[Tree, ...]
    operators: tuple[Symbol, ...]


@dataclass(frozen=True, slots=True)
class Symbol(Tree):
    symbol: str


@dataclass(frozen=True, slots=True)
class Unary(Tree):
    operator: Symbol
    operand: Tree


@dataclass(frozen=True, slots=True)
class Compare(Tree):
    left: Tree
    operator: Symbol
    right: Tree


@dataclass(frozen=True, slots=True)
class Logic(Tree):
    """`and`, `or` over any number of operands, `not` over one."""

    word: str
    operands: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class NamedArg(Tree):
    name: str
    value: Tree


@dataclass(frozen=True, slots=True)
class Call(Tree):
    function: Name
    args: tuple[Tree, ...]  # NamedArg or expressions


@dataclass(frozen=True, slots=True)
class Globs(Tree):
    patterns: tuple[String, ...]


@dataclass(frozen=True, slots=True)
class Layers(Tree):
    first: Tree
    last: Tree


@dataclass(frozen=True, slots=True)
class Like(Tree):
    other: Tree


@dataclass(frozen=True, slots=True)
class Selection(Tree):
    operand: Tree
    selector: Globs | Layers | Like


@dataclass(frozen=True, slots=True)
class PerItem(Tree):
    """One row of `per { … }`; the pattern is None for `else`."""

    pattern: String | None
    value: Tree


@dataclass(frozen=True, slots=True)
class Per(Tree):
    items: tuple[PerItem, ...]


# --- types ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TypeName(Tree):
    name: str
    refinements: tuple[NamedArg, ...]


@dataclass(frozen=True, slots=True)
class TypeList(Tree):
    item: Tree


# --- statements ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Statement(Tree):
    """A statement; `doc` is the text of the `##` lines right above it."""

    doc: str


@dataclass(frozen=True, slots=True)
class Language(Statement):
    version: Number


@dataclass(frozen=True, slots=True)
class Import(Statement):
    """`module` is a dotted path for `std.…`, a string for a file; names or an alias."""

    module: tuple[str, ...] | String
    names: tuple[Name, ...]
    alias: Name | None


@dataclass(frozen=True, slots=True)
class Declaration(Statement):
    """A statement that gives a name."""

    name: Name


@dataclass(frozen=True, slots=True)
class Base(Declaration):
    identity: Tree


@dataclass(frozen=True, slots=True)
class ModelStatement(Declaration):
    base: Name | None
    path: String


@dataclass(frozen=True, slots=True)
class AdapterStatement(Declaration):
    type: Tree | None
    base: Name | None
    path: String


@dataclass(frozen=True, slots=True)
class Param(Declaration):
    type: Tree
    low: Tree | None
    high: Tree | None
    default: Tree | None


@dataclass(frozen=True, slots=True)
class Let(Declaration):
    type: Tree | None
    value: Tree


@dataclass(frozen=True, slots=True)
class DefParam(Tree):
    name: Name
    type: Tree
    default: Tree | None


@dataclass(frozen=True, slots=True)
class Def(Declaration):
    params: tuple[DefParam, ...]
    returns: Tree | None
    body: Tree


@dataclass(frozen=True, slots=True)
class Assert(Statement):
    condition: Tree
    message: String | None


@dataclass(frozen=True, slots=True)
class Save(Statement):
    value: Tree
    path: String
    options: tuple[NamedArg, ...]


@dataclass(frozen=True, slots=True)
class Unread(Declaration):
    """A declaration that does not parse: its name exists, so that its uses are no mistakes."""


@dataclass(frozen=True, slots=True)
class RecipeFile(Tree):
    statements: tuple[Statement, ...]


KEYWORDS = frozenset(
    "language import as base model adapter param let def assert else save test to with on in and "
    "or not true false per".split()
)
