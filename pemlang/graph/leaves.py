"""The leaves of the graph: adapters and models in files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.formats.adapter import Adapter
from pemlang.graph.node import AdapterNode, ModelNode, Node, Part, TensorsNode
from pemlang.graph.types import AdapterType

if TYPE_CHECKING:
    from pemlang.graph.dag import Graph
    from pemlang.graph.difference import Difference
    from pemlang.graph.formula import Formula
    from pemlang.graph.lowering import LoweringContext
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.modules import SiteValues
    from pemlang.tensorfiles.safetensors import TensorEntry


@dataclass(frozen=True, eq=False, repr=False)
class Stored(TensorsNode):
    """What lies in files.

    Attributes:
        identity: what tells it from any other, as far as is known: its content, or its place.
        adapter: all that its files say but the numbers.
    """

    drawn_as = "adapter"

    identity: str
    adapter: Adapter

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        return ctx.read(self)

    @property
    def steady(self) -> bool:
        return True

    def formula(self, write: Formula) -> str:
        return write.name(self)

    def invariant(self) -> None:
        assert isinstance(self.identity, str)
        assert self.shapes == self.adapter.layout.shapes


@dataclass(frozen=True, eq=False, repr=False)
class Leaf(AdapterNode, Stored):
    """An adapter in files."""

    kind = "leaf"

    def parts(self) -> tuple[Part, ...]:
        return (self.identity, self.type.base)

    def rebuilt(self, new: Rebuilding) -> Node:
        identity, adapter = new.leaves.get(self, (self.identity, self.adapter))
        return new.graph.add(Leaf(self.type, identity, adapter))

    def _ranks(self) -> Mapping[str, int]:
        return {**dict.fromkeys(self.shapes, 0), **self.adapter.layout.ranks}

    def _scales(self) -> Mapping[str, float]:
        return self.adapter.scales

    def differ(self, old: Node, new: Node, write: Difference) -> list[str] | None:
        if isinstance(old, Leaf) and isinstance(new, Leaf):
            return write.terms(old.as_sum(), new.as_sum())
        return None


@dataclass(frozen=True, eq=False, repr=False)
class Model(ModelNode, Stored):
    """A model in files: its sites are its tensors, each whole."""

    kind = "model"

    @property
    def whose(self) -> ModelNode:
        return self

    @property
    def origin(self) -> Model:
        return self

    @property
    def joined(self) -> None:
        return None

    def entry(self, site: str) -> TensorEntry:
        return self.adapter.header.entries[site]

    def parts(self) -> tuple[Part, ...]:
        return (self.identity,)

    def rebuilt(self, new: Rebuilding) -> Node:
        identity, adapter = new.leaves.get(self, (self.identity, self.adapter))
        return new.graph.add(Model(self.type, identity, adapter))


def leaf(graph: Graph, identity: str, adapter: Adapter, base: str | None) -> Leaf:
    """The node of an adapter in files."""
    return graph.add(Leaf(AdapterType(base, adapter.layout.shapes), identity, adapter))


def adapters_of(leaves: Sequence[Stored]) -> list[Adapter]:
    """The files behind some leaves."""
    return [leaf.adapter for leaf in leaves]


def combined_leaves(root: Node) -> list[Stored]:
    """The leaves whose parameters a value combines, in canonical order; not those that only lend
    it a measured number."""
    seen, pending = {root}, [root]
    while pending:
        new = set(pending.pop().args) - seen
        seen |= new
        pending += new
    return in_order(node for node in seen if isinstance(node, Stored))


def in_order(leaves: Iterable[Stored]) -> list[Stored]:
    """Leaves in canonical order."""
    return sorted(leaves, key=lambda leaf: leaf.key)
