"""Steps that take what a file stores of a matrix to the factors that an algebra computes in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pemlang.dataclass import dataclass
from pemlang.kernels.step import Dense, Meaning, Shape, SiteInputs, Step
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import DTYPES, Array, stored_dtype


@dataclass(frozen=True)
class Einsum(Step):
    """Products of the entries of one or two arrays, summed over the axes that are in no result.

    Attributes:
        subscripts: the axes of what it takes and of the result, as `numpy.einsum` has them. The
            result is then put into the shape of the step, its numbers in the order they had.
    """

    subscripts: str

    name = "einsum"
    by_library = True

    def words(self) -> Iterable[str]:
        return (self.subscripts,)

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        whole: Dense = np.einsum(self.subscripts, *args).reshape(self.shape)
        return whole

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        whole: Array = np.einsum(self.subscripts, *args, optimize=True).reshape(self.shape)
        return np.ascontiguousarray(whole, stored_dtype(self.dtype))

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        axes = self.subscripts.partition("->")[0].split(",")
        sizes = zip("".join(axes), (n for shape in shapes for n in shape), strict=True)
        return 2 * math.prod(dict(sizes).values())

    def workspace(self, shapes: Sequence[Shape]) -> int:
        # What is summed over is laid out anew for the library, and so is the result.
        numbers = math.prod(self.shape) + sum(map(math.prod, shapes))
        return numbers * DTYPES[self.dtype].size


class Identity(Step):
    """The identity matrix, in the shape of the step, whose first axis is its rows."""

    name = "identity"

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return np.eye(self.shape[0]).reshape(self.shape)

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        return np.eye(self.shape[0], dtype=stored_dtype(self.dtype)).reshape(self.shape)
