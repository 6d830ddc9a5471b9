"""What is measured of some adapters at a site."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pemlang.kernels.lowrank import singular_values
from pemlang.lazy import numpy as np

if TYPE_CHECKING:
    from pemlang.kernels.site import SitePart
    from pemlang.kernels.step import Dense


class SiteMeasure(ABC):
    """A measure at a site. Two of one class with the same settings are one.

    Attributes:
        rows_alone: it looks at the A factors of LoRAs and at nothing else.
    """

    rows_alone = False

    @abstractmethod
    def numbers(self, parts: Sequence[SitePart | None]) -> tuple[float, ...]:
        """The numbers of a site; None is an adapter that is zero there."""

    @abstractmethod
    def meaning(self, deltas: Sequence[Dense | None]) -> tuple[float, ...]:
        """The same from the dense Δ of each adapter, in float64; where rows are looked at, of
        its A, those of experts one after the other: (1 or experts, r, …)."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *sorted(vars(self).items())))

    def __str__(self) -> str:
        return type(self).__name__.lower()


class SingularValues(SiteMeasure):
    """All singular values of a LoRA, or of a matrix, falling."""

    def numbers(self, parts: Sequence[SitePart | None]) -> tuple[float, ...]:
        [part] = parts
        if part is None:
            return ()
        factors = part.low_rank
        values = _of_matrix(_flat(part.delta())) if factors is None else singular_values(factors)
        return tuple(values.tolist())

    def meaning(self, deltas: Sequence[Dense | None]) -> tuple[float, ...]:
        [x] = deltas
        return () if x is None else tuple(np.linalg.svd(_flat(x), compute_uv=False).tolist())


def _flat(x: Dense) -> Dense:
    """A weight as a matrix, its kernel among what goes in."""
    return x.reshape(len(x), -1)


def _of_matrix(x: Dense) -> Dense:
    """The singular values of a matrix, from its smaller Gram matrix: those below 10⁻⁸ of the
    largest are not resolved, and no share of the squared norm hangs on them."""
    gram = x @ x.T if x.shape[0] < x.shape[1] else x.T @ x
    squares = np.linalg.eigvalsh(gram)[::-1]
    return np.asarray(np.sqrt(np.maximum(squares, 0)))
