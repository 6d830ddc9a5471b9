"""The nodes of the graph. A kind of node is one class: its fields, and all that is known about it
anywhere."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, TypeVar

from pemlang.dataclass import dataclass
from pemlang.graph.types import AdapterType, ModelType, NodeType, NumberType
from pemlang.modules import Shapes

if TYPE_CHECKING:
    from pemlang.formats.vocabulary import Vocabulary
    from pemlang.graph.dag import Graph
    from pemlang.graph.difference import Difference
    from pemlang.graph.formula import Formula
    from pemlang.graph.leaves import Model
    from pemlang.graph.lowering import LoweringContext
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.modules import SiteValues
    from pemlang.tensorfiles.safetensors import TensorEntry

Part: TypeAlias = "bool | int | str | float | Fraction | Shapes | Node | tuple[Part, ...] | None"
"""What a node is made from beside its arguments: all of it can be written down."""


@dataclass(frozen=True, eq=False, repr=False)
class Node(ABC):
    """One value of the graph. Its subclasses are the kinds.

    Attributes:
        kind: what it is called in keys and pictures.
        compound: whether its formula wants brackets inside a larger one.
        drawn_as: what it looks like in a picture.
        key: a digest of all that it is: equal keys, equal values. Nodes sort by it, so that an
            order never depends on how a recipe was written.
        depth: the longest way to what it is made from.
    """

    kind: ClassVar[str]
    compound: ClassVar[bool] = False
    drawn_as: ClassVar[Literal["adapter", "operator", "number"]] = "operator"

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
class TensorsNode(Node):
    """An adapter or a model: what has tensors at sites.

    Attributes:
        type: its type.
    """

    renames: ClassVar[bool] = False  # whether it takes the sites of its arguments by other names

    type: AdapterType | ModelType

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

    def _ranks(self) -> Mapping[str, int]:
        return {}

    def _scales(self) -> Mapping[str, float]:
        return {}

    @abstractmethod
    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
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
    def at_most(self) -> bool:
        """Whether its ranks are bounds."""
        return False


@dataclass(frozen=True, eq=False, repr=False)
class ModelNode(TensorsNode):
    """Whole weights: a point. At every site it has one tensor."""

    type: ModelType

    @property
    @abstractmethod
    def whose(self) -> ModelNode:
        """The model that it has all from but the numbers of its tensors."""

    @property
    def origin(self) -> Model:
        """The model in files that it is laid out as, and whose files it has beside its tensors."""
        return self.whose.origin

    @property
    def joined(self) -> Vocabulary | None:
        """Its tokens where it has more than its origin."""
        return self.whose.joined

    @abstractmethod
    def entry(self, site: str) -> TensorEntry:
        """How a tensor is stored that one of its own has its dtype and its shape from."""

    def within(self, graph: Graph, add: Callable[[ModelNode], ModelNode]) -> ModelNode | None:
        """It with whole tensors added to the model inside it, where that is the same as to add them
        to it; None where it is not."""
        return None


@dataclass(frozen=True, eq=False, repr=False)
class AdapterNode(TensorsNode):
    """An adapter expression: a vector."""

    type: AdapterType

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
        return self.bounded or any(isinstance(x, TensorsNode) and x.at_most for x in args)

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
