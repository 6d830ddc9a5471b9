"""The typed DAG of a recipe: interned nodes, and the networkx graph of them.

Two expressions that are written alike, or that the rewrites make alike, are one node. A kind of
node is one class: its fields, and all that is known about it anywhere.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from fractions import Fraction
from functools import cached_property
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, TypeVar

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault
from pemlang.formats.adapter import Adapter
from pemlang.graph.types import AdapterType, ModelType, NodeType, NumberType
from pemlang.modules import Shapes

if TYPE_CHECKING:
    import networkx as nx

    from pemlang.graph.difference import Difference
    from pemlang.graph.formula import Formula
    from pemlang.graph.lowering import LoweringContext
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.modules import SiteValues

MAX_DEPTH = 200
MAX_NUMBERS = 500_000  # a step with a schedule takes one for each site

Part: TypeAlias = "bool | int | str | float | Fraction | Shapes | Node | tuple[Part, ...] | None"
"""What a node is made from beside its arguments: all of it can be written down."""


@dataclass(frozen=True, eq=False, repr=False)
class Node(ABC):
    """One value of the graph. Its subclasses are the kinds.

    Attributes:
        kind: what it is called in keys and pictures.
        compound: whether its formula wants brackets inside a larger one.
        drawn_as: what it looks like in a picture.
        whole_models: whether it is made of whole weights, which are not computed with yet.
        key: a digest of all that it is: equal keys, equal values. Nodes sort by it, so that an
            order never depends on how a recipe was written.
        depth: the longest way to what it is made from.
    """

    kind: ClassVar[str]
    compound: ClassVar[bool] = False
    drawn_as: ClassVar[Literal["adapter", "operator", "number"]] = "operator"
    whole_models: ClassVar[bool] = False

    key: str = field(init=False)
    depth: int = field(init=False)

    def __post_init__(self) -> None:
        depth = 1 + max((node.depth for node in self.sources), default=0)
        made_of = [self.kind, [arg.key for arg in self.args], told(self.parts())]
        text = json.dumps([*made_of, told(self.type.parts())], ensure_ascii=False)
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "key", hashlib.sha256(text.encode()).hexdigest())

    if TYPE_CHECKING:

        @property
        def type(self) -> NodeType:
            """Its type."""

    @property
    def args(self) -> tuple[Node, ...]:
        """The nodes it is made from, in order."""
        return ()

    def parts(self) -> tuple[Part, ...]:
        """What else it is made from."""
        return ()

    @cached_property
    def sources(self) -> tuple[Node, ...]:
        """The nodes it is made from, measured numbers included."""
        return (*self.args, *_nodes_in(self.parts()))

    @abstractmethod
    def rebuilt(self, new: Rebuilding) -> Node:
        """The same of other nodes, in normal form again."""

    @abstractmethod
    def formula(self, write: Formula) -> str:
        """It as a reader writes it."""

    def differ(self, old: Node, new: Node, write: Difference) -> list[str] | None:
        """How one value became another, a phrase each, where one of the two is of this kind; None
        where the kind has nothing to say of them."""
        return None

    @property
    def name(self) -> str:
        """The operator that makes it."""
        return self.kind

    @property
    def title(self) -> str:
        """What it is called in a picture."""
        return self.name

    @property
    def pictured(self) -> Node:
        """Whose formula stands in a picture under its title."""
        return self

    def weight(self, write: Formula, index: int) -> str:
        """What stands before an argument in a picture, `0.5 ·`; empty where nothing does."""
        return ""

    @abstractmethod
    def invariant(self) -> None:
        """What holds of every node of the kind; raises AssertionError where it does not."""

    def __repr__(self) -> str:
        return f"<{self.kind} {self.key[:8]}>"


@dataclass(frozen=True, eq=False, repr=False)
class NumberNode(Node):
    """A number that is known only once weights are read."""

    drawn_as = "number"

    @property
    def type(self) -> NumberType:
        return NumberType()

    @abstractmethod
    def value(self, value_of: Callable[[Num], Fraction]) -> Fraction | None:
        """Its value from those of the numbers it is made from; None where it is read off
        adapters."""


Num: TypeAlias = Fraction | NumberNode
"""A number of the algebra: exact, or a node whose value is measured from weights."""


@dataclass(frozen=True, eq=False, repr=False)
class ModelNode(Node):
    """Whole weights."""

    whole_models = True

    type: ModelType


@dataclass(frozen=True, eq=False, repr=False)
class AdapterNode(Node):
    """An adapter expression.

    Attributes:
        type: its type.
    """

    type: AdapterType

    @property
    def shapes(self) -> Shapes:
        """Its sites."""
        return self.type.shapes

    @cached_property
    def ranks(self) -> Mapping[str, int]:
        """The rank at each site: what would be written, an upper bound where a number or an energy
        decides. Zero where it has no term, and of what has none."""
        return self._ranks()

    @cached_property
    def scales(self) -> Mapping[str, float]:
        """The scale s at each site."""
        return self._scales()

    @abstractmethod
    def _ranks(self) -> Mapping[str, int]: ...

    @abstractmethod
    def _scales(self) -> Mapping[str, float]: ...

    @abstractmethod
    def lower(
        self, ctx: LoweringContext, args: Mapping[AdapterNode, SiteValues | None]
    ) -> SiteValues | None:
        """Write the steps that give its parameters at a site.

        Args:
            ctx: the site, and what takes the steps.
            args: the parameters of its arguments there; None is zero.

        Returns:
            Its parameters there; None is zero.
        """

    @property
    def steady(self) -> bool:
        """Whether it does the same at all sites whose tensors are alike, so that lowering one of
        them will do."""
        return False

    @property
    def by_statistics(self) -> bool:
        """Whether it goes by the statistics of the adapters that it is made of."""
        return False

    @property
    def by_factors(self) -> bool:
        """Whether it combines A with A and B with B."""
        return False

    @property
    def bounded(self) -> bool:
        """Whether its ranks are bounds, which a number decides on."""
        return False

    @cached_property
    def at_most(self) -> bool:
        """Whether its ranks are bounds, because of it or of what it is made from. What combines A
        with A brings all to one rank."""
        args = () if self.by_factors else self.args
        return self.bounded or any(isinstance(x, AdapterNode) and x.at_most for x in args)

    @property
    def fills(self) -> bool:
        """Whether it fills the matrix of a LoRA, and is cut to no rank."""
        return False

    @property
    def is_cut(self) -> bool:
        """Whether it keeps of something what a recipe says."""
        return False

    def cut(self, graph: Graph, rank: int) -> AdapterNode | None:
        """What compress(it, rank=…) is, where that is another node of its kind."""
        return None

    @property
    def uncut(self) -> AdapterNode:
        """What it is without the truncation that is the last thing done to it."""
        return self

    @property
    def kept_energy(self) -> Fraction | None:
        """The share of the squared norm that this truncation keeps, where that decides on it."""
        return None

    def as_sum(self) -> dict[AdapterNode, Coef]:
        """x as Σ cᵢ·xᵢ. Law: x = 1·x."""
        return {self: Fraction(1)}

    def as_mix(self) -> dict[AdapterNode, tuple[Coef, Coef]]:
        """x as (Σ αᵢAᵢ, Σ βᵢBᵢ). Law: x = (A, B)."""
        return {self: (Fraction(1), Fraction(1))}

    @property
    def rows_in_order(self) -> bool:
        """Whether the rows of A have an order. Those of several adapters put side by side have
        none: a sum is the same in any order."""
        return True


PerSite = tuple[tuple[str, Num], ...]
"""Sites in name order with their numbers; a site that is not there counts zero."""

Coef = Num | PerSite
"""A coefficient of a normal form: one number, or a number for each site."""

NodeKind = TypeVar("NodeKind", bound=Node)

_PLAIN = (str, int, float, type(None))  # nearly all parts: not to be asked whether they are nodes


def told(value: Part | tuple[object, ...]) -> object:
    """A node, a number or a coefficient as JSON, to take digests of: equal for equal ones, whatever
    graph they are in."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    if isinstance(value, tuple):
        return [told(item) for item in value]  # type: ignore[arg-type]
    if isinstance(value, Node):
        return {"node": value.key}
    return value.digest if isinstance(value, Shapes) else value


def _nodes_in(value: Part) -> Iterator[Node]:
    if isinstance(value, tuple):
        for item in value:
            yield from _nodes_in(item)
    elif not isinstance(value, _PLAIN) and isinstance(value, Node):
        yield value


def combined_leaves(root: Node) -> list[Leaf]:
    """The leaves whose parameters a value combines, in canonical order; not those that only lend
    it a measured number."""
    seen, pending = {root}, [root]
    while pending:
        new = set(pending.pop().args) - seen
        seen |= new
        pending += new
    return _by_key(node for node in seen if isinstance(node, Leaf))


class Graph:
    """Interns nodes and keeps them with what they are made from."""

    def __init__(self) -> None:
        self._interned: dict[str, Node] = {}
        self._nx: nx.DiGraph[Node] | None = None
        self._numbers = 0

    def count(self, numbers: int) -> None:
        """Take note of some numbers that differ by site; raises PEM0333 where they are too many."""
        self._numbers += numbers
        if self._numbers > MAX_NUMBERS:
            raise Fault(
                "PEM0333",
                f"the weights by site of this recipe come to more than {MAX_NUMBERS:,} numbers",
                "multiply schedules with each other before the adapters, or give a weight that is "
                "one number",
            )

    @property
    def nx(self) -> nx.DiGraph[Node]:
        """The graph: edges run from an argument to what is made from it; every node has `type`
        and `kind`.

        It is made when it is first asked for: importing networkx takes as long as checking a
        recipe.
        """
        if self._nx is None:
            import networkx

            self._nx = networkx.DiGraph()
            for node in self._interned.values():
                self._draw(node)
        return self._nx

    def _draw(self, node: Node) -> None:
        assert self._nx is not None
        self._nx.add_node(node, kind=node.kind, type=node.type)
        for source in node.sources:
            self._nx.add_edge(source, node)

    def add(self, node: NodeKind) -> NodeKind:
        """The node that is there already of its key, or itself; raises PEM0332."""
        if node.depth > MAX_DEPTH:
            raise Fault(
                "PEM0332",
                f"this value is built up in more than {MAX_DEPTH} steps, each on the one before",
                "save a part of it and go on from there",
            )
        first = self._interned.setdefault(node.key, node)
        assert type(first) is type(node)
        if first is node and self._nx is not None:
            self._draw(node)
        return first

    def order(self, roots: Iterable[Node]) -> list[Node]:
        """Everything the roots are made from and the roots, arguments first; in an order that
        depends on keys alone."""
        made_from: dict[Node, tuple[Node, ...]] = {}
        pending = list(roots)
        while pending:
            node = pending.pop()
            if node not in made_from:
                made_from[node] = node.sources
                pending += node.sources
        sorter = TopologicalSorter(made_from)
        sorter.prepare()
        ordered: list[Node] = []
        while sorter:
            ready = sorted(sorter.get_ready(), key=lambda node: node.key)
            ordered += ready
            sorter.done(*ready)
        return ordered

    def leaves(self, root: Node) -> list[Leaf]:
        """The adapters a value is made from, in canonical order."""
        return [node for node in self.order([root]) if isinstance(node, Leaf)]

    def parts(self, root: Node) -> list[Leaf]:
        """The leaves whose parameters a value combines, in canonical order; not those that only
        lend it a measured number."""
        return combined_leaves(root)

    def all_leaves(self) -> list[Leaf]:
        """Every adapter of the graph, in canonical order."""
        return _by_key(node for node in self._interned.values() if isinstance(node, Leaf))

    def weighed(self) -> set[Leaf]:
        """The adapters whose statistics anything goes by."""
        nodes = [x for x in self._interned.values() if isinstance(x, AdapterNode)]
        return {x for node in nodes if node.by_statistics for x in node.args if isinstance(x, Leaf)}

    def invariant(self) -> None:
        """What holds of every graph; raises AssertionError where it does not.

        A key stands for one node, and is the digest of its parts: no two nodes are made alike.
        The edges are the arguments and the nodes in parts; there is no cycle. A node's type is of
        the kind that its class has.
        """
        for key, node in self._interned.items():
            again = replace(node)
            assert key == node.key == again.key, "a key that is not the digest of its parts"
            assert node.sources == again.sources, "sources that are not the arguments"
            assert isinstance(node.type, AdapterType) == isinstance(node, AdapterNode)
            assert isinstance(node.type, ModelType) == isinstance(node, ModelNode)
            assert all(source.depth < node.depth for source in node.sources)
            assert all(self._interned.get(x.key) is x for x in node.sources), (
                "a node is made from what is not in the graph"
            )
            assert node.depth <= MAX_DEPTH
            node.invariant()
        nodes = self._interned.values()
        edges = {(source, node) for node in nodes for source in node.sources}
        assert set(self.nx.edges) == edges, "edges that are not the arguments"
        drawn = {node: {"kind": node.kind, "type": node.type} for node in nodes}
        assert dict(self.nx.nodes.items()) == drawn, "nodes drawn otherwise"


def _by_key(leaves: Iterable[Leaf]) -> list[Leaf]:
    return sorted(leaves, key=lambda leaf: leaf.key)


# --- leaves ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Leaf(AdapterNode):
    """An adapter in files.

    Attributes:
        identity: what tells it from any other, as far as is known: its content, or its place.
        adapter: all that its files say but the numbers.
    """

    kind = "leaf"
    drawn_as = "adapter"

    identity: str
    adapter: Adapter

    def parts(self) -> tuple[Part, ...]:
        return (self.identity, self.type.base)

    def rebuilt(self, new: Rebuilding) -> Node:
        identity, adapter = new.leaves.get(self, (self.identity, self.adapter))
        return new.graph.add(Leaf(self.type, identity, adapter))

    def _ranks(self) -> Mapping[str, int]:
        return self.adapter.layout.ranks

    def _scales(self) -> Mapping[str, float]:
        return self.adapter.scales

    def lower(
        self, ctx: LoweringContext, args: Mapping[AdapterNode, SiteValues | None]
    ) -> SiteValues | None:
        return ctx.read(self)

    @property
    def steady(self) -> bool:
        return True

    def formula(self, write: Formula) -> str:
        return write.name(self)

    def differ(self, old: Node, new: Node, write: Difference) -> list[str] | None:
        if isinstance(old, Leaf) and isinstance(new, Leaf):
            return write.terms(old.as_sum(), new.as_sum())
        return None

    def invariant(self) -> None:
        assert isinstance(self.identity, str)
        assert self.shapes == self.adapter.layout.shapes


def leaf(graph: Graph, identity: str, adapter: Adapter, base: str | None) -> Leaf:
    """The node of an adapter in files."""
    return graph.add(Leaf(AdapterType(base, adapter.layout.shapes), identity, adapter))


def adapters_of(leaves: Sequence[Leaf]) -> list[Adapter]:
    """The files behind some leaves."""
    return [leaf.adapter for leaf in leaves]
