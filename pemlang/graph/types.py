"""The types of values of the graph."""

from __future__ import annotations

from pemlang.dataclass import dataclass
from pemlang.modules import PARAMETRISATIONS, Parametrisation, Shapes


@dataclass(frozen=True, slots=True)
class NumberType:
    """A number that is known only once weights are read."""

    def parts(self) -> tuple[object, ...]:
        """What a digest of it is made from."""
        return ()


@dataclass(frozen=True, slots=True)
class SitesType:
    """The type of what has tensors at sites; ranks and scales follow from its node.

    Attributes:
        base: the model it belongs to, where that is known.
        shapes: its sites.
    """

    base: str | None
    shapes: Shapes

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the parametrisations of its sites."""
        return self.shapes.kinds

    @property
    def method(self) -> str:
        """Its kinds as one word, `lora`; `ia3+lora` of an adapter that mixes them."""
        return "+".join(self.kinds)

    @property
    def ranked(self) -> bool:
        """Whether it has a rank at some of its sites."""
        return any(PARAMETRISATIONS[kind].ranked for kind in self.kinds)

    @property
    def factored(self) -> bool:
        """Whether it is s·B·A at every site."""
        return bool(self.kinds) and all(PARAMETRISATIONS[kind].factored for kind in self.kinds)

    @property
    def needs_base(self) -> bool:
        """Whether what it changes depends on the weights that it is added to, at some site."""
        return any(PARAMETRISATIONS[kind].needs_base for kind in self.kinds)

    @property
    def has_factors(self) -> bool:
        """Whether it is s·B·A wherever it has a rank, and somewhere: a LoRA, or one with biases."""
        ranked = [record for kind in self.kinds if (record := PARAMETRISATIONS[kind]).ranked]
        return bool(ranked) and all(record.factored for record in ranked)

    @property
    def ranked_shapes(self) -> Shapes:
        """The sites that have a rank."""
        if all(PARAMETRISATIONS[kind].ranked for kind in self.kinds):
            return self.shapes
        return self.shapes.only(
            frozenset(s for s, x in self.shapes.items() if PARAMETRISATIONS[x.kind].ranked)
        )

    def record(self, site: str) -> Parametrisation:
        """The parametrisation of a site."""
        return PARAMETRISATIONS[self.shapes[site].kind]


@dataclass(frozen=True, slots=True)
class AdapterType(SitesType):
    """The type of an adapter expression."""

    def parts(self) -> tuple[object, ...]:
        """What a digest of it is made from."""
        return (self.method, self.base, self.shapes, False)  # what hashes were taken with


@dataclass(frozen=True, slots=True)
class ModelType(SitesType):
    """The type of whole weights: their tensors are dense sites."""

    def parts(self) -> tuple[object, ...]:
        """What a digest of it is made from."""
        return (self.base, self.shapes)


NodeType = NumberType | AdapterType | ModelType
