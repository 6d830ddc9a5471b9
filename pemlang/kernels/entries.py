"""What methods that treat each element by itself are written with.

One definition serves the factors A and B, tensors of adapters that have no factors, and Δ, of which
no more than a tile is formed at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

from pemlang.kernels.builder import Builder, OwnNumber, Value
from pemlang.kernels.methods import MergeInputs
from pemlang.kernels.steps.elements import Abs, Add, Div, Equal, Less, Mul, Sign, Sub


class Entries:
    """Some tensors of one shape, and what their merge is written with.

    Attributes:
        xs: the tensors.
        weights: of each.
        numbers, words: the method's settings by name.
        size: elements of each tensor.
    """

    def __init__(
        self,
        builder: Builder[Any, Any],
        xs: Sequence[Value],
        weights: Sequence[float],
        inputs: MergeInputs,
        part: int = 0,
    ) -> None:
        """Take some tensors.

        Args:
            builder: takes the steps.
            xs, weights: the tensors, and what they weigh.
            inputs: whose settings and seeds count.
            part: which tensors of a site these are.
        """
        self._builder, self._seeds, self._part = builder, inputs.seeds, OwnNumber(part)
        self.xs, self.weights = xs, weights
        self.numbers, self.words = inputs.numbers, inputs.words
        shape = xs[0].shape
        self.size = math.prod(shape)
        # A vector along any axis is one row.
        self._columns = self.size if self.size == max(shape) else self.size // shape[0]

    def number(self, number: float, dtype: str = "") -> Value:
        """A number in the place of every element."""
        return self._builder.const(number, dtype or self.xs[0].dtype, self.xs[0].shape)

    def wide(self, x: Value) -> Value:
        """x in float64."""
        return self._builder.cast(x, "F64")

    def narrow(self, x: Value) -> Value:
        """x in the precision of the tensors."""
        return self._builder.cast(x, self.xs[0].dtype)

    def plus(self, x: Value, y: Value) -> Value:
        """x + y; this and what follows in the wider precision of the two."""
        return self._builder.binary(Add, x, y)

    def minus(self, x: Value, y: Value) -> Value:
        """x − y."""
        return self._builder.binary(Sub, x, y)

    def times(self, x: Value, y: Value) -> Value:
        """x·y, element by element."""
        return self._builder.binary(Mul, x, y)

    def over(self, x: Value, y: Value) -> Value:
        """x/y, element by element."""
        return self._builder.binary(Div, x, y)

    def scaled(self, x: Value, number: float) -> Value:
        """number·x."""
        return self._builder.scale(x, number)

    def total(self, xs: Sequence[Value]) -> Value:
        """The sum of some values, the first first."""
        return reduce(self.plus, xs)

    def weighted(self, xs: Sequence[Value], weights: Sequence[float]) -> Value:
        """Σ wᵢ·xᵢ."""
        total = self.scaled(xs[0], weights[0])
        for x, weight in zip(xs[1:], weights[1:], strict=True):
            total = self._builder.fma(x, weight, total)
        return total

    def size_of(self, x: Value) -> Value:
        """|x|."""
        return self._builder.unary(Abs, x)

    def sign(self, x: Value) -> Value:
        """−1, 0 or 1."""
        return self._builder.unary(Sign, x)

    def less(self, x: Value, y: Value) -> Value:
        """Where x < y."""
        return self._builder.compare(Less, x, y)

    def equal(self, x: Value, y: Value) -> Value:
        """Where x = y."""
        return self._builder.compare(Equal, x, y)

    def where(self, condition: Value, x: Value, y: Value) -> Value:
        """x where a comparison holds, else y."""
        return self._builder.select(condition, x, y)

    def least(self, x: Value, y: Value) -> Value:
        """The lesser of two."""
        return self.where(self.less(y, x), y, x)

    def most(self, x: Value, y: Value) -> Value:
        """The larger of two."""
        return self.where(self.less(x, y), y, x)

    def sum_of(self, x: Value) -> Value:
        """The sum over the whole tensor, in float64, in the place of every element."""
        return self._builder.reduce("sum", self.wide(x))

    def kth(self, x: Value, k: int) -> Value:
        """The k-th largest of the numbers of a tensor, none of which is negative; infinite for
        k = 0."""
        return self.kth_share(x, 1.0, self.number(k, "F64"))

    def kth_share(self, x: Value, share: float, count: Value) -> Value:
        """The ⌊share·count⌋-th largest."""
        return self._builder.kth(x, share, count)

    def draw(self, index: int) -> Value:
        """A number from 0 to 1 for each element of one of the tensors."""
        return self._builder.draw(self.xs[index], self._seeds[index], self._part)

    def place(self, x: Value) -> tuple[Value, int]:
        """How many numbers of its row are less than each, none of which is negative, and how long a
        row is."""
        return self._builder.place(x, self._columns), self._columns
