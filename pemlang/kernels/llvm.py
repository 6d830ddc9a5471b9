"""Elementwise programs as LLVM IR: text made from the program alone.

A loop is over vectors of WIDTH elements, written out as such: nothing is left to an optimiser's
judgement, and no step is fused with another or reordered, so the same numbers come out on every
processor, whatever its vectors are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from pemlang.dataclass import dataclass
from pemlang.kernels.llvm_text import REAL, WIDTH, LlvmText, called, splat, stored_type, vector
from pemlang.kernels.passes import statistics, steps_of
from pemlang.kernels.program import Program
from pemlang.kernels.steps.elements import Reduce
from pemlang.kernels.steps.results import Store
from pemlang.tensorfiles.dtypes import DTYPES


def llvm_source(program: Program, turn: int, exact: bool = False) -> str:
    """A module with a function `loop`, one pass of an elementwise program, that takes

    - the number of the first element, and of the one after the last. Up to WIDTH − 1 elements
      after those are read and written too, and count for nothing;
    - pointers to the arrays of the input slots, and of the output slots;
    - the constants, and a number for each step of the program, that of a `reduce` done before: in
      float64;
    - room for what is found, in float64: in the last pass, for each output slot, the sum of the
      squares of the numbers before they are rounded and before the constant that they are stored
      around is added; in those before, the statistics. After these comes NaN where an input is
      not finite that a comparison, say, may hide, else 0.

    Args:
        program: what to compute.
        turn: the pass.
        exact: of the last pass, write those numbers before they are rounded, and NaN where such
            an input is not finite; nothing is found then.
    """
    text = "\n".join(LlvmLoop(program, turn, exact).lines)
    return "\n".join([text, *_declared(text)])


def _declared(text: str) -> Iterator[str]:
    """The intrinsics in use."""
    for dtype, real in REAL.items():
        type_, tail = vector(real), f"v{WIDTH}f{dtype[1:]}"
        forms = {
            f"@llvm.fabs.{tail}": f"{type_} {{}}({type_})",
            f"@llvm.maximum.{tail}": f"{type_} {{}}({type_}, {type_})",
            f"@llvm.vector.reduce.fmaximum.{tail}": f"{real} {{}}({type_})",
            f"@llvm.vector.reduce.fadd.{tail}": f"{real} {{}}({real}, {type_})",
        }
        for name, form in forms.items():
            if f"{name}(" in text:
                yield f"declare {form.format(name)}"


@dataclass(frozen=True)
class _Total:
    """A number that a pass finds: the sum or the maximum of a value, or the sum of its squares."""

    how: str
    dtype: str


class LlvmLoop(LlvmText):
    """The text of one pass."""

    def __init__(self, program: Program, turn: int, exact: bool) -> None:
        super().__init__()
        self._steps, self._exact = program.steps, exact
        self._order = steps_of(program, turn)
        self._statistics = statistics(program, turn)
        self._watches = not program.linear
        self._entry: list[str] = []  # what is the same for all elements
        self._known: dict[tuple[str, int, str], str] = {}
        self._loop()
        pointers = ", ".join(f"ptr %{what}" for what in ("in", "out", "c", "s", "found"))
        head = [f"define void @loop(i64 %from, i64 %end, {pointers}) {{", "entry:"]
        self.lines = [*head, *self._entry, *self.lines, "  ret void", "}"]

    # --- for steps ----------------------------------------------------------------------------

    def load(self, slot: int, dtype: str) -> str:
        """Numbers of an input slot; those of narrow dtypes as float32."""
        stored = stored_type(dtype)
        at = self.at(self._array("%in", slot), stored, "%i")
        value = self.add(f"load {vector(stored)}, ptr {at}, align {DTYPES[dtype].size}")
        work = dtype
        if dtype not in REAL:
            value, work = self.read_narrow(value, dtype), "F32"
        if self._watches:
            self._watched.append((value, work))
        return value

    def constant(self, slot: int, dtype: str) -> str:
        """A constant, rounded to a precision, as a vector."""
        return self._number("%c", slot, dtype)

    def narrowed(self, value: str, work: str, dtype: str) -> str:
        """Numbers of a work dtype as the bits of a file's, rounded once."""
        if dtype in REAL:
            return self.cast(value, work, dtype)
        return self.written_narrow(value, work, dtype)

    # --- before the loop ----------------------------------------------------------------------

    def _array(self, pointers: str, slot: int) -> str:
        """The array of an input or an output slot."""
        return self._once(
            (pointers, slot, "ptr"),
            lambda: self.add(f"load ptr, ptr {self.at(pointers, 'ptr', slot)}"),
        )

    def _number(self, array: str, index: int, dtype: str) -> str:
        """A number that is the same for all elements, as a vector."""

        def spread() -> str:
            number = self.add(f"load double, ptr {self.at(array, 'double', index)}")
            if dtype == "F32":
                number = self.add(f"fptrunc double {number} to float")
            return self.spread(REAL[dtype], number)

        return self._once((array, index, dtype), spread)

    def _once(self, key: tuple[str, int, str], write: Callable[[], str]) -> str:
        """What is written before the loop where it is first asked for."""
        if key not in self._known:
            body, self.lines = self.lines, self._entry
            self._known[key] = write()
            self.lines = body
        return self._known[key]

    # --- the loop -----------------------------------------------------------------------------

    def _loop(self) -> None:
        totals = self._totals()
        self.lines += ["  br label %head", "head:"]
        self.do("%i = phi i64 [%from, %entry], [%next, %body]")
        for number, total in enumerate(totals):
            start = splat(REAL[total.dtype], -math.inf if total.how == "max" else 0.0)
            type_ = vector(REAL[total.dtype])
            self.do(f"%sum{number} = phi {type_} [{start}, %entry], [%new{number}, %body]")
        self.do(f"br i1 {self.add('icmp slt i64 %i, %end')}, label %body, label %done")
        self.lines.append("body:")
        self._body(totals)
        self.do(f"%next = add i64 %i, {WIDTH}")
        self.lines += ["  br label %head", "done:"]
        for number, total in enumerate(totals):
            self._tell(number, total)

    def _totals(self) -> list[_Total]:
        """What is found, and last whether an input is not finite."""
        if self._exact:
            return []
        watch = _Total("sum", "F64")
        if not self._statistics:
            stores = sum(isinstance(self._steps[number], Store) for number in self._order)
            return [*[_Total("square", "F64")] * stores, watch]
        totals = []
        for number in self._statistics:
            step = self._steps[number]
            assert isinstance(step, Reduce)
            totals.append(_Total(step.how, "F64" if step.how == "sum" else step.dtype))
        return [*totals, watch]

    def _tell(self, number: int, total: _Total) -> None:
        """Write what was found."""
        real, type_ = REAL[total.dtype], vector(REAL[total.dtype])
        how = f"fadd.v{WIDTH}f64({real} 0.0, "
        if total.how == "max":
            how = f"fmaximum.v{WIDTH}f{total.dtype[1:]}("
        value = self.add(f"call {real} @llvm.vector.reduce.{how}{type_} %sum{number})")
        if total.dtype == "F32":
            value = self.add(f"fpext float {value} to double")
        self.do(f"store double {value}, ptr {self.at('%found', 'double', number)}")

    def _body(self, totals: Sequence[_Total]) -> None:
        self._watched: list[tuple[str, str]] = []
        values: dict[int, str] = {}
        wanted: dict[int, tuple[str, str]] = {}
        for number in self._order:
            step = self._steps[number]
            if step.ends_scan and number not in self._statistics:  # known since an earlier pass
                values[number] = self._number("%s", number, step.dtype)
                continue
            args = [values[arg] for arg in step.args]
            if isinstance(step, Store):
                wanted[step.output] = (args[0], step.exact_dtype)
                if not self._exact:
                    type_, size = stored_type(step.dtype), DTYPES[step.dtype].size
                    self._put(step.output, type_, size, step.llvm(self, args))
            elif step.ends_scan:
                dtype = self._steps[step.args[0]].dtype
                wanted[self._statistics.index(number)] = (args[0], dtype)
            else:
                values[number] = step.llvm(self, args)
        if self._exact:
            for slot, (value, dtype) in wanted.items():
                self._put(slot, REAL[dtype], 8 if dtype == "F64" else 4, self._hidden(value, dtype))
            return
        left = self.add(f"trunc i64 {self.add('sub i64 %end, %i')} to i32")
        lanes = ", ".join(f"i32 {lane}" for lane in range(WIDTH))
        self._here = self.add(f"icmp sgt {vector('i32')} {self.spread('i32', left)}, <{lanes}>")
        for number, total in enumerate(totals[:-1]):
            self._gather(number, total, *wanted[number])
        self._watch(len(totals) - 1)

    def _gather(self, number: int, total: _Total, value: str, dtype: str) -> None:
        """One more vector of numbers or of their squares."""
        if total.how == "max":
            value = self._present(value, dtype, -math.inf)
            self.do(f"%new{number} = {called('maximum', dtype, f'%sum{number}', value)}")
            return
        wide = self.widened(self._present(value, dtype, 0.0), dtype)
        if total.how == "square":
            wide = self.binary("fmul", "F64", wide, wide)
        self.do(f"%new{number} = fadd {vector('double')} %sum{number}, {wide}")

    def _present(self, value: str, dtype: str, absent: float) -> str:
        """A value, and something else for the elements after the last."""
        return self.choose(self._here, dtype, value, self.number(absent, dtype))

    def _watch(self, number: int) -> None:
        """x − x of every input is 0, or NaN where x is not finite."""
        total = splat("double", 0.0)
        for value, dtype in self._watched:
            wide = self.widened(self._present(value, dtype, 0.0), dtype)
            total = self.binary("fadd", "F64", total, self.binary("fsub", "F64", wide, wide))
        self.do(f"%new{number} = fadd {vector('double')} %sum{number}, {total}")

    def _hidden(self, value: str, dtype: str) -> str:
        """A value, NaN where an input is not finite that it may not show."""
        for watched, source in self._watched:
            nothing = self.cast(self.binary("fsub", source, watched, watched), source, dtype)
            value = self.binary("fadd", dtype, value, nothing)
        return value

    # --- results ------------------------------------------------------------------------------

    def _put(self, slot: int, type_: str, align: int, value: str) -> None:
        at = self.at(self._array("%out", slot), type_, "%i")
        self.do(f"store {vector(type_)} {value}, ptr {at}, align {align}")
