"""How far apart two things are: what comparisons of adapters and of models have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pemlang.dataclass import dataclass
from pemlang.failures import TooLarge


@dataclass(frozen=True)
class DeltaChange:
    """Δ of two adapters or the weights of two models, at a place or over many.

    Attributes:
        old, new: ‖·‖ (Frobenius) of each; for (IA)³ ‖l − 1‖.
        change: ‖new − old‖; None where the two cannot be subtracted.
        relative: change / old; None where old is zero and new is not, and without a change.
        cosine: of the angle between the two; None where either is zero, and without a change.
    """

    old: float
    new: float
    change: float | None
    relative: float | None
    cosine: float | None


@dataclass(frozen=True)
class Fact:
    """What config and header say of both."""

    label: str
    old: str
    new: str


@dataclass(frozen=True)
class PairNumbers:
    """What adds up over places: norms as squares, inner products as they are."""

    old: float
    new: float
    change: float
    inner: float

    @property
    def measured(self) -> DeltaChange:
        """What they come to."""
        old, new = self.old, self.new
        if not self.change:  # rounding would leave the cosine beside 1
            return DeltaChange(old, new, 0.0, 0.0, 1.0 if old else None)
        cosine = max(-1.0, min(1.0, self.inner / old / new)) if old and new else None
        return DeltaChange(old, new, self.change, self.change / old if old else None, cosine)


def total_change(pairs: Sequence[PairNumbers]) -> DeltaChange:
    """What some places come to; raises TooLarge."""
    if not pairs:
        return DeltaChange(0.0, 0.0, None, None, None)
    old, new, change = (
        math.hypot(*norms)
        for norms in zip(*((pair.old, pair.new, pair.change) for pair in pairs), strict=True)
    )
    try:
        inner = math.fsum(pair.inner for pair in pairs)
    except OverflowError:
        inner = math.inf
    if not math.isfinite(old + new + change + abs(inner)):
        raise TooLarge(None)
    return PairNumbers(old, new, change, inner).measured
