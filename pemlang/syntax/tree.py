"""The tree of a recipe: what was written, with its place, and nothing resolved yet."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TypeVar, dataclass_transform

from pemlang.dataclass import dataclass
from pemlang.source import Source, Span

TreeKind = TypeVar("TreeKind")


@dataclass_transform(frozen_default=True, eq_default=False)
def tree(kind: type[TreeKind]) -> type[TreeKind]:
    """Make a class one of the trees. Two of them are the same tree only where they stand in the
    same place, which their identity says."""
    return dataclass(frozen=True, eq=False, repr=False, slots=True)(kind)


@tree
class Tree:
    """A piece of a recipe and where it stands."""

    span: Span

    def children(self) -> Iterator[Tree]:
        """Every tree directly below this one, found from the fields so that none is skipped."""
        for name in self.__match_args__:
            value = getattr(self, name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Tree):
                    yield item

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.span.text!r}>"


MovedTree = TypeVar("MovedTree", bound=Tree)


def moved(tree: MovedTree, source: Source, by: int) -> MovedTree:
    """The same tree where its text stands in another source, `by` characters further on."""
    span = Span(source, tree.span.start + by, tree.span.end + by)
    fields = (getattr(tree, name) for name in tree.__match_args__ if name != "span")
    return type(tree)(span, *(_moved(field, source, by) for field in fields))


def _moved(value: object, source: Source, by: int) -> object:
    if isinstance(value, Tree):
        return moved(value, source, by)
    if isinstance(value, tuple):
        return tuple(_moved(item, source, by) for item in value)
    return value


# --- expressions ---------------------------------------------------------------------------


@tree
class Number(Tree):
    """`0.5`, `1e-3`: exact."""

    value: Fraction


@tree
class String(Tree):
    """Text parts and the names interpolated between them."""

    parts: tuple[str | Name, ...]


@tree
class Bool(Tree):
    """`true` or `false`."""

    value: bool


@tree
class Name(Tree):
    """A name, or `module.name`."""

    name: str
    module: str | None = None


@tree
class ListOf(Tree):
    """`[a, b]`."""

    items: tuple[Tree, ...]


@tree
class Chain(Tree):
    """Operands joined left to right by operators of one precedence: a long sum is not deep."""

    operands: tuple[Tree, ...]
    operators: tuple[Symbol, ...]


@tree
class Symbol(Tree):
    """An operator as it was written, such as `+` or `⊕`."""

    symbol: str


@tree
class Unary(Tree):
    """`-x`, `⊖x`."""

    operator: Symbol
    operand: Tree


@tree
class Compare(Tree):
    """`norm(a) < 0.5`."""

    left: Tree
    operator: Symbol
    right: Tree


@tree
class Logic(Tree):
    """`and`, `or` over any number of operands, `not` over one."""

    word: str
    operands: tuple[Tree, ...]


@tree
class NamedArg(Tree):
    """`density=0.2`."""

    name: str
    value: Tree

    @property
    def name_span(self) -> Span:
        """Where the name is written."""
        return Span(self.span.source, self.span.start, self.span.start + len(self.name))


@tree
class Call(Tree):
    """`ties(a, b, density=0.2)`."""

    function: Name
    args: tuple[Tree, ...]  # NamedArg or expressions

    @property
    def form(self) -> str | None:
        """Which of `FORMS` it is, if it is one."""
        name = self.function
        return name.name if name.module is None and name.name in FORMS else None


@tree
class Globs(Tree):
    """`x["*.q_proj", …]`: sites by name."""

    patterns: tuple[String, ...]


@tree
class Layers(Tree):
    """`x[layers 0..3]`: sites by layer."""

    first: Tree
    last: Tree


@tree
class Like(Tree):
    """`x[like y]`: the sites of another adapter."""

    other: Tree


@tree
class Selection(Tree):
    """`x[…]`: some sites of an adapter."""

    operand: Tree
    selector: Globs | Layers | Like


@tree
class Index(Tree):
    """`xs[0]`: one item of a list."""

    operand: Tree
    number: Tree


@tree
class If(Tree):
    """`if c then x else y`: one of two values."""

    condition: Tree
    then: Tree
    otherwise: Tree


@tree
class ForEach(Tree):
    """`[f(x) for x in xs]`, `[w * x for w, x in zip(ws, xs)]`: a value for each item of a list."""

    body: Tree
    names: tuple[Name, ...]
    source: Tree

    @property
    def lists(self) -> tuple[Tree, ...]:
        """What the names stand for the items of: `zip`, which means nothing elsewhere, goes through
        several lists at once."""
        source = self.source
        if isinstance(source, Call) and source.function.module is None:
            return source.args if source.function.name == "zip" else (source,)
        return (source,)


@tree
class PerItem(Tree):
    """One row of `per { … }`; the pattern is None for `else`."""

    pattern: String | None
    value: Tree


@tree
class Per(Tree):
    """`per { "*.q": 0.5, else: 1 }`: a number for each site."""

    items: tuple[PerItem, ...]


@tree
class Rename(Tree):
    """One row of `{ "a.*": "b.*" }`: what modules are called, and what they are to be called."""

    old: String
    new: String


@tree
class Renames(Tree):
    """`{ "a.*": "b.*" }`: other names for modules."""

    rows: tuple[Rename, ...]


# --- types ---------------------------------------------------------------------------------


@tree
class TypeName(Tree):
    """`lora(rank=8)`: a type and what it asks for."""

    name: str
    refinements: tuple[NamedArg, ...]


@tree
class TypeList(Tree):
    """`[adapter]`."""

    item: Tree


# --- statements ----------------------------------------------------------------------------


@tree
class Statement(Tree):
    """A statement; `doc` is the text of the `##` lines right above it."""

    doc: str


@tree
class Language(Statement):
    """`language 1`."""

    version: Number


@tree
class Import(Statement):
    """`module` is a dotted path for `std.…`, a string for a file; names or an alias. `hands_on`
    says whether files that import this one see them too."""

    module: tuple[str, ...] | String
    names: tuple[Name, ...]
    alias: Name | None
    hands_on: bool


@tree
class Declaration(Statement):
    """A statement that gives a name."""

    name: Name


@tree
class Base(Declaration):
    """`base llama = …`: a base model by its names."""

    identity: Tree


@tree
class ModelStatement(Declaration):
    """`model m on llama = "path"`: whole weights; `with` options, whose values may be Renames."""

    base: Name | None
    path: String
    options: tuple[NamedArg, ...]


@tree
class AdapterStatement(Declaration):
    """`adapter a: lora on llama = "path"`: an adapter in files; options as of a model."""

    type: Tree | None
    base: Name | None
    path: String
    options: tuple[NamedArg, ...]


@tree
class Param(Declaration):
    """`param w: number in 0..1 = 0.5`: a value that may be set from outside."""

    type: Tree
    low: Tree | None
    high: Tree | None
    default: Tree | None


@tree
class Let(Declaration):
    """`let x = …`: a name for a value."""

    type: Tree | None
    value: Tree


@tree
class DefParam(Tree):
    """A param of a `def`: `w: number in 0..1 = 0.5`."""

    name: Name
    type: Tree
    low: Tree | None
    high: Tree | None
    default: Tree | None


@tree
class Def(Declaration):
    """`def f(a: adapter, w: number = 1) -> adapter = …`."""

    params: tuple[DefParam, ...]
    returns: Tree | None
    body: Tree

    @property
    def signature(self) -> str:
        """What it takes and gives, in one line: `f(a: adapter, w: number = 1) -> adapter`."""
        params = ", ".join(" ".join(param.span.text.split()) for param in self.params)
        returns = "" if self.returns is None else f" -> {self.returns.span.text}"
        return f"{self.name.name}({params}){returns}"


@tree
class Assert(Statement):
    """`assert … else "…"`."""

    condition: Tree
    message: String | None


@tree
class Save(Statement):
    """`save x to "path" with rank=16`: an output."""

    value: Tree
    path: String
    options: tuple[NamedArg, ...]


@tree
class Print(Statement):
    """`print norm(a)`: something to be told when the recipe is built, or tested."""

    value: Tree


@tree
class Test(Statement):
    """`test "name" { … }`: what holds of this file; `pem test` runs it."""

    title: String
    statements: tuple[Statement, ...]


@tree
class Unread(Declaration):
    """A declaration that does not parse: its name exists, so that its uses are no mistakes."""


@tree
class RecipeFile(Tree):
    """A whole file."""

    statements: tuple[Statement, ...]


FORMS = ("sample", "same", "fails")
"""Calls that are no operators: what they are given is not just values."""

KEYWORDS = frozenset(
    "language import as base model adapter param let def assert else save test to with on in and "
    "or not true false per if then for zip export print".split()
)
