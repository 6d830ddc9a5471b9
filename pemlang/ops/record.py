"""One operator, one record. Everything that is known about an operator stands in its record: the
checker, the evaluator, the documentation and the tests read it there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pemlang.graph.node import AdapterType, Graph, ModelType, Node, Num, NumberType

if TYPE_CHECKING:
    # A check reads these records and never a tensor: what computes is imported where it runs.
    from pemlang.kernels.program import Builder, Value
    from pemlang.modules.factors import Factors


@dataclass(frozen=True)
class Watch:
    """Something to look at once weights are read, and to warn of: how far the A row spaces of
    the operands of a ⊕ overlap. `terms` are what the ⊕ combines, `exact` is the expression that
    adds what they do instead."""

    left: Node
    right: Node
    terms: frozenset[Node]
    texts: tuple[str, str]
    exact: str


class Context:
    """What a type rule may use: the graph, and how its arguments are written in the recipe.

    `what` is the operator as written. `left` is all that stands left of it: in a chain more than
    the one term that a further one is held to. `items` are the texts of the items of the list
    that a function is given, where it is written out.
    """

    def __init__(
        self,
        graph: Graph,
        texts: tuple[str, ...] = (),
        what: str = "",
        left: str | None = None,
        items: tuple[str, ...] = (),
    ) -> None:
        self.graph = graph
        self.texts = texts
        self.what = what
        self.left = self.text(0) if left is None else left
        self.items = items
        self.watches: list[Watch] = []

    def text(self, index: int) -> str:
        """The argument as written, for help that can be pasted."""
        return self.texts[index] if index < len(self.texts) else "x"

    def combined(self, *texts: str) -> str:
        """The operator between operands, or the function of them, as a recipe writes it."""
        if "…" in self.what:
            return self.what.replace("…", ", ".join(texts), 1)
        if self.what.isidentifier():
            return f"{self.what}({', '.join(texts)})"
        return f" {self.what} ".join(texts)

    def item(self, index: int) -> str:
        """An item of the list as written."""
        return self.items[index] if index < len(self.items) else f"item {index + 1}"


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


@dataclass(frozen=True)
class Param:
    """A parameter of an operator: its name, its kinds, and its default when it has one; the
    numbers, or the words, that it takes."""

    name: str
    kinds: tuple[str, ...]
    default: Any = ...
    variadic: bool = False
    within: Within | None = None
    words: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        return self.default is ...


@dataclass(frozen=True)
class Signature:
    """One way to call an operator: what it takes, the kind it gives, and its type rule.

    The rule takes a Context and the arguments, and gives the value; it raises Fault.
    """

    params: tuple[Param, ...]
    returns: str
    rule: Callable[..., Any]


@dataclass(frozen=True)
class Terms:
    """How a chain x₁ ± x₂ ± … of adapters becomes one value, without a value for each step.

    Attributes:
        agree: holds a further term to the ones before, of which it is given one; gives the one
            to hold later terms to. Raises Fault.
        total: the value of the terms with their signs.
    """

    agree: Callable[[Context, Node, Node], Node]
    total: Callable[[Graph, Sequence[tuple[int, Node]]], Node]

    def pair(self, sign: int) -> Callable[[Context, Node, Node], Node]:
        """The type rule of one operator of the chain: a chain of two."""

        def rule(ctx: Context, x: Node, y: Node) -> Node:
            self.agree(ctx, x, y)
            return self.total(ctx.graph, [(1, x), (sign, y)])

        return rule


@dataclass(frozen=True)
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
    reference: Callable[..., Any] | None = None
    acts_on: str = ""
    terms: Terms | None = None
    sign: int = 1


# --- evaluation ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """A truncation at one site: the value that tells what it costs, and how far the rank came
    down."""

    cost: Value
    by: int


@dataclass
class Run:
    """What lowering at one site needs beside factors.

    Attributes:
        builder: takes the steps.
        read: the factors of a leaf.
        statistic: one of the statistics of a leaf by its kind, as float64.
        number: the value of a number, measured if it has to be.
        rank: the least rank at which a node keeps a share of its squared norm.
        cuts: a place to note truncations, by node.
    """

    builder: Builder
    read: Callable[[Node], Factors]
    statistic: Callable[[Node, str], Value]
    number: Callable[[Num], float]
    rank: Callable[[Node, float], int]
    cuts: dict[Node, Cut] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeKind:
    """How one kind of node of the normal form behaves.

    Attributes:
        op: the node's op.
        ranks: the rank at each site, an upper bound where a number or an energy decides.
        scales: the scale s at each site.
        lower: the factors at a site from the factors of the arguments there; None is zero.
        steady: whether it does the same at all sites whose tensors are alike, so that lowering
            one of them will do.
        cut: the node that compress(node, rank=…) is, where that is one of this kind too.
    """

    op: str
    ranks: Callable[[Node], Mapping[str, int]]
    scales: Callable[[Node], Mapping[str, float]]
    lower: Callable[[Run, Node, str, Mapping[Node, Factors | None]], Factors | None]
    steady: Callable[[Node], bool] = lambda node: False
    cut: Callable[[Graph, Node, int], Node | None] = lambda graph, node, rank: None


NODE_KINDS: dict[str, NodeKind] = {}


def node_kind(kind: NodeKind) -> NodeKind:
    """Make a kind of node known."""
    NODE_KINDS[kind.op] = kind
    return kind


@lru_cache(maxsize=1 << 14)
def ranks(node: Node) -> Mapping[str, int]:
    """The rank a LoRA node has at each site: what would be written. Zero where it has no term."""
    return NODE_KINDS[node.op].ranks(node)


@lru_cache(maxsize=1 << 14)
def scales(node: Node) -> Mapping[str, float]:
    """The scale s a LoRA node has at each site."""
    return NODE_KINDS[node.op].scales(node)


def kind_of(value: Any) -> str:
    """The kind of a value of the language, as the reader of a message calls it."""
    if isinstance(value, Node):
        return {NumberType: "number", AdapterType: "adapter", ModelType: "model"}[type(value.type)]
    for type_, kind in _KINDS.items():
        if isinstance(value, type_):
            return kind
    return str(value.kind)


_KINDS: dict[type, str] = {bool: "bool", Fraction: "number", str: "string", tuple: "list"}
