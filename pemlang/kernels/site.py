"""The parameters of an adapter at one site, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pemlang.dataclass import dataclass
from pemlang.kernels.lowrank import LowRank
from pemlang.kernels.step import Dense
from pemlang.tensorfiles.dtypes import Array


class SiteAlgebra(Protocol):
    """What a parametrisation means: Δ from its tensors, never formed where it need not be."""

    def delta(self, tensors: Sequence[Dense], scale: float) -> Dense:
        """The dense Δ, (out, in); for gains g = l − 1."""

    def low_rank(self, tensors: Sequence[Array], scale: float) -> LowRank | None:
        """Δ by its factors, of what is made of two."""

    def pieces(self, part: SitePart) -> Sequence[SitePart]:
        """What acts on parts of a module that have nothing in common; itself where it is one."""

    def norm(self, tensors: Sequence[Array], scale: float) -> float:
        """‖Δ‖ (Frobenius)."""

    def inner(
        self, left: Sequence[Array], right: Sequence[Array], scales: tuple[float, float]
    ) -> float:
        """⟨Δ₁, Δ₂⟩ of two of one parametrisation."""


@dataclass(frozen=True, slots=True)
class SitePart:
    """One adapter at a site.

    Attributes:
        algebra: what its tensors mean.
        tensors: its coordinates; of a LoRA A (r, in, …) and B (out, r, …).
        scale: s of a LoRA; else 1.
    """

    algebra: SiteAlgebra
    tensors: tuple[Array, ...]
    scale: float = 1.0

    @property
    def low_rank(self) -> LowRank | None:
        """Δ by its factors, of what is made of two."""
        return self.algebra.low_rank(self.tensors, self.scale)

    @property
    def pieces(self) -> Sequence[SitePart]:
        """What acts on parts of the module that have nothing in common, as experts have."""
        return self.algebra.pieces(self)

    def norm(self) -> float:
        """‖Δ‖ (Frobenius)."""
        return self.algebra.norm(self.tensors, self.scale)

    def inner(self, right: SitePart) -> float:
        """⟨Δ₁, Δ₂⟩."""
        return self.algebra.inner(self.tensors, right.tensors, (self.scale, right.scale))

    def delta(self) -> Dense:
        """The dense Δ in float64."""
        return self.algebra.delta(self.tensors, self.scale)
