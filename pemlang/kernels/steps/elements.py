"""Steps on each element alone: numbers read, cast, scaled, added, compared, chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.kernels.algebra import finite_numbers
from pemlang.kernels.step import Dense, ElementStep, Meaning, Renumber, Shape, SiteInputs, Step
from pemlang.lazy import numpy as np
from pemlang.tensorfiles.dtypes import FLOATS, NATIVE, Array, stored_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pemlang.kernels.llvm import LlvmPass
    from pemlang.kernels.triton import TritonKernel


def _truth(where: NDArray[np.bool_]) -> Array:
    """A comparison as the value of a step."""
    return where  # type: ignore[return-value]


@dataclass(frozen=True)
class Load(Step):
    """A tensor as it is stored; narrow dtypes as float32."""

    input: int

    name = "load"
    elementwise = True
    linear = True

    def words(self) -> Iterable[str]:
        return (f"in{self.input}",)

    def renumbered(self, inputs: Renumber, constants: Renumber, outputs: Renumber) -> Step:
        return replace(self, input=inputs(self.input))

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return np.asarray(slots.inputs[self.input], np.float64)

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        stored = slots.read(self.input, self.shape, self.dtype)
        return finite_numbers(stored) if self.dtype in NATIVE else stored  # type: ignore

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        return loop.load(self.input, self.dtype)

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        return kernel.load(self.input, self.dtype)

    def workspace(self, shapes: Sequence[Shape]) -> int:
        return math.prod(self.shape) * 8


@dataclass(frozen=True)
class Cast(Step):
    """x in another precision than that of `source`."""

    source: str

    name = "cast"
    elementwise = True
    linear = True

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return np.asarray(args[0], np.float64)  # a comparison is 1 where it holds

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        if self.source in FLOATS and self.source not in NATIVE:
            return slots.algebra.widened(args[0], self.source, self.dtype)
        return args[0].astype(stored_dtype(self.dtype))

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        return loop.cast(args[0], self.source, self.dtype)

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        return f"{args[0]}.to(tl.float{self.dtype[1:]})"

    def workspace(self, shapes: Sequence[Shape]) -> int:
        return math.prod(self.shape) * 8


@dataclass(frozen=True)
class _OfConstant(Step):
    """A step with a number of its own, which is rounded to the precision of its value first."""

    constant: int

    def words(self) -> Iterable[str]:
        return (f"c{self.constant}",)

    def renumbered(self, inputs: Renumber, constants: Renumber, outputs: Renumber) -> Step:
        return replace(self, constant=constants(self.constant))


class Const(_OfConstant):
    """A tensor of one number."""

    name = "const"
    elementwise = True
    linear = True
    uniform = True

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        inputs = slots.inputs
        shape = self.shape or (inputs[0].shape if inputs else (1,))
        return np.full(shape, slots.constants[self.constant])

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        return np.full(self.shape, slots.constants[self.constant], stored_dtype(self.dtype))

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        return loop.constant(self.constant, self.dtype)

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        return f"tl.broadcast_to({kernel.constant(self.constant, self.dtype)}, (BLOCK,))"


class Scale(_OfConstant, ElementStep):
    """c·x."""

    name = "scale"
    linear = True

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return slots.constants[self.constant] * args[0]

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        [x] = args
        return np.multiply(x, x.dtype.type(slots.constants[self.constant]))

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        number = loop.constant(self.constant, self.dtype)
        return loop.binary("fmul", self.dtype, args[0], number)

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        return f"{kernel.constant(self.constant, self.dtype)} * {args[0]}"


class Fma(_OfConstant, ElementStep):
    """c·x + y, rounded after each of the two."""

    name = "fma"
    linear = True

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        x, y = args
        return slots.constants[self.constant] * x + y

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        x, y = args
        product = np.multiply(x, x.dtype.type(slots.constants[self.constant]))
        return np.add(y, product, out=product)

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        number = loop.constant(self.constant, self.dtype)
        product = loop.binary("fmul", self.dtype, args[0], number)
        return loop.binary("fadd", self.dtype, args[1], product)

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        return f"{args[1]} + {kernel.constant(self.constant, self.dtype)} * {args[0]}"

    def flops(self, shapes: Sequence[Shape], elements: int) -> int:
        return 2 * elements

    def workspace(self, shapes: Sequence[Shape]) -> int:
        return math.prod(self.shape) * 8


# --- two values ------------------------------------------------------------------------------


class Add(ElementStep):
    """x + y."""

    name = "add"
    linear = True

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return args[0] + args[1]

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        return args[0] + args[1]

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        return loop.binary("fadd", self.dtype, *args)

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        return f"{args[0]} + {args[1]}"


class Sub(ElementStep):
    """x − y."""

    name = "sub"
    linear = True

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return args[0] - args[1]

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        return args[0] - args[1]

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        return loop.binary("fsub", self.dtype, *args)

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        return f"{args[0]} - {args[1]}"


class Mul(ElementStep):
    """x·y, element by element."""

    name = "mul"

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return args[0] * args[1]

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        return args[0] * args[1]

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        return loop.binary("fmul", self.dtype, *args)

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        return f"{args[0]} * {args[1]}"


class Div(ElementStep):
    """x/y, element by element."""

    name = "div"

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return args[0] / args[1]

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        return args[0] / args[1]

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        return loop.binary("fdiv", self.dtype, *args)

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        if self.dtype == "F32":  # `/` may be off by two units in the last place
            return f"tl.math.div_rn({args[0]}, {args[1]})"
        return f"{args[0]} / {args[1]}"


# --- signs, comparisons and choices ----------------------------------------------------------


class Sign(ElementStep):
    """−1, 0 or 1; NaN stays."""

    name = "sign"

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return np.sign(args[0])

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        return np.sign(args[0])

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        value = args[0]
        for test, number in (("oeq", 0.0), ("olt", -1.0), ("ogt", 1.0)):
            where = loop.compare(test, self.dtype, args[0], "zeroinitializer")
            value = loop.choose(where, self.dtype, loop.number(number, self.dtype), value)
        return value

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        return f"sign({args[0]})"


class Abs(ElementStep):
    """|x|."""

    name = "abs"

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return np.abs(args[0])

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        return np.abs(args[0])

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        return loop.call("fabs", self.dtype, args[0])

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        return f"tl.abs({args[0]})"


@dataclass(frozen=True)
class _ComparisonStep(ElementStep):
    """A comparison of two values of the dtype `of`."""

    of: str


class Less(_ComparisonStep):
    """Where x < y."""

    name = "less"

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return _truth(args[0] < args[1])

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        return _truth(args[0] < args[1])

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        return loop.compare("olt", self.of, *args)

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        return f"{args[0]} < {args[1]}"


class Equal(_ComparisonStep):
    """Where x = y."""

    name = "equal"

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        return _truth(args[0] == args[1])

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        return _truth(args[0] == args[1])

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        return loop.compare("oeq", self.of, *args)

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        return f"{args[0]} == {args[1]}"


class Select(ElementStep):
    """x where a comparison holds, else y."""

    name = "select"

    def meaning(self, args: Sequence[Dense], slots: Meaning) -> Dense:
        where, x, y = args
        return np.where(where, x, y)

    def compute(self, args: Sequence[Array], slots: SiteInputs) -> Array:
        where, x, y = args
        return np.where(where, x, y)

    def llvm(self, loop: LlvmPass, args: Sequence[str]) -> str:
        where, x, y = args
        return loop.choose(where, self.dtype, x, y)

    def triton(self, kernel: TritonKernel, args: Sequence[str]) -> str:
        return f"tl.where({args[0]}, {args[1]}, {args[2]})"
