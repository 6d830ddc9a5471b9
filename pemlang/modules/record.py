"""A parametrisation: what an adapter holds of a site, and what that does to the module.

One record each; the records are in the files beside this one, and known by name in
`PARAMETRISATIONS`. A record has no state: two of one class are one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from pemlang.dataclass import dataclass
from pemlang.modules.sites import SiteShape

if TYPE_CHECKING:
    # A check knows these records and computes nothing.
    from pemlang.kernels.builder import Builder, Value
    from pemlang.kernels.lowrank import LowRank
    from pemlang.kernels.plan import Sink
    from pemlang.kernels.site import SitePart
    from pemlang.kernels.step import Dense, Shape
    from pemlang.tensorfiles.dtypes import Array
    from pemlang.tensorfiles.reference import TensorRef

SiteBuilder: TypeAlias = "Builder[TensorRef, Sink | Hashable]"
"""Takes the steps of a site."""


class Parametrisation(ABC):
    """What a kind of adapter holds of a site.

    Attributes:
        name: as a type annotation names it, `lora`.
        title: as a reader writes it, `LoRA`.
        acts: what it does to a module's weight W, after "it".
        family: what its adapters may be joined with, at other sites; its name where empty.
        factors: what its tensors are called, in order, in what is told of them.
        ranked: whether it has a rank, and a scale beside its tensors.
        factored: whether Δ is s·B·A of its two tensors A and B, as `low_rank` gives it: ⊕ combines
            A with A and B with B, a sum has the sum of the ranks, and an SVD can cut it.
        matrices: whether it may be a matrix, or its Δ one.
        norm_title: what its norm is, where that is told.
        rank_axes: the axes of the rank in A and B, of what has a rank.
        bases: what each tensor is stored around: l of an (IA)³ is 1 + g.
        needs_base: whether what it changes depends on the weights that it is added to: it adds to a
            model, and to nothing else.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    acts: ClassVar[str] = "changes a module in a way of its own"
    family: ClassVar[str] = ""
    factors: ClassVar[tuple[str, ...]]
    ranked: ClassVar[bool] = False
    factored: ClassVar[bool] = False
    matrices: ClassVar[bool] = False
    norm_title: ClassVar[str] = "‖Δ‖ (Frobenius)"
    rank_axes: ClassVar[tuple[int, int]] = (0, 1)
    bases: ClassVar[tuple[float, ...]]
    needs_base: ClassVar[bool] = False

    @abstractmethod
    def shapes(self, site: SiteShape, rank: int) -> tuple[Shape, ...]:
        """The shapes of its tensors."""

    @abstractmethod
    def loaded(self, builder: SiteBuilder, stored: Sequence[Value], work: str) -> tuple[Value, ...]:
        """Its coordinates, in which adapters add, from the tensors as they are stored.

        Args:
            builder: takes the steps.
            stored: the tensors.
            work: the precision that all of an expression is computed in.
        """

    @abstractmethod
    def total(
        self, builder: SiteBuilder, parts: Sequence[tuple[float, SiteValues]], scale: float
    ) -> SiteValues:
        """Σ cᵢ·Δᵢ, exactly. Never of nothing.

        Args:
            builder: takes the steps.
            parts: numbers, and what they scale.
            scale: of what comes out.
        """

    @abstractmethod
    def zeros(self, builder: SiteBuilder, site: SiteShape, rank: int, scale: float) -> SiteValues:
        """What does nothing."""

    @abstractmethod
    def delta(self, tensors: Sequence[Dense], scale: float) -> Dense:
        """The dense Δ in float64, (out, in); of a gain its coordinate g = l − 1."""

    def low_rank(self, tensors: Sequence[Array], scale: float) -> LowRank | None:
        """Δ, or what is compared in its place, by factors A and B; None of what has none."""
        return None

    def pieces(self, part: SitePart) -> Sequence[SitePart]:
        """What it is on parts of the module that have nothing in common; itself where that is
        one."""
        return (part,)

    def by_row(self, site: SiteShape) -> tuple[bool, ...]:
        """Which of its tensors have a row for each output of the module, and nothing of another;
        the others are the same for every output. None where it is not so."""
        return ()

    def statistics(self, site: SiteShape, rank: int) -> Mapping[str, Mapping[str, Shape]]:
        """What can be collected for it beside an adapter, by family: kind to shape. `fisher` is
        one number for each of its own."""
        shapes = self.shapes(site, rank)
        named = zip(self.factors, shapes, strict=True)
        return {"fisher": {f"fisher_{factor}": shape for factor, shape in named}}

    @abstractmethod
    def norm(self, tensors: Sequence[Array], scale: float) -> float:
        """‖Δ‖ (Frobenius), from the coordinates."""

    @abstractmethod
    def inner(
        self, left: Sequence[Array], right: Sequence[Array], scales: tuple[float, float]
    ) -> float:
        """⟨Δ₁, Δ₂⟩, from the coordinates."""

    @abstractmethod
    def orientations(self, site: SiteShape, tensor: Shape) -> tuple[bool, ...]:
        """How a tensor of a model may hold what it changes: False as (out, in, …), True as the
        transpose of it; both where a shape does not tell, and neither where it does not fit."""

    @abstractmethod
    def baked(
        self, builder: SiteBuilder, weight: Value, part: SiteValues, site: SiteShape, turned: bool
    ) -> Value:
        """W′ of a tensor W of a model.

        Args:
            builder: takes the steps.
            weight: W.
            part: the parameters of the site.
            site: its shape.
            turned: whether W is the transpose of what the module computes with.
        """

    def rank(self, values: Sequence[Value]) -> int:
        """The rank of what some values are; 0 where there is no such thing."""
        return 0

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class SiteValues:
    """The parameters of an adapter at a site, as values of a program.

    Attributes:
        parametrisation: what they are.
        values: the coordinates, a value for each of its factors.
        scale: s of a LoRA; else 1.
    """

    parametrisation: Parametrisation
    values: tuple[Value, ...]
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """r of a LoRA; 0 of what has none."""
        return self.parametrisation.rank(self.values)

    def with_values(self, *values: Value) -> SiteValues:
        """The same with other values."""
        return SiteValues(self.parametrisation, values, self.scale)


PARAMETRISATIONS: dict[str, Parametrisation] = {}
"""The records by name."""


def register(record: Parametrisation) -> Parametrisation:
    """Make a parametrisation known."""
    PARAMETRISATIONS[record.name] = record
    return record
