"""What rounding to the dtype of a file changes, watched block by block as results stream by.

Two promises are kept here: no number that is not finite is written, and a result that its file
would hold only coarsely is told. Both are settled for nearly every block by one dot product, and
looked at number by number only where that cannot settle them.
"""

from __future__ import annotations

import math
from dataclasses import field

from pemlang.dataclass import dataclass
from pemlang.failures import Failure, TooLarge, TooSmall
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import FLOATS, Array, Bits, decoded

WORTH_SAYING = 0.01
"""A relative change by rounding that a reader is told of."""


class ResultNotFinite(Exception):
    """A result is infinite or NaN before it is rounded: an input is, or a step was too large."""


@dataclass
class Rounding:
    """What is known of some tensors that belong together, or of a part of one.

    Attributes:
        lost, norm: squared norms of what rounding changed, and of the exact numbers. Where the
            dtype itself promises a change of less than WORTH_SAYING nothing is added to `lost`.
        kept: a number other than zero was written.
    """

    lost: float = 0.0
    norm: float = 0.0
    kept: bool = False

    def add(self, other: Rounding) -> None:
        """Take what another knows."""
        self.lost += other.lost
        self.norm += other.norm
        self.kept |= other.kept

    @property
    def share(self) -> float:
        """How much rounding changed, relative to the norm."""
        return math.sqrt(self.lost / self.norm) if self.norm else 0.0


@dataclass
class Size:
    """How large the numbers of one tensor are, as far as that is in doubt.

    A dtype's smallest steps would lose most digits of a tensor that has none much larger.
    """

    fine: bool = False
    top: float = 0.0
    some: bool = False

    def add(self, other: Size) -> None:
        """Take what is known of another part of the tensor."""
        self.fine |= other.fine
        self.top = max(self.top, other.top)
        self.some |= other.some

    def failure(self, dtype: str) -> Failure | None:
        """What is wrong with a tensor whose digits would be lost."""
        lost = not self.fine and self.some and self.top < 16 * FLOATS[dtype].step
        return TooSmall(dtype) if lost else None


@dataclass
class Seen:
    """What one look at a block gave."""

    rounding: Rounding = field(default_factory=Rounding)
    size: Size = field(default_factory=Size)


def settled(square: float, count: int, dtype: str, around: float) -> Seen | None:
    """What `look` sees of some numbers by the sum of their squares alone; None where that does
    not settle it."""
    layout = FLOATS[dtype]
    noise = count * layout.step**2
    bound = 2.0 ** (-2 * layout.bits) * square + noise / 4
    certain = (
        around == 0
        and max(4096 * noise, 1e-30) <= square <= min(layout.largest, 1e150) ** 2
        and bound <= WORTH_SAYING**2 * square
    )
    return Seen(Rounding(0.0, square, True), Size(fine=True)) if certain else None


def may_settle(dtype: str, around: float) -> bool:
    """Whether there is a sum of squares that settles what is seen."""
    return around == 0 and 2.0 ** -FLOATS[dtype].bits <= WORTH_SAYING


def look(exact: Array, bits: Bits, dtype: str, around: float = 0.0) -> Seen:
    """Hold rounded numbers to the exact ones.

    Args:
        exact: float32 or float64, one dimension.
        bits: around + exact, rounded.
        dtype: of the bits.
        around: what was added before rounding: 1 for the gains of (IA)³, of which l − 1 counts.

    Raises:
        ResultNotFinite: a number is infinite or NaN.
        TooLarge: one is too large for the dtype.
    """
    seen = settled(float(np.dot(exact, exact)), exact.size, dtype, around)
    if seen is not None:
        return seen
    if not exact.any():
        return Seen()
    if not np.isfinite(exact).all():
        raise ResultNotFinite
    wide = exact.astype(np.float64)
    read = decoded(bits, dtype, "F64")
    if not np.isfinite(read).all():
        raise TooLarge(dtype)
    top, some = float(np.abs(read).max()), True
    read -= around
    lost = float(np.sum((read - wide) ** 2))
    return Seen(
        Rounding(lost, float(np.sum(wide**2)), bool(read.any())), Size(around != 0, top, some)
    )
