"""Site programs: straight-line code over the tensors of a site, and how it is made and printed.

A program reads input tensors by slot, computes in float32 or float64, and rounds once into output
tensors by slot. It holds no name, no offset and no constant's value, so sites that do the same
share one program, and one kernel:

    %0 = load bf16 in0
    %1 = cast f32 %0
    %2 = scale f32 %1 c0
    %3 = load bf16 in1
    %4 = cast f32 %3
    %5 = fma f32 %4 %2 c1        c1·%4 + %2
    store bf16 %5 out0
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pemlang.kernels.methods import Request

Shape = tuple[int, ...]

# What acts on each element alone. Everything else moves or multiplies whole matrices.
ELEMENTWISE = frozenset(
    "load cast const scale add sub mul div fma sign abs less equal select reduce store".split()
)


class Instr(NamedTuple):
    """One step.

    Attributes:
        op: its name.
        args: the numbers of the steps whose values it takes.
        attrs: slots of inputs, constants and outputs, axes, ranks: whole numbers and words.
        dtype: of its value, as safetensors spells it; `BOOL` for a comparison.
        shape: of its value; () in a program that does the same for any shape.
    """

    op: str
    args: tuple[int, ...]
    attrs: tuple[Any, ...]
    dtype: str
    shape: Shape

    def __str__(self) -> str:
        words = [self.op, self.dtype.lower()]
        words += ["×".join(map(str, self.shape))] if self.shape else []
        words += [f"%{arg}" for arg in self.args]
        words += [str(attr) for attr in self.attrs]
        return " ".join(words)


@dataclass(frozen=True)
class Program:
    """Straight-line code; equal programs are one kernel.

    Attributes:
        instrs: the steps, arguments first.
    """

    instrs: tuple[Instr, ...]

    @cached_property
    def elementwise(self) -> bool:
        """Whether it treats every element alike, so that it runs over any span of them."""
        return all(instr.op in ELEMENTWISE for instr in self.instrs)

    @cached_property
    def reduces(self) -> bool:
        """Whether it needs a number over the whole tensor before it can finish."""
        return any(instr.op == "reduce" for instr in self.instrs)

    @cached_property
    def linear(self) -> bool:
        """Whether infinity or NaN in an input always shows in the output."""
        return all(i.op in ("load", "cast", "scale", "add", "sub", "fma", "store", "const")
                   for i in self.instrs)  # fmt: skip

    @cached_property
    def key(self) -> str:
        """A digest of the text."""
        return hashlib.sha256(str(self).encode()).hexdigest()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.instrs)

    def __str__(self) -> str:
        return "\n".join(
            str(instr) if instr.op in ("store", "report") else f"%{index} = {instr}"
            for index, instr in enumerate(self.instrs)
        )


class Value(NamedTuple):
    """The result of a step of a program that is being made."""

    step: int
    dtype: str
    shape: Shape


@dataclass(frozen=True)
class Piece:
    """A program with what stands in its slots.

    Attributes:
        program: what to compute.
        inputs, outputs: what the builder was given for them.
        consts: the numbers.
        shape: of every tensor where the program is elementwise; () otherwise.
    """

    program: Program
    inputs: tuple[Hashable, ...]
    consts: tuple[float, ...]
    outputs: tuple[Hashable, ...]
    shape: Shape


class Builder:
    """Makes the program of one site. Equal steps are one step."""

    def __init__(self) -> None:
        self._instrs: list[Instr] = []
        self._known: dict[Instr, Value] = {}
        self._inputs: dict[Hashable, int] = {}
        self._consts: dict[float, int] = {}
        self._outputs: list[Hashable] = []

    def _add(
        self, op: str, args: Iterable[Value], attrs: tuple[Any, ...], dtype: str, shape: Shape
    ) -> Value:
        return self._join(Instr(op, tuple(arg.step for arg in args), attrs, dtype, shape))

    def _join(self, instr: Instr) -> Value:
        if instr not in self._known:
            self._known[instr] = Value(len(self._instrs), instr.dtype, instr.shape)
            self._instrs.append(instr)
        return self._known[instr]

    def _const(self, number: float) -> str:
        return f"c{self._consts.setdefault(number, len(self._consts))}"

    # --- elements ---------------------------------------------------------------------------

    def load(self, source: Hashable, dtype: str, shape: Shape) -> Value:
        """A tensor as it is stored."""
        slot = self._inputs.setdefault(source, len(self._inputs))
        return self._add("load", (), (f"in{slot}",), dtype, shape)

    def cast(self, x: Value, dtype: str) -> Value:
        """x in another precision. What is put side by side is put there in it at once."""
        if x.dtype == dtype:
            return x
        made = self._instrs[x.step]
        if made.op == "concat" and dtype == "F64":
            return self._join(made._replace(dtype=dtype))
        return self._add("cast", (x,), (), dtype, x.shape)

    def const(self, number: float, dtype: str, shape: Shape) -> Value:
        """A tensor of one number."""
        return self._add("const", (), (self._const(number),), dtype, shape)

    def scale(self, x: Value, number: float) -> Value:
        """number·x; the number is rounded to x's precision first."""
        return x if number == 1 else self._add("scale", (x,), (self._const(number),), *_of(x))

    def fma(self, x: Value, number: float, y: Value) -> Value:
        """number·x + y, rounded after each of the two steps on a CPU."""
        if number == 1 or x.dtype != y.dtype:
            return self.binary("add", self.scale(x, number), y)
        return self._add("fma", (x, y), (self._const(number),), *_of(x))

    def binary(self, op: str, x: Value, y: Value) -> Value:
        """`add`, `sub`, `mul`, `div`: in the wider precision of the two."""
        x, y = self.alike((x, y))
        return self._add(op, (x, y), (), *_of(x))

    def compare(self, op: str, x: Value, y: Value) -> Value:
        """`less`, `equal`: where x < y, x = y."""
        x, y = self.alike((x, y))
        return self._add(op, (x, y), (), "BOOL", x.shape)

    def select(self, where: Value, x: Value, y: Value) -> Value:
        """x where a comparison holds, else y."""
        x, y = self.alike((x, y))
        return self._add("select", (where, x, y), (), *_of(x))

    def unary(self, op: str, x: Value) -> Value:
        """`sign`, `abs`."""
        return self._add(op, (x,), (), *_of(x))

    def reduce(self, op: str, x: Value) -> Value:
        """`sum`, `max` over the whole tensor, in its place everywhere; a sum is in float64."""
        return self._add("reduce", (x,), (op,), *_of(x))

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
        return self._add("concat", values, (axis,), values[0].dtype, shape)

    def pad(self, x: Value, axis: int, size: int) -> Value:
        """x with zeros after it along an axis, up to a size."""
        if x.shape[axis] >= size:
            return x
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        return self._add("pad", (x,), (axis,), x.dtype, shape)

    def matmul(self, x: Value, y: Value) -> Value:
        """x·y of two matrices."""
        x, y = self.alike((x, y))
        return self._add("matmul", (x, y), (), x.dtype, (x.shape[0], y.shape[1]))

    def core_svd(self, a: Value, b: Value, scale: float, rank: int) -> tuple[Value, Value, Value]:
        """The factors of the best approximation of scale·B·A of a rank, and what it costs: the
        norm of what is cut off, and the norm of all. Float64; see lowrank.truncate."""
        shapes = ((rank, *a.shape[1:]), (b.shape[0], rank, *b.shape[2:]), (2,))
        args = (self.cast(a, "F64"), self.cast(b, "F64"))
        attrs = (self._const(scale), f"rank={rank}")
        core = self._add("core_svd", args, attrs, "F64", ())
        new_a, new_b, cost = (
            self._add("item", (core,), (n,), "F64", shape) for n, shape in enumerate(shapes)
        )
        return new_a, new_b, cost

    def whole(self, a: Value, b: Value, scale: float) -> Value:
        """What a cut costs that cuts nothing: 0, and the norm of scale·B·A."""
        args = (self.cast(a, "F64"), self.cast(b, "F64"))
        return self._add("whole", args, (self._const(scale),), "F64", (2,))

    def merge(
        self, ask: Request, parts: Sequence[Sequence[Value | None]], numbers: Sequence[float]
    ) -> tuple[Value, Value | None, Value]:
        """A, B and the cost of several adapters merged by a method; see merging.merged. A part is
        A and B of one of them, and its statistics."""
        args = [self.cast(x, ask.dtype) for part in parts for x in part if x is not None]
        attrs = (ask, *(self._const(number) for number in numbers))
        step = self._add("merge", args, attrs, ask.dtype, ())
        a, b = parts[0][:2]
        assert a is not None
        found = [a.shape if b is None else (ask.rank, *a.shape[1:])]
        found += [] if b is None else [(b.shape[0], ask.rank, *b.shape[2:])]
        items = [
            self._add("item", (step,), (n,), ask.dtype, shape)
            for n, shape in enumerate([*found, (2,)])
        ]
        return items[0], None if b is None else items[1], items[-1]

    # --- results ----------------------------------------------------------------------------

    def store(self, x: Value, sink: Hashable, dtype: str, around: float = 0.0) -> None:
        """Round around + x to a dtype, once, and write it."""
        self._sink("store", x, sink, dtype, (self._const(around),) if around else ())

    def report(self, x: Value, sink: Hashable) -> None:
        """Hand a value to whoever asked."""
        self._sink("report", x, sink, x.dtype, ())

    def _sink(self, op: str, x: Value, sink: Hashable, dtype: str, attrs: tuple[Any, ...]) -> None:
        self._outputs.append(sink)
        attrs = (f"out{len(self._outputs) - 1}", *attrs)
        self._instrs.append(Instr(op, (x.step,), attrs, dtype, x.shape))

    def pieces(self, shapes: bool = False) -> list[Piece]:
        """The program cut into parts that share no input and no step.

        Args:
            shapes: keep the shapes of parts that treat every element alike and need none.
        """
        sinks = [i for i, instr in enumerate(self._instrs) if instr.op in ("store", "report")]
        groups: list[tuple[set[int], list[int]]] = []
        for sink in sinks:
            needed = self._needed(sink)
            merged, members = needed, [sink]
            apart = []
            for group in groups:
                if self._together(group, needed):
                    merged, members = merged | group[0], [*group[1], *members]
                else:
                    apart.append(group)
            groups = [*apart, (merged, members)]
        return [self._piece(sorted(needed), shapes) for needed, _ in groups]

    def _needed(self, sink: int) -> set[int]:
        found, pending = {sink}, [sink]
        while pending:
            for arg in self._instrs[pending.pop()].args:
                if arg not in found:
                    found.add(arg)
                    pending.append(arg)
        return found

    def _together(self, group: tuple[set[int], list[int]], needed: set[int]) -> bool:
        """Whether two parts share work, and are both elementwise or both not: a part that runs
        over spans is not slowed down by one that does not."""
        shared = group[0] & needed
        if not shared:
            return False
        loads_only = all(self._instrs[i].op in ("load", "cast") for i in shared)
        return not loads_only or self._plain(group[0]) == self._plain(needed)

    def _plain(self, needed: set[int]) -> bool:
        return all(self._instrs[i].op in ELEMENTWISE for i in needed)

    def _piece(self, kept: list[int], shapes: bool) -> Piece:
        """A part with its slots numbered in the order it uses them."""
        plain = not shapes and self._plain(set(kept))
        instrs = tuple(self._instrs[i] for i in kept)
        program, ins, consts, outs = _renumbered(instrs, tuple(kept), plain)
        known_ins, known_consts = list(self._inputs), list(self._consts)
        return Piece(
            program,
            tuple(known_ins[n] for n in ins),
            tuple(known_consts[n] for n in consts),
            tuple(self._outputs[n] for n in outs),
            instrs[-1].shape if plain else (),
        )


def _on_demand(instrs: Sequence[Instr]) -> list[int]:
    """The steps in an order in which each is done just before something needs it: few values are
    alive at a time where one result is made from many inputs."""
    order: list[int] = []
    done: set[int] = set()
    for sink, instr in enumerate(instrs):
        pending = [sink] if instr.op in ("store", "report") else []
        while pending:
            missing = [arg for arg in instrs[pending[-1]].args if arg not in done]
            if missing:
                pending.append(missing[-1])  # what has been summed so far comes last
                continue
            step = pending.pop()
            if step not in done:
                done.add(step)
                order.append(step)
    return order


def _eagerly(instrs: Sequence[Instr]) -> list[int]:
    """The steps in an order in which each is done as soon as it can be: few values are alive at a
    time where many results are made from few inputs, or in step."""
    users: list[list[int]] = [[] for _ in instrs]
    waits = [len(set(instr.args)) for instr in instrs]
    for index, instr in enumerate(instrs):
        for arg in set(instr.args):
            users[arg].append(index)
    order: list[int] = []
    for source, instr in enumerate(instrs):
        pending = [source] if not instr.args else []
        while pending:
            step = pending.pop()
            order.append(step)
            for user in reversed(users[step]):
                waits[user] -= 1
                if waits[user] == 0:
                    pending.append(user)
    return order


def _most_alive(instrs: Sequence[Instr], order: Sequence[int]) -> int:
    """The most elements that are alive at once in an order, at one byte each."""
    last = {arg: step for step in order for arg in instrs[step].args}
    alive = most = 0
    for step in order:
        alive += math.prod(instrs[step].shape)
        most = max(most, alive)
        alive -= sum(math.prod(instrs[a].shape) for a in set(instrs[step].args) if last[a] == step)
        if instrs[step].op in ("store", "report"):
            alive -= math.prod(instrs[step].shape)
    return most


@lru_cache(maxsize=4096)
def _renumbered(
    instrs: tuple[Instr, ...], kept: tuple[int, ...], plain: bool
) -> tuple[Program, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A part of a program as one of its own, and which slots of the whole its own are.

    Sites alike give the same program: the very same object.
    """
    place = {old: new for new, old in enumerate(kept)}
    local = [instr._replace(args=tuple(place[arg] for arg in instr.args)) for instr in instrs]
    order = min((_on_demand(local), _eagerly(local)), key=lambda order: _most_alive(local, order))
    place = {old: new for new, old in enumerate(order)}
    slots: dict[str, dict[str, str]] = {"in": {}, "c": {}, "out": {}}

    def renamed(attr: Any) -> Any:
        kind = attr.rstrip("0123456789") if isinstance(attr, str) else ""
        if kind not in slots or kind == attr:
            return attr
        return slots[kind].setdefault(attr, f"{kind}{len(slots[kind])}")

    found = tuple(
        instr._replace(
            args=tuple(place[arg] for arg in instr.args),
            attrs=tuple(renamed(attr) for attr in instr.attrs),
            shape=() if plain else instr.shape,
        )
        for instr in (local[old] for old in order)
    )
    ins, consts, outs = (tuple(slot(old) for old in slots[kind]) for kind in ("in", "c", "out"))
    return _interned(Program(found)), ins, consts, outs


@lru_cache(maxsize=4096)
def _interned(program: Program) -> Program:
    """The first of equal programs, so that comparing them is quick."""
    return program


def slot(name: str) -> int:
    """The number of a slot: 3 of `in3`, `c3`, `out3`."""
    return int(name.lstrip("incout"))


def loaded(program: Program) -> list[str]:
    """The dtype of each input slot."""
    found = {slot(i.attrs[0]): i.dtype for i in program.instrs if i.op == "load"}
    return [found[index] for index in sorted(found)]


def stored(program: Program) -> list[str]:
    """The dtype of each output slot."""
    return [store.dtype for store in _stores(program)]


def exact_dtypes(program: Program) -> list[str]:
    """F32 or F64 for each output slot: what its numbers are in before they are rounded."""
    found = (program.instrs[store.args[0]].dtype for store in _stores(program))
    return [dtype if dtype == "F64" else "F32" for dtype in found]


def _stores(program: Program) -> list[Instr]:
    found = [instr for instr in program.instrs if instr.op == "store"]
    return sorted(found, key=lambda store: slot(store.attrs[0]))


def _of(x: Value) -> tuple[str, Shape]:
    return x.dtype, x.shape
