"""Making the program of a site, step by step, and cutting it into parts that share nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Generic, Literal, NamedTuple, TypeVar

from pemlang.dataclass import dataclass
from pemlang.kernels.measuring import SiteMeasure
from pemlang.kernels.methods import MergeInputs, SiteKernel
from pemlang.kernels.order import best_order
from pemlang.kernels.program import Program, SlotNumbers, interned
from pemlang.kernels.step import Shape, Step
from pemlang.kernels.steps.bakes import (
    AddProduct,
    AddProductAtLengths,
    AddProducts,
    PutRows,
    ScaleAlong,
)
from pemlang.kernels.steps.deltas import CutDense, OverDeltas
from pemlang.kernels.steps.elements import (
    Abs,
    Add,
    Cast,
    Const,
    Div,
    Equal,
    Fma,
    Less,
    Load,
    Mul,
    Scale,
    Select,
    Sign,
    Sub,
)
from pemlang.kernels.steps.matrices import Concat, CoreSvd, GatherRows, Item, PadAxis, Whole
from pemlang.kernels.steps.measures import Measure, Operand
from pemlang.kernels.steps.merges import MergeRequest, MergeTensors
from pemlang.kernels.steps.places import Draw, RowPlace
from pemlang.kernels.steps.products import Einsum, Identity
from pemlang.kernels.steps.results import ReportStep, Store
from pemlang.kernels.steps.scans import Kth, Reduce

InputKey = TypeVar("InputKey", bound=Hashable)
OutputKey = TypeVar("OutputKey", bound=Hashable)
In_co = TypeVar("In_co", bound=Hashable, covariant=True)
Out_co = TypeVar("Out_co", bound=Hashable, covariant=True)

BinaryKind = type[Add] | type[Sub] | type[Mul] | type[Div]
UnaryKind = type[Sign] | type[Abs]


class Value(NamedTuple):
    """The result of a step of a program that is being made."""

    step: int
    dtype: str
    shape: Shape


class OwnNumber(float):
    """A constant that has a slot of its own, whatever others are equal to it: programs that differ
    in such numbers alone are one."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class SiteNumber(OwnNumber):
    """A constant that is another at each site."""

    def __new__(cls, of: Callable[[str], float], site: str) -> SiteNumber:
        """Take what gives it at each site, and the site where it is first asked for."""
        number = super().__new__(cls, of(site))
        number.of = of
        return number

    of: Callable[[str], float]


@dataclass(frozen=True)
class KernelCall(Generic[In_co, Out_co]):
    """A program with what stands in its slots.

    Attributes:
        program: what to compute.
        inputs, outputs: what the builder was given for them.
        constants: the numbers.
        shape: of every tensor where the program is elementwise; () otherwise.
    """

    program: Program
    inputs: tuple[In_co, ...]
    constants: tuple[float, ...]
    outputs: tuple[Out_co, ...]
    shape: Shape

    def constants_at(self, site: str) -> tuple[float, ...]:
        """The numbers at another site, plain ones."""
        return tuple(x.of(site) if isinstance(x, SiteNumber) else float(x) for x in self.constants)


class Builder(Generic[InputKey, OutputKey]):
    """Makes the program of one site. Equal steps are one step."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._values: dict[Step, Value] = {}
        self._inputs: dict[InputKey, int] = {}
        self._constants: dict[float, int] = {}
        self._outputs: list[OutputKey] = []

    def add(self, step: Step) -> Value:
        """The value of a step: of the one that is there already, or of a new one."""
        if step not in self._values:
            self._values[step] = Value(len(self._steps), step.dtype, step.shape)
            self._steps.append(step)
        return self._values[step]

    def constant(self, number: float) -> int:
        """The slot of a number."""
        return self._constants.setdefault(number, len(self._constants))

    # --- elements ---------------------------------------------------------------------------

    def load(self, source: InputKey, dtype: str, shape: Shape) -> Value:
        """A tensor as it is stored."""
        slot = self._inputs.setdefault(source, len(self._inputs))
        return self.add(Load((), dtype, shape, slot))

    def cast(self, x: Value, dtype: str) -> Value:
        """x in another precision. What is put side by side is put there in it at once."""
        if x.dtype == dtype:
            return x
        made = self._steps[x.step]
        if isinstance(made, Concat) and dtype == "F64":
            return self.add(replace(made, dtype=dtype))
        return self.add(Cast((x.step,), dtype, x.shape, x.dtype))

    def const(self, number: float, dtype: str, shape: Shape) -> Value:
        """A tensor of one number."""
        return self.add(Const((), dtype, shape, self.constant(number)))

    def scale(self, x: Value, number: float) -> Value:
        """number·x; the number is rounded to x's precision first."""
        return x if number == 1 else self.add(Scale(*_like(x), self.constant(number)))

    def fma(self, x: Value, number: float, y: Value) -> Value:
        """number·x + y, rounded after each of the two steps on a CPU."""
        if number == 1 or x.dtype != y.dtype:
            return self.binary(Add, self.scale(x, number), y)
        return self.add(Fma((x.step, y.step), x.dtype, x.shape, self.constant(number)))

    def binary(self, kind: BinaryKind, x: Value, y: Value) -> Value:
        """x and y, in the wider precision of the two."""
        x, y = self.alike((x, y))
        return self.add(kind((x.step, y.step), x.dtype, x.shape))

    def plus(self, x: Value, number: float) -> Value:
        """x + number."""
        return self.binary(Add, x, self.const(number, x.dtype, x.shape))

    def compare(self, kind: type[Less] | type[Equal], x: Value, y: Value) -> Value:
        """Where x < y, or x = y."""
        x, y = self.alike((x, y))
        return self.add(kind((x.step, y.step), "BOOL", x.shape, x.dtype))

    def select(self, where: Value, x: Value, y: Value) -> Value:
        """x where a comparison holds, else y."""
        x, y = self.alike((x, y))
        return self.add(Select((where.step, x.step, y.step), x.dtype, x.shape))

    def unary(self, kind: UnaryKind, x: Value) -> Value:
        """The sign or the magnitude of x."""
        return self.add(kind(*_like(x)))

    def reduce(self, how: Literal["sum", "max"], x: Value) -> Value:
        """The sum or maximum over the whole tensor, in its place everywhere."""
        return self.add(Reduce(*_like(x), how))

    def kth(self, x: Value, share: float, count: Value) -> Value:
        """The ⌊share·count⌋-th largest of numbers that are not negative, in its place everywhere;
        infinite for none. `count` is in float64 and the same everywhere."""
        return self.add(Kth((x.step, count.step), x.dtype, x.shape, self.constant(share)))

    def draw(self, like: Value, seed: float, part: float) -> Value:
        """A number from 0 to 1 drawn for each element of a value, in float64."""
        slots = self.constant(seed), self.constant(part)
        return self.add(Draw((like.step,), "F64", like.shape, *slots))

    def place(self, x: Value, columns: int) -> Value:
        """How many of its row's numbers come before each by size, in float64."""
        slot = self.constant(columns)
        return self.add(RowPlace((x.step,), "F64", x.shape, slot, x.dtype))

    def alike(self, values: Sequence[Value]) -> list[Value]:
        """Values in the widest precision of them."""
        dtype = "F64" if any(value.dtype == "F64" for value in values) else "F32"
        return [self.cast(value, dtype) for value in values]

    # --- matrices ---------------------------------------------------------------------------

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Values side by side along an axis, in the widest precision of them."""
        if len(values) == 1:
            return values[0]
        values = self.alike(values)
        size = sum(value.shape[axis] for value in values)
        shape = (*values[0].shape[:axis], size, *values[0].shape[axis + 1 :])
        return self.add(Concat(tuple(x.step for x in values), values[0].dtype, shape, axis))

    def einsum(self, subscripts: str, values: Sequence[Value], shape: Shape) -> Value:
        """What `numpy.einsum` gives of some values of one precision, put into a shape."""
        args = tuple(x.step for x in values)
        return self.add(Einsum(args, values[0].dtype, shape, subscripts))

    def identity(self, shape: Shape, dtype: str) -> Value:
        """The identity matrix, in a shape whose first axis is its rows."""
        return self.add(Identity((), dtype, shape))

    def pad(self, x: Value, axis: int, size: int) -> Value:
        """x with zeros after it along an axis, up to a size."""
        if x.shape[axis] >= size:
            return x
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        return self.add(PadAxis((x.step,), x.dtype, shape, axis))

    def gather_rows(
        self, values: Sequence[Value], runs: Sequence[tuple[tuple[int, int, int], ...]], rows: int
    ) -> Value:
        """At each of some rows the mean of those that go there, in the widest precision of them;
        see GatherRows."""
        values = self.alike(values)
        first = values[0]
        shape = (rows, *first.shape[1:])
        step = GatherRows(tuple(x.step for x in values), first.dtype, shape, tuple(runs))
        return self.add(step)

    def core_svd(self, a: Value, b: Value, scale: float, rank: int) -> tuple[Value, Value, Value]:
        """The factors of the best approximation of scale·B·A of a rank, and what it costs."""
        core = self.add(CoreSvd((a.step, b.step), "F64", (), self.constant(scale), rank))
        shapes = ((rank, *a.shape[1:]), (b.shape[0], rank, *b.shape[2:]), (2,))
        new_a, new_b, cost = self._items(core, shapes)
        return new_a, new_b, cost

    def whole(self, a: Value, b: Value, scale: float) -> Value:
        """What a cut costs that cuts nothing: 0, and the norm of scale·B·A."""
        return self.add(Whole((a.step, b.step), "F64", (2,), self.constant(scale)))

    def _items(self, whole: Value, shapes: Iterable[Shape]) -> list[Value]:
        """The results of a step that has several, of some shapes."""
        return [
            self.add(Item((whole.step,), whole.dtype, shape, index))
            for index, shape in enumerate(shapes)
        ]

    def add_product(
        self, weight: Value, factors: Sequence[Value], scale: float, turned: bool
    ) -> Value:
        """weight + scale·B·A, or its transpose, of the factors A and B; in the precision of the
        weight."""
        return self._with_product(AddProduct, weight, factors, scale, turned)

    def add_products(
        self, weight: Value, factors: Sequence[Value], scale: float, turned: bool
    ) -> Value:
        """The same of each expert, of A (experts, r, in) and B (out, r, experts)."""
        return self._with_product(AddProducts, weight, factors, scale, turned)

    def add_product_at_lengths(
        self, weight: Value, factors: Sequence[Value], scale: float, turned: bool, lengths: Value
    ) -> Value:
        """As add_product, and each row, or column of a transpose, brought to a length."""
        return self._with_product(AddProductAtLengths, weight, (*factors, lengths), scale, turned)

    def _with_product(
        self, kind: type[AddProduct], weight: Value, others: Sequence[Value],
        scale: float, turned: bool,
    ) -> Value:  # fmt: skip
        step, source = self._unwidened(weight)
        args = (step, *(self.cast(x, weight.dtype).step for x in others))
        slot = self.constant(scale)
        return self.add(kind(args, weight.dtype, weight.shape, source, slot, turned))

    def scale_along(self, weight: Value, g: Value, axis: int) -> Value:
        """(1 + g) ⊙ weight, along an axis; in the precision of the weight."""
        step, source = self._unwidened(weight)
        return self.add(ScaleAlong((step, g.step), weight.dtype, weight.shape, source, axis))

    def put_rows(self, weight: Value, rows: Value, places: tuple[int, ...]) -> Value:
        """weight with other rows in some places; in the precision of the weight."""
        step, source = self._unwidened(weight)
        args = (step, self.cast(rows, weight.dtype).step)
        return self.add(PutRows(args, weight.dtype, weight.shape, source, places))

    def _unwidened(self, x: Value) -> tuple[int, str]:
        """The step of a value before it was widened, and the dtype that it has there."""
        made = self._steps[x.step]
        return (made.args[0], made.source) if isinstance(made, Cast) else (x.step, x.dtype)

    # --- several adapters -------------------------------------------------------------------

    def merge(self, kernel: SiteKernel, inputs: MergeInputs) -> list[Value]:
        """The tensors of several adapters merged by a method on whole tensors, and what a cut
        costs."""
        numbers = inputs.numbers
        words = tuple(sorted(inputs.words.items()))
        request = MergeRequest(
            inputs.name, kernel, inputs.rank, words, tuple(numbers), inputs.statistics
        )
        casts = [[self.cast(x, inputs.dtype) for x in part] for part in inputs.parts]
        stored = [] if inputs.rank else [self._unwidened(part[0]) for part in casts]
        args = [[x.step for x in part] for part in casts]
        for part, (step, _) in zip(args, stored, strict=False):
            part[0] = step
        sources = tuple(source for _, source in stored)
        constants = (*inputs.weights, *inputs.scales, *inputs.seeds, *numbers.values())
        slots = tuple(map(self.constant, constants))
        flat = tuple(step for part in args for step in part)
        merged = self.add(MergeTensors(flat, inputs.dtype, (), request, slots, sources))
        shapes = [x.shape for x in inputs.parts[0][: request.tensors]]
        if inputs.rank:
            a, b = shapes
            shapes = list(self.shapes_of_rank(a, b, inputs.rank))
        return self._items(merged, [*shapes, (2,)])

    def shapes_of_rank(self, a: Shape, b: Shape, rank: int) -> tuple[Shape, Shape]:
        """The shapes of A and B of another rank."""
        return (rank, *a[1:]), (b[0], rank, *b[2:])

    def over_deltas(
        self,
        body: KernelCall[int, int],
        pairs: Sequence[tuple[Value, Value]],
        scales: Sequence[float],
    ) -> tuple[Value, Value]:
        """What an elementwise program makes of Δ = s·B·A of some adapters: a matrix, and the sum of
        its squares.

        Args:
            body: the program; its inputs are called by the adapters' numbers.
            pairs: A and B of each adapter.
            scales: s of each.
        """
        a, b = pairs[0]
        shape = (b.shape[0], math.prod(a.shape[1:]))
        args = tuple(x.step for number in body.inputs for x in pairs[number])
        slots = tuple(self.constant(scales[number]) for number in body.inputs)
        numbers = tuple(map(self.constant, body.constants))
        merged = self.add(OverDeltas(args, a.dtype, (), body.program, slots, numbers))
        whole, square = self._items(merged, (shape, (1,)))
        return whole, square

    def cut_dense(
        self, x: Value, square: Value, pairs: Sequence[tuple[Value, Value]], rank: int
    ) -> tuple[Value, Value, Value]:
        """The factors of the best approximation of a matrix of a rank, and what it costs.

        Args:
            x, square: the matrix, and the sum of its squares.
            pairs: A and B of the adapters that it is made of; in their shapes the factors are.
            rank: of what comes out.
        """
        a, b = pairs[0]
        shapes = self.shapes_of_rank(a.shape, b.shape, rank)
        args = (x.step, square.step, *(factor.step for pair in pairs for factor in pair))
        cut = self.add(CutDense(args, x.dtype, (), rank, shapes))
        new_a, new_b, cost = self._items(cut, (*shapes, (2,)))
        return new_a, new_b, cost

    def factorised(self, x: Value, rank: int, turned: bool = False) -> tuple[Value, Value, Value]:
        """The factors of the best approximation of a matrix, or of its transpose, of a rank, and
        what it costs."""
        rows, columns = reversed(x.shape) if turned else x.shape
        shapes = (rank, columns), (rows, rank)
        cut = self.add(CutDense((x.step,), x.dtype, (), rank, shapes, turned))
        a, b, cost = self._items(cut, (*shapes, (2,)))
        return a, b, cost

    def measure(
        self,
        measure: SiteMeasure,
        parts: Sequence[tuple[Operand, Sequence[Value]] | None],
        count: int,
    ) -> Value:
        """Some numbers about adapters; None for one that is zero here."""
        args = tuple(x.step for part in parts if part is not None for x in part[1])
        operands = tuple(None if part is None else part[0] for part in parts)
        return self.add(Measure(args, "F64", (count,), measure, operands))

    # --- results ----------------------------------------------------------------------------

    def store(self, x: Value, sink: OutputKey, dtype: str, around: float = 0.0) -> None:
        """Round around + x to a dtype, once, and write it."""
        slot = self.constant(around) if around else None
        self._end(Store((x.step,), dtype, x.shape, len(self._outputs), x.dtype, slot), sink)

    def report(self, x: Value, sink: OutputKey) -> None:
        """Hand a value to whoever asked."""
        self._end(ReportStep((x.step,), x.dtype, x.shape, len(self._outputs), x.dtype), sink)

    def _end(self, step: Step, sink: OutputKey) -> None:
        self._outputs.append(sink)
        self._steps.append(step)

    # --- parts ------------------------------------------------------------------------------

    def calls(self, shapes: bool = False) -> list[KernelCall[InputKey, OutputKey]]:
        """The program cut into parts that share no input and no step.

        Args:
            shapes: keep the shapes of parts that treat every element alike and need none.
        """
        groups: list[tuple[set[int], list[int]]] = []
        for goal, step in enumerate(self._steps):
            if not step.is_result:
                continue
            needed = self._needed(goal)
            merged, members = needed, [goal]
            apart = []
            for group in groups:
                if self._together(group[0], needed):
                    merged, members = merged | group[0], [*group[1], *members]
                else:
                    apart.append(group)
            groups = [*apart, (merged, members)]
        return [self._call(sorted(needed), shapes) for needed, _ in groups]

    def _needed(self, goal: int) -> set[int]:
        needed, pending = {goal}, [goal]
        while pending:
            for arg in self._steps[pending.pop()].args:
                if arg not in needed:
                    needed.add(arg)
                    pending.append(arg)
        return needed

    def _together(self, left: set[int], right: set[int]) -> bool:
        """Whether two parts share work, and are both elementwise or both not: a part that runs
        over spans is not slowed down by one that does not."""
        shared = left & right
        if not shared:
            return False
        reads_only = all(isinstance(self._steps[i], Load | Cast) for i in shared)
        return not reads_only or self._elementwise(left) == self._elementwise(right)

    def _elementwise(self, needed: Iterable[int]) -> bool:
        return all(self._steps[i].elementwise for i in needed)

    def _call(self, kept: list[int], shapes: bool) -> KernelCall[InputKey, OutputKey]:
        """A part with its slots numbered in the order it uses them."""
        shapeless = not shapes and self._elementwise(kept)
        steps = tuple(self._steps[i] for i in kept)
        program, inputs, constants, outputs = _renumbered(steps, tuple(kept), shapeless)
        sources, numbers = list(self._inputs), list(self._constants)
        return KernelCall(
            program,
            tuple(sources[slot] for slot in inputs),
            tuple(numbers[slot] for slot in constants),
            tuple(self._outputs[slot] for slot in outputs),
            steps[-1].shape if shapeless else (),
        )


def _like(x: Value) -> tuple[tuple[int], str, Shape]:
    """What a step that takes x alone is made with."""
    return (x.step,), x.dtype, x.shape


@lru_cache(maxsize=4096)
def _renumbered(
    steps: tuple[Step, ...], kept: tuple[int, ...], shapeless: bool
) -> tuple[Program, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A part of a program as one of its own, and which slots of the whole its own are.

    Sites alike give the same program: the very same object.
    """
    place = {old: new for new, old in enumerate(kept)}
    local = [replace(step, args=tuple(place[arg] for arg in step.args)) for step in steps]
    order = best_order(local)
    place = {old: new for new, old in enumerate(order)}
    inputs, constants, outputs = SlotNumbers(), SlotNumbers(), SlotNumbers()
    renumbered = []
    for old in order:
        step = local[old].renumbered(inputs, constants, outputs)
        args = tuple(place[arg] for arg in step.args)
        renumbered.append(replace(step, args=args, shape=() if shapeless else step.shape))
    whole = (tuple(slots.whole) for slots in (inputs, constants, outputs))
    program = interned(Program(tuple(renumbered)))
    return (program, *whole)  # type: ignore[return-value]
