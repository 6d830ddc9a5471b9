"""Elementwise programs as LLVM IR: text made from the program alone.

A loop is over vectors of WIDTH elements, written out as such: nothing is left to an optimiser's
judgement, and no step is fused with another or reordered, so the same numbers come out on every
processor, whatever its vectors are.

The functions of a module share their arguments:

- `%in`, `%out`: pointers to the arrays of the input slots, and of the output slots;
- `%c`: the constants, in float64;
- `%s`: a number for each step of the program, in float64: that of a scan that is done; and what is
  known of those that are not, see `histogram.py`;
- `%found`: room for what a pass finds, in float64. In the last pass, for each output slot, the sum
  of the squares of the numbers before they are rounded and before the constant that they are stored
  around is added; in those before, a number for each scan. After these comes NaN where an input is
  not finite that a comparison, say, may hide, else 0;
- `%scratch`: pointers to the working memory of one thread, see `scratch.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from pemlang.kernels import philox
from pemlang.kernels.llvm_text import (
    REAL,
    WIDTH,
    LlvmText,
    called,
    splat,
    stored_type,
    vector,
)
from pemlang.kernels.passes import behind, scans, steps_of, uniform
from pemlang.kernels.program import Program
from pemlang.kernels.scratch import FIRST_PLACES, KEYS
from pemlang.kernels.steps.places import RowPlace
from pemlang.kernels.steps.results import Store
from pemlang.kernels.steps.scans import Kth, ScanStep
from pemlang.tensorfiles.dtypes import DTYPES

Written = TypeVar("Written")

PASS_ARGUMENTS = (
    "i64 %from, i64 %end, i64 %base, ptr %in, ptr %out, ptr %c, ptr %s, ptr %found, ptr %scratch"
)
SETTLE_ARGUMENTS = "ptr %c, ptr %s, ptr %found, ptr %scratch"
START_ARGUMENTS = "ptr %s"
BRACKET_ARGUMENTS = "i64 %taken, i64 %size, ptr %c, ptr %s, ptr %scratch"


class LlvmNumbers(LlvmText):
    """A function that knows the numbers which are the same for all elements."""

    def __init__(self, program: Program, turn: int) -> None:
        super().__init__()
        self.program = program
        self.scans = scans(program)[turn] if turn < len(scans(program)) else ()
        self._uniform = uniform(program)
        self._entry: list[str] = []
        self._known: dict[object, object] = {}

    def ordinal(self, index: int) -> int:
        """The place of a scan of this pass among the steps that repeat."""
        return sum(step.repeats for step in self.program.steps[: self.scans[index]])

    def constant(self, slot: int, dtype: str) -> str:
        """A constant, rounded to a precision, as a vector."""
        return self._number("%c", slot, dtype)

    def array(self, pointers: str, slot: int) -> str:
        """A pointer out of a table of them."""
        return self.once(
            (pointers, slot),
            lambda: self.add(f"load ptr, ptr {self.at(pointers, 'ptr', slot)}"),
        )

    def once(self, key: object, write: Callable[[], Written]) -> Written:
        """What is written before all loops where it is first asked for."""
        if key not in self._known:
            with self._before():
                self._known[key] = write()
        return self._known[key]  # type: ignore[return-value]

    def same_for_all(self, number: int) -> str:
        """The value of a step that is the same for all elements."""
        return self.once(("step", number), lambda: self._same_for_all(number))

    def _same_for_all(self, number: int) -> str:
        step = self.program.steps[number]
        if isinstance(step, ScanStep):
            return self._number("%s", number, step.dtype)
        return step.llvm(self, [self.same_for_all(arg) for arg in step.args])  # type: ignore

    def _number(self, array: str, index: int, dtype: str) -> str:
        def spread() -> str:
            number = self.add(f"load double, ptr {self.at(array, 'double', index)}")
            if dtype == "F32":
                number = self.add(f"fptrunc double {number} to float")
            return self.spread(REAL[dtype], number)

        return self.once((array, index, dtype), spread)

    @contextmanager
    def _before(self) -> Iterator[None]:
        body, block = self.lines, self.block
        self.lines, self.block = self._entry, "entry"
        yield
        self.lines, self.block = body, block

    def finished(self, head: str, result: str = "void") -> list[str]:
        """The whole function."""
        return [head, "entry:", *self._entry, *self.lines, f"  ret {result}", "}"]


class LlvmPass(LlvmNumbers):
    """One pass over some elements: `@pass0`, …, or `@exact`, which writes the numbers of the last
    pass before they are rounded, and NaN where an input is not finite.

    It takes the number of the first element, and of the one after the last; up to WIDTH − 1 after
    those are read and written too, and count for nothing. `%base` is the place of the first one in
    its tensor.
    """

    def __init__(self, program: Program, turn: int, name: str, exact: bool = False) -> None:
        super().__init__(program, turn)
        self._exact = exact
        self._order = steps_of(program, turn)
        self._watches = not program.linear
        for number in self._order:
            if isinstance(program.steps[number], RowPlace):
                self._write_places(number)
        self._write_loop()
        self.lines = self.finished(f"define void @{name}({PASS_ARGUMENTS}) {{")

    # --- for steps ----------------------------------------------------------------------------

    def load(self, slot: int, dtype: str) -> str:
        """Numbers of an input slot; those of narrow dtypes as float32."""
        stored = stored_type(dtype)
        at = self.at(self.array("%in", slot), stored, self.loop_here.index)
        value = self.add(f"load {vector(stored)}, ptr {at}, align {DTYPES[dtype].size}")
        work = dtype
        if dtype not in REAL:
            value, work = self.read_narrow(value, dtype), "F32"
        if self._watches:
            self._watched.append((value, work))
        return value

    def narrowed(self, value: str, work: str, dtype: str) -> str:
        """Numbers of a work dtype as the bits of a file's, rounded once."""
        if dtype in REAL:
            return self.cast(value, work, dtype)
        return self.written_narrow(value, work, dtype)

    def drawn(self, seed: int, part: int) -> str:
        """A number from 0 to 1 for each element, in float64, from the key in two constant slots."""
        key = self._whole(seed), self._whole(part)
        drawn = f"[{philox.TOGETHER} x i32]"
        room = self.once(("draws", key), lambda: self.add(f"alloca {drawn}, align 64"))
        at = self.add(f"and i64 {self._offset()}, {philox.TOGETHER - 1}")
        with self.where(self.add(f"icmp eq i64 {at}, 0")):
            numbers = ", ".join(f"i64 {number}" for number in (*key, self._place()))
            self.do(f"call void @draws({numbers}, ptr {room})")
        draws = self.add(f"load {vector('i32')}, ptr {self.at(room, 'i32', at)}, align 64")
        return self.binary("fmul", "F64", self.wide_count(draws), splat("double", 2.0**-32))

    def _whole(self, slot: int) -> str:
        """A constant that is a whole number."""

        def write() -> str:
            number = self.add(f"load double, ptr {self.at('%c', 'double', slot)}")
            return self.add(f"fptoui double {number} to i64")

        return self.once(("whole", slot), write)

    def placed(self, step: RowPlace) -> str:
        """The places of elements in their rows, in float64, which were found before."""
        at = self.at(self._places_of(step), "i32", self._offset())
        return self.wide_count(self.add(f"load {vector('i32')}, ptr {at}, align 4"))

    def wide_count(self, numbers: str) -> str:
        """Whole numbers of 32 bits in float64."""
        return self.add(f"uitofp {vector('i32')} {numbers} to {vector('double')}")

    def gather(self, index: int, how: str, dtype: str, value: str) -> None:
        """Find the `sum`, the sum of squares (`square`) or the `max` of all values."""
        kept = "F64" if how != "max" else dtype
        type_ = vector(REAL[kept])
        start = splat(REAL[kept], -math.inf if how == "max" else 0.0)
        total = self.loop_here.carry(type_, start)
        value = self.present(value, dtype, -math.inf if how == "max" else 0.0)
        if how == "max":
            self.loop_here.next(total, self.add(called("maximum", dtype, total, value)))
        else:
            wide = self.widened(value, dtype)
            if how == "square":
                wide = self.binary("fmul", "F64", wide, wide)
            self.loop_here.next(total, self.binary("fadd", "F64", total, wide))
        self.after.append(partial(self._tell, index, how, kept, total))

    def present(self, value: str, dtype: str, absent: float) -> str:
        """A value, and something else for the elements after the last."""
        return self.choose(self.here, dtype, value, self.number(absent, dtype))

    # --- loops --------------------------------------------------------------------------------

    def _write_places(self, number: int) -> None:
        """The numbers that a `place` takes, as bits in working memory, sorted there by rows."""
        step = self.program.steps[number]
        assert isinstance(step, RowPlace)
        word = f"i{step.source[1:]}"
        keys, *memory = (self.array("%scratch", KEYS + piece) for piece in range(4))
        before = behind(self.program, step.args)
        with self._elements():
            values = self._values(before)
            bits = self._as(values[step.args[0]], REAL[step.source], word)
            self._store(bits, vector(word), self.at(keys, word, self._offset()), 4)
        count = self.add("sub i64 %end, %from")
        columns = self._whole(step.columns)
        pointers = ", ".join(f"ptr {x}" for x in (keys, *memory, self._places_of(step)))
        self.do(f"call void @places_{word}({pointers}, i64 {count}, i64 {columns})")

    def _write_loop(self) -> None:
        steps = self.program.steps
        with self._elements():
            values = self._values(self._order)
            if self._exact:
                self._write_exact(values)
                return
            left = self.add(f"trunc i64 {self.add(f'sub i64 %end, {self.loop_here.index}')} to i32")
            lanes = ", ".join(f"i32 {lane}" for lane in range(WIDTH))
            spread = self.spread("i32", left)
            self.here = self.add(f"icmp sgt {vector('i32')} {spread}, <{lanes}>")
            for index, number in enumerate(self.scans):
                step = steps[number]
                assert isinstance(step, ScanStep)
                step.scan(self, [values.get(arg, "") for arg in step.args], index)
            stores = [step for n in self._order if isinstance(step := steps[n], Store)]
            for step in stores:
                type_, size = stored_type(step.dtype), DTYPES[step.dtype].size
                self._put(step.output, type_, size, step.llvm(self, [values[step.args[0]]]))
                self.gather(step.output, "square", step.exact_dtype, values[step.args[0]])
            self._watch(len(self.scans) or len(stores))

    def _write_exact(self, values: dict[int, str]) -> None:
        for number in self._order:
            step = self.program.steps[number]
            if isinstance(step, Store):
                dtype = step.exact_dtype
                value = self._hidden(values[step.args[0]], dtype)
                self._put(step.output, REAL[dtype], DTYPES[dtype].size, value)

    @contextmanager
    def _elements(self) -> Iterator[None]:
        self._watched: list[tuple[str, str]] = []
        self.after: list[Callable[[], None]] = []
        with self.loop("%end", "%from", WIDTH) as self.loop_here:
            yield
        for tell in self.after:
            tell()

    def _values(self, order: Sequence[int]) -> dict[int, str]:
        """The values of some steps at WIDTH elements; not of results, nor of scans now begun."""
        values: dict[int, str] = {}
        for number in order:
            step = self.program.steps[number]
            if number in self.scans or step.is_result:
                continue
            if number in self._uniform:
                values[number] = self.same_for_all(number)
            else:
                values[number] = step.llvm(self, [values[arg] for arg in step.args])
        return values

    def _offset(self) -> str:
        """The number of an element among those of the pass."""
        return self.add(f"sub i64 {self.loop_here.index}, %from")

    def _place(self) -> str:
        return self.add(f"add i64 {self._offset()}, %base")

    def _places_of(self, step: RowPlace) -> str:
        steps = [x for x in self.program.steps if isinstance(x, RowPlace)]
        return self.array("%scratch", FIRST_PLACES + steps.index(step))

    def _tell(self, index: int, how: str, dtype: str, total: str) -> None:
        """Write what was found."""
        real, type_ = REAL[dtype], vector(REAL[dtype])
        call = f"fadd.v{WIDTH}f64({real} 0.0, "
        if how == "max":
            call = f"fmaximum.v{WIDTH}f{dtype[1:]}("
        value = self.add(f"call {real} @llvm.vector.reduce.{call}{type_} {total})")
        if dtype == "F32":
            value = self.add(f"fpext float {value} to double")
        self.tell(index, value)

    def tell(self, index: int, number: str) -> None:
        """Write a number that the pass found, a double."""
        self.do(f"store double {number}, ptr {self.at('%found', 'double', index)}")

    def _watch(self, index: int) -> None:
        """x − x of every input is 0, or NaN where x is not finite: its bits are not all 0."""
        totals = []
        for dtype in sorted({dtype for _, dtype in self._watched}):
            many = vector(f"i{dtype[1:]}")
            total = self.loop_here.carry(many, "zeroinitializer")
            seen = "zeroinitializer"
            for value in [value for value, source in self._watched if source == dtype]:
                bits = self.bits(self.binary("fsub", dtype, value, value), dtype)
                seen = self.add(f"or {many} {seen}, {bits}")
            seen = self._select(self.here, f"i{dtype[1:]}", seen, "zeroinitializer")
            self.loop_here.next(total, self.add(f"or {many} {total}, {seen}"))
            totals.append((f"i{dtype[1:]}", total))
        self.after.append(partial(self._tell_watched, index, totals))

    def _tell_watched(self, index: int, totals: Sequence[tuple[str, str]]) -> None:
        number = "0.0"
        for word, total in totals:
            reduce = f"@llvm.vector.reduce.or.v{WIDTH}{word}"
            some = self.add(f"call {word} {reduce}({vector(word)} {total})")
            some = self.add(f"icmp ne {word} {some}, 0")
            number = self.add(f"select i1 {some}, double 0x7FF8000000000000, double {number}")
        self.tell(index, number)

    def _hidden(self, value: str, dtype: str) -> str:
        """A value, NaN where an input is not finite that it may not show."""
        for watched, source in self._watched:
            nothing = self.cast(self.binary("fsub", source, watched, watched), source, dtype)
            value = self.binary("fadd", dtype, value, nothing)
        return value

    def _put(self, slot: int, type_: str, align: int, value: str) -> None:
        at = self.at(self.array("%out", slot), type_, self.loop_here.index)
        self._store(value, vector(type_), at, align)

    def _store(self, value: str, type_: str, at: str, align: int) -> None:
        self.do(f"store {type_} {value}, ptr {at}, align {align}")


class LlvmSettle(LlvmNumbers):
    """What stands around a pass.

    `settle` gives its scans their values when it is done, and 1 where it has to be done again, else
    0; `start` begins the scans that repeat, and `bracket` does with what a sample says.
    """

    def __init__(self, program: Program, turn: int) -> None:
        super().__init__(program, turn)
        self.again: list[str] = []
        self._turn = turn

    def settle(self) -> list[str]:
        """`@settle0`, …"""
        for index, step, known in self._known_scans():
            value = step.settle(self, known, index)
            self.do(f"store double {value}, ptr {self.at('%s', 'double', self.scans[index])}")
        total = "0"
        for again in self.again:
            total = self.add(f"or i64 {total}, {again}")
        head = f"define i64 @settle{self._turn}({SETTLE_ARGUMENTS}) {{"
        return self.finished(head, f"i64 {total}")

    def start(self) -> list[str]:
        """`@start0`, …"""
        for index, number in enumerate(self.scans):
            step = self.program.steps[number]
            if isinstance(step, Kth):
                step.start(self, index)
        return self.finished(f"define void @start{self._turn}({START_ARGUMENTS}) {{")

    def bracket(self) -> list[str]:
        """`@bracket0`, …"""
        for index, step, known in self._known_scans():
            if isinstance(step, Kth):
                step.bracket(self, known, index)
        return self.finished(f"define void @bracket{self._turn}({BRACKET_ARGUMENTS}) {{")

    def number_found(self, index: int) -> str:
        """What a pass found."""
        return self.add(f"load double, ptr {self.at('%found', 'double', index)}")

    def _known_scans(self) -> Iterator[tuple[int, ScanStep, list[str]]]:
        """The scans of the pass by place, with the values they take that were known before it."""
        for index, number in enumerate(self.scans):
            step = self.program.steps[number]
            assert isinstance(step, ScanStep)
            args = step.args
            yield index, step, [self.same_for_all(x) if x in self._uniform else "" for x in args]
