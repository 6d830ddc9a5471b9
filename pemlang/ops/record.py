"""One operator, one record. Everything that is known about an operator stands in its record: the
checker, the evaluator, the documentation and the tests read it there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from types import EllipsisType
from typing import TYPE_CHECKING, TypeAlias

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault
from pemlang.graph.dag import Graph
from pemlang.graph.node import AdapterNode, ModelNode, NumberNode
from pemlang.kernels.methods import Reference
from pemlang.ops.use import Edit, Use

if TYPE_CHECKING:
    from pemlang.graph.node import Num
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.ops.schedule import Schedule

Result: TypeAlias = "Num | Schedule | AdapterNode | ModelNode"
"""What an operator gives."""

ITEM = "item"

Default: TypeAlias = "Fraction | str | EllipsisType | None"
"""What a parameter is when it is not given; `...` where it has to be."""


@dataclass(frozen=True, eq=False)
class Watch:
    """Something to look at once weights are read, and to warn of: how far the A row spaces of
    the operands of a ⊕ overlap. `terms` are what the ⊕ combines, `instead` is what combines what
    they do, at a rank, where a text says that."""

    left: AdapterNode
    right: AdapterNode
    terms: frozenset[AdapterNode]
    texts: tuple[str, str]
    instead: str | None

    def rebuilt(self, new: Rebuilding) -> Watch:
        """The same over other adapters."""
        terms = frozenset(new.adapter(x) for x in self.terms)
        return replace(
            self, left=new.adapter(self.left), right=new.adapter(self.right), terms=terms
        )


class Context:
    """What a type rule may use: the graph, and how its arguments are written in the recipe.

    `what` is the operator as written. `items` are the texts of the items of the list that a
    function is given, where it is written out. `use` is all of what is written, which help is made
    from; `at` is the operand of it that is held to those before. `fixed` says what to do where an
    operator takes adapters as they are declared, so that no expression can stand for one.
    `over_delta` makes a call that combines factors one that combines what they do. `noticed` takes
    what is worth a warning.
    """

    def __init__(
        self,
        graph: Graph,
        texts: tuple[str, ...] = (),
        what: str = "",
        items: tuple[str, ...] = (),
        use: Use | None = None,
        at: int = 1,
    ) -> None:
        self.graph = graph
        self.texts = texts
        self.what = what
        self.items = items
        self.use = use
        self.at = at
        self.fixed: str | None = None
        self.over_delta: tuple[Edit, ...] = ()
        self.watches: list[Watch] = []
        self.noticed: list[Fault] = []

    def text(self, index: int) -> str:
        """The argument as written, short enough for a message."""
        return self.texts[index] if index < len(self.texts) else "x"

    def item(self, index: int) -> str:
        """An item of the list as written."""
        return self.items[index] if index < len(self.items) else f"item {index + 1}"

    def having(self, name: str, text: str) -> str:
        """The use with another value for a parameter or an option; in words where there is none."""
        return (self.use and self.use.having(name, text)) or f"write it as {name}={text}"

    def pair(self, texts: tuple[str, str], what: str) -> Context:
        """The context of two of the adapters that a function combines."""
        pair = Context(self.graph, texts, what, use=self.use)
        pair.fixed, pair.over_delta = self.fixed, self.over_delta
        return pair


def _plainly(number: Fraction) -> str:
    return str(number) if number.denominator == 1 else f"{float(number):g}"


@dataclass(frozen=True)
class Within:
    """The numbers that a parameter takes: from `low` to `high`, or above `low` where it is open;
    whole ones alone where that is said."""

    low: Fraction
    high: Fraction | None = None
    open: bool = False
    whole: bool = False

    def __contains__(self, number: Fraction) -> bool:
        above = number > self.low if self.open else number >= self.low
        fits = not self.whole or number.denominator == 1
        return fits and above and (self.high is None or number <= self.high)

    def __str__(self) -> str:
        kind = "whole numbers" if self.whole else "numbers"
        low = f"{kind} {'above' if self.open else 'from'} {_plainly(self.low)}"
        if self.high is None:
            return low + ("" if self.open else " on")
        return f"{low}{', up' if self.open else ''} to {_plainly(self.high)}"


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter of an operator: its name, its kinds, and its default when it has one; the
    numbers, or the words, that it takes."""

    name: str
    kinds: tuple[str, ...]
    default: Default = ...
    variadic: bool = False
    within: Within | None = None
    words: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        return self.default is ...

    @property
    def choice(self) -> str:
        """What one takes that takes words, in words: delta or factors."""
        return " or ".join(["a number"] * ("number" in self.kinds) + [*self.words])


@dataclass(frozen=True, eq=False)
class Signature:
    """One way to call an operator: what it takes, the kind it gives (ITEM where that is the kind
    of the items of its list), and its type rule.

    The rule takes a Context and the arguments, and gives the value; it raises Fault. `on_model`
    says that it adds adapters to models, those too that have no Δ of their own.
    """

    params: tuple[Parameter, ...]
    returns: str
    rule: Callable[..., Result]
    on_model: bool = False


@dataclass(frozen=True)
class Terms:
    """How a chain x₁ ± x₂ ± … of adapters becomes one value, without a value for each step.

    Attributes:
        agree: holds a further term to the ones before, of which it is given one; gives the one
            to hold later terms to. Raises Fault.
        total: the value of the terms with their signs.
    """

    agree: Callable[[Context, AdapterNode, AdapterNode], AdapterNode]
    total: Callable[[Graph, Sequence[tuple[int, AdapterNode]]], AdapterNode]

    def pair(self, sign: int) -> Callable[[Context, AdapterNode, AdapterNode], AdapterNode]:
        """The type rule of one operator of the chain: a chain of two."""

        def rule(ctx: Context, x: AdapterNode, y: AdapterNode) -> AdapterNode:
            self.agree(ctx, x, y)
            return self.total(ctx.graph, [(1, x), (sign, y)])

        return rule


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator of the language.

    Attributes:
        name: what it is called; for an infix operator a word, for a function its name.
        symbols: how it is written when it is not a function: ("+",), or ("-",) both ways.
        signatures: its kinds and type rules.
        summary: one sentence.
        formula: what it computes.
        laws: the algebraic laws its rewrites rest on.
        source: the paper it comes from, where it has one, and what other tools call it.
        aliases: other names it goes by.
        rank: what rank comes out, where it is not plain from the formula.
        reference: what it does to Δ ("delta", dense float64 arrays) or to the pair (A, B)
            ("factors"), written apart from the kernels; the tests hold the compiler to it.
        of_models: the same on models, where it means something there.
        terms: for + − ⊕ ⊖, how a chain of them is evaluated; `sign` is the operator's in it.
    """

    name: str
    signatures: tuple[Signature, ...]
    summary: str
    formula: str
    symbols: tuple[str, ...] = ()
    laws: tuple[str, ...] = ()
    source: str = ""
    aliases: tuple[str, ...] = ()
    rank: str = ""
    reference: Reference | None = None
    acts_on: str = ""
    of_models: Signature | None = None
    terms: Terms | None = None
    sign: int = 1


@dataclass(frozen=True, eq=False)
class Section:
    """Operators of one kind, as the documentation has them together.

    Attributes:
        title, text: what they are, and what they have in common, in Markdown.
        operators: in the order they are told of.
    """

    title: str
    text: str
    operators: tuple[Operator, ...]


SECTIONS: list[Section] = []
"""All operators, in the order of the documentation."""

FUNCTIONS: dict[str, Operator] = {}
"""The operators that are called, by each of their names."""

INFIX: dict[str, Operator] = {}
"""The operators between two operands, by their symbol."""

PREFIX: dict[str, Operator] = {}
"""The operators before one operand, by their symbol."""


def register(section: Section) -> Section:
    """Make operators known: to the language, to the documentation and to the tests."""
    SECTIONS.append(section)
    for operator in section.operators:
        if operator.symbols:
            infix = len(operator.signatures[0].params) == 2
            (INFIX if infix else PREFIX)[operator.symbols[0]] = operator
        else:
            FUNCTIONS.update(dict.fromkeys((operator.name, *operator.aliases), operator))
    return section


def every_operator() -> list[Operator]:
    """All operators, in the order of the documentation."""
    return [operator for section in SECTIONS for operator in section.operators]


def kind_of(value: object) -> str:
    """The kind of a value of the language, as the reader of a message calls it."""
    for type_, kind in _KINDS.items():
        if isinstance(value, type_):
            return kind
    return str(value.kind)  # type: ignore[attr-defined]


_KINDS: dict[type, str] = {
    bool: "bool",
    Fraction: "number",
    str: "string",
    tuple: "list",
    NumberNode: "number",
    AdapterNode: "adapter",
    ModelNode: "model",
}
