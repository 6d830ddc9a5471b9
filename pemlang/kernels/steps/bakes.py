"""Steps that change a weight of a model by what an adapter holds of its module, some rows at a
time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pemlang.dataclass import dataclass
from pemlang.failures import Undefined
from pemlang.kernels.step import Dense, Meaning, Renumber, Shape, SiteInputs, Step
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import FLOATS, NATIVE, Array, stored_dtype

BLOCK = 1 << 18
"""Elements of a block of rows."""


@dataclass(frozen=True)
class _OnWeight(Step):
    """A step that takes a weight first, as its file stores it.

    Attributes:
        source: the dtype of the weight.
    """

    source: str

    def _rows(self) -> Iterator[slice]:
        """Its rows, a block at a time."""
        rows, columns = matrix_shape(self.shape)
        step = max(1, BLOCK // max(1, columns))
        for first in range(0, rows, step):
            yield slice(first, min(first + step, rows))

    def _numbers(self, bits: Array, work: str, slots: SiteInputs) -> Array:
        """Some rows of the weight in a work dtype."""
        if self.source in FLOATS and self.source not in NATIVE:
            return slots.algebra.widened(bits, self.source, work)
        return bits.astype(stored_dtype(work), copy=False)

    def workspace(self, shapes: Sequence[Shape]) -> int:
        columns = matrix_shape(self.shape)[1]
        return 16 * max(BLOCK, columns) + 8 * sum(map(math.prod, shapes[1:]))


@dataclass(frozen=True)
class AddProduct(_OnWeight):
    """W + s·B·A, of W, A and B.

    Attributes:
        scale: the constant slot of s.
        turned: whether W is stored as the transpose of B·A.
    """

    scale: int
    turned: bool

    name = "add_product"
    by_library = True

    def words(self) -> Iterable[str]:
        return (f"c{self.scale}", *["turned"] * self.turned)

    def renumbered(self, inputs: Renumber, constants: Renumber, outputs: Renumber) -> Step:
        return replace(self, scale=constants(self.scale))

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        weight, a, b = args
        delta = slots.constants[self.scale] * (b.reshape(len(b), -1) @ a.reshape(len(a), -1))
        return weight + (delta.T if self.turned else delta).reshape(weight.shape)

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        weight, a, b = (x.reshape(len(x), -1) for x in args)
        left, right = (a.T, b.T) if self.turned else (b, a)
        scaled = left * left.dtype.type(slots.constants[self.scale])
        out: Array = np.empty(matrix_shape(self.shape), stored_dtype(self.dtype))
        for rows in self._rows():
            np.matmul(scaled[rows], right, out=out[rows])
            out[rows] += self._numbers(weight[rows], self.dtype, slots)
        return out.reshape(self.shape)

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        return elements * (2 * shapes[1][0] + 1)


@dataclass(frozen=True)
class AddProducts(AddProduct):
    """W + s·B·A of each expert, of W (experts, out, in), A (experts, r, in), B (out, r, experts).

    Attributes:
        turned: whether W is (experts, in, out).
    """

    name = "add_products"

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        weight, a, b = args
        order = "eio" if self.turned else "eoi"
        delta = slots.constants[self.scale] * np.einsum(f"ore,eri->{order}", b, a)
        whole: Dense = weight + delta.reshape(weight.shape)
        return whole

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        weight, a, b = args
        out: Array = np.empty((len(a), *self.shape[-2:]), stored_dtype(self.dtype))
        weights = weight.reshape(out.shape)
        for expert, right in enumerate(a):
            left = b[:, :, expert] * b.dtype.type(slots.constants[self.scale])
            first, second = (right.T, left.T) if self.turned else (left, right)
            np.matmul(first, second, out=out[expert])
            out[expert] += self._numbers(weights[expert], self.dtype, slots)
        return out.reshape(self.shape)

    def workspace(self, shapes: Sequence[Shape]) -> int:
        one_expert = math.prod(self.shape[-2:])
        return 16 * one_expert + 8 * sum(math.prod(shape) for shape in shapes[1:])

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        return elements * (2 * shapes[1][1] + 1)


@dataclass(frozen=True)
class AddProductAtLengths(AddProduct):
    """m ∘ (W + s·B·A) / ‖W + s·B·A‖, of W, A, B and m: by rows of W, or where it is stored as the
    transpose by columns. The lengths are taken in float64."""

    name = "add_product_at_lengths"

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        *product, m = args
        whole = super().meaning(product, slots).reshape(matrix_shape(self.shape))
        lengths = np.sqrt(np.sum(whole**2, axis=0 if self.turned else 1))
        ratios = m.ravel() / lengths
        scaled: Dense = whole * (ratios if self.turned else ratios[:, None])
        return scaled.reshape(self.shape)

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        *product, m = args
        out = super().compute(product, slots).reshape(matrix_shape(self.shape))
        squares = np.zeros(out.shape[1 if self.turned else 0])
        for rows in self._rows():
            block = out[rows].astype(np.float64)
            if self.turned:
                squares += np.einsum("rc,rc->c", block, block)
            else:
                squares[rows] = np.einsum("rc,rc->r", block, block)
        if not squares.all():
            raise Undefined(
                "PEM0504",
                "a DoRA brings an output to a length, and all that goes into it is zero",
                "leave this module out, or add the adapter to the model that it was trained on",
            )
        ratios = m.astype(np.float64).ravel() / np.sqrt(squares)
        for rows in self._rows():
            out[rows] *= ratios if self.turned else ratios[rows, None]
        return out.reshape(self.shape)

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        return super().flops(shapes, elements) + 3 * elements


@dataclass(frozen=True)
class ScaleAlong(_OnWeight):
    """(1 + g) ⊙ W along an axis of W, of W and the coordinate g of a gain; computed in float64.

    Attributes:
        axis: which.
    """

    axis: int

    name = "scale_along"

    def words(self) -> Iterable[str]:
        return (f"axis={self.axis}",)

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        weight, g = args
        along = [1] * weight.ndim
        along[self.axis] = -1
        return weight * (1 + g.reshape(along))

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        weight, g = args
        gains = 1.0 + g.astype(np.float64).reshape(-1)
        out: Array = np.empty(self.shape, stored_dtype(self.dtype))
        for rows in self._rows():
            here = gains[rows] if self.axis == 0 else gains
            along = [1] * weight.ndim
            along[self.axis] = -1
            out[rows] = self._numbers(weight[rows], "F64", slots) * here.reshape(along)
        return out

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        return elements


@dataclass(frozen=True)
class PutRows(_OnWeight):
    """W with some of its rows replaced, of W and what takes their place.

    Attributes:
        places: which rows, each once, in the order in which the new ones stand.
    """

    places: tuple[int, ...]

    name = "put_rows"

    def words(self) -> Iterable[str]:
        return (f"{len(self.places)} rows",)

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        weight, new = args
        out = weight.copy()
        out[list(self.places)] = new
        return out

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        weight, new = args
        out: Array = np.empty(self.shape, stored_dtype(self.dtype))
        for rows in self._rows():
            out[rows] = self._numbers(weight[rows], self.dtype, slots)
        out[list(self.places)] = new
        return out


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """The rows of a tensor, and the elements of each."""
    return shape[0], math.prod(shape[1:])
