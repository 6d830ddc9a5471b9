"""Elementwise programs as LLVM IR: text made from the program alone.

A loop is over vectors of WIDTH elements, written out as such: nothing is left to an optimiser's
judgement, and no step is fused with another or reordered, so the same numbers come out on every
processor, whatever its vectors are. Narrow dtypes are read and written as whole numbers of their
bits, which needs no library and no special instruction.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pemlang.kernels.program import Instr, Program, slot

WIDTH = 16
"""Elements of a vector: one register of the widest processors, a few of the others."""

_REAL = {"F32": "float", "F64": "double"}
_STORED = {"F64": "double", "F32": "float", "F16": "i16", "BF16": "i16",
           "F8_E5M2": "i8", "F8_E4M3": "i8"}  # fmt: skip


@dataclass(frozen=True)
class _Small:
    """A narrow float with a sign, as float32's integer arithmetic sees it.

    Attributes:
        lost: bits of float32's significand that it lacks.
        least: the exponent of its smallest normal number, as float32 stores it.
        last: the code of its largest number.
        infinite: whether the code after that is infinity and those beyond NaN; otherwise the code
            after it is NaN.
    """

    lost: int
    least: int
    last: int
    infinite: bool

    @property
    def sign(self) -> int:
        """How far its sign is from float32's."""
        return 24 if self.lost > 16 else 16


_SMALL = {
    "F16": _Small(13, 113, 0x7BFF, True),
    "F8_E5M2": _Small(21, 113, 123, True),
    "F8_E4M3": _Small(20, 121, 126, False),
}


def passes(program: Program) -> int:
    """How often the inputs are read: once more for each statistic that rests on another."""
    return max(_levels(program)) + 1


def statistics(program: Program, turn: int) -> list[int]:
    """The `reduce` steps whose values a pass gives; none in the last one."""
    levels = _levels(program)
    return [
        index
        for index, instr in enumerate(program.instrs)
        if instr.op == "reduce" and levels[index] == turn + 1
    ]


def steps_of(program: Program, turn: int) -> list[int]:
    """The steps a pass needs, back to the statistics that are known by then."""
    instrs = program.instrs
    goals = statistics(program, turn)
    if turn == passes(program) - 1:
        goals = [index for index, instr in enumerate(instrs) if instr.op == "store"]
    found, pending = set(goals), list(goals)
    while pending:
        index = pending.pop()
        if instrs[index].op == "reduce" and index not in goals:
            continue
        for arg in instrs[index].args:
            if arg not in found:
                found.add(arg)
                pending.append(arg)
    return sorted(found)


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
    text = _Loop(program, turn, exact).text
    return "\n".join([text, *_declared(text)])


def _declared(text: str) -> Iterator[str]:
    """The intrinsics in use."""
    for dtype, real in _REAL.items():
        vector, tail = f"<{WIDTH} x {real}>", f"v{WIDTH}f{dtype[1:]}"
        forms = {
            f"@llvm.fabs.{tail}": f"{vector} {{}}({vector})",
            f"@llvm.maximum.{tail}": f"{vector} {{}}({vector}, {vector})",
            f"@llvm.vector.reduce.fmaximum.{tail}": f"{real} {{}}({vector})",
            f"@llvm.vector.reduce.fadd.{tail}": f"{real} {{}}({real}, {vector})",
        }
        for name, form in forms.items():
            if f"{name}(" in text:
                yield f"declare {form.format(name)}"


def _levels(program: Program) -> list[int]:
    """The first pass in which each step can be done."""
    levels: list[int] = []
    for instr in program.instrs:
        after = max((levels[arg] for arg in instr.args), default=0)
        levels.append(after + (instr.op == "reduce"))
    return levels


class _Loop:
    """The text of one pass."""

    def __init__(self, program: Program, turn: int, exact: bool) -> None:
        self._program, self._exact = program, exact
        self._instrs = program.instrs
        self._order = steps_of(program, turn)
        self._wanted = statistics(program, turn)
        self._watches = not program.linear
        self._lines: list[str] = []
        self._names = 0
        pointers = ", ".join(f"ptr %{what}" for what in ("in", "out", "c", "s", "found"))
        self._lines += [f"define void @loop(i64 %from, i64 %end, {pointers}) {{", "entry:"]
        self._entry()
        self._loop()
        self._lines += ["  ret void", "}"]

    @property
    def text(self) -> str:
        return "\n".join(self._lines)

    def _add(self, text: str) -> str:
        """A step, and the name of its value."""
        self._names += 1
        self._lines.append(f"  %t{self._names} = {text}")
        return f"%t{self._names}"

    def _do(self, text: str) -> None:
        self._lines.append(f"  {text}")

    # --- before the loops ---------------------------------------------------------------------

    def _entry(self) -> None:
        """Pointers, and numbers that are the same for all elements, as vectors."""
        self._pointer: dict[str, str] = {}
        self._splat: dict[tuple[str, str], str] = {}
        for index in self._order:
            instr = self._instrs[index]
            if instr.op in ("load", "store"):
                name = instr.attrs[0]
                at = self._at(f"%{'in' if instr.op == 'load' else 'out'}", "ptr", slot(name))
                self._pointer[name] = self._add(f"load ptr, ptr {at}")
            for attr in instr.attrs:
                if str(attr)[0] == "c":
                    self._number(attr, "%c", slot(attr), self._work(instr))
            if instr.op == "reduce" and index not in self._wanted:
                self._number(f"s{index}", "%s", index, instr.dtype)

    def _at(self, pointer: str, type_: str, index: int | str) -> str:
        return self._add(f"getelementptr {type_}, ptr {pointer}, i64 {index}")

    def _number(self, name: str, array: str, index: int, dtype: str) -> None:
        if (name, dtype) in self._splat:
            return
        number = self._add(f"load double, ptr {self._at(array, 'double', index)}")
        if dtype == "F32":
            number = self._add(f"fptrunc double {number} to float")
        self._splat[name, dtype] = self._spread(_REAL[dtype], number)

    def _spread(self, element: str, number: str) -> str:
        """A vector of one number that is known only at run time."""
        vector = _type(element)
        one = self._add(f"insertelement {vector} poison, {element} {number}, i32 0")
        zeros = f"<{WIDTH} x i32> zeroinitializer"
        return self._add(f"shufflevector {vector} {one}, {vector} poison, {zeros}")

    def _work(self, instr: Instr) -> str:
        """The precision of a step's constant."""
        dtype = self._instrs[instr.args[0]].dtype if instr.op == "store" else instr.dtype
        return dtype if dtype == "F64" else "F32"

    # --- the loop -----------------------------------------------------------------------------

    def _loop(self) -> None:
        self._sums = self._summed()
        self._lines += ["  br label %head", "head:"]
        self._do("%i = phi i64 [%from, %entry], [%next, %body]")
        names = [f"%sum{number}" for number in range(len(self._sums))]
        for name, (kind, dtype) in zip(names, self._sums, strict=True):
            start = _splat(_REAL[dtype], 0.0 if kind == "sum" else -math.inf)
            new = name.replace("sum", "new")
            self._do(f"{name} = phi {_type(_REAL[dtype])} [{start}, %entry], [{new}, %body]")
        self._do(f"br i1 {self._add('icmp slt i64 %i, %end')}, label %body, label %done")
        self._lines.append("body:")
        self._body(names)
        self._do(f"%next = add i64 %i, {WIDTH}")
        self._lines += ["  br label %head", "done:"]
        for number, (name, (kind, dtype)) in enumerate(zip(names, self._sums, strict=True)):
            real, vector = _REAL[dtype], _type(_REAL[dtype])
            how = (
                f"fadd.v{WIDTH}f64({real} 0.0, "
                if kind == "sum"
                else (f"fmaximum.v{WIDTH}f{dtype[1:]}(")
            )
            total = self._add(f"call {real} @llvm.vector.reduce.{how}{vector} {name})")
            if dtype == "F32":
                total = self._add(f"fpext float {total} to double")
            self._do(f"store double {total}, ptr {self._at('%found', 'double', number)}")

    def _summed(self) -> list[tuple[str, str]]:
        """What is found: how it is put together, and in which precision."""
        if self._exact:
            return []
        if self._wanted:
            found = []
            for index in self._wanted:
                instr = self._instrs[index]
                is_sum = instr.attrs[0] == "sum"
                found.append(("sum", "F64") if is_sum else ("max", instr.dtype))
        else:
            found = [("sum", "F64") for index in self._order if self._instrs[index].op == "store"]
        return [*found, ("sum", "F64")]

    def _body(self, sums: Sequence[str]) -> None:
        self._value: dict[int, str] = {}
        self._watched: list[tuple[str, str]] = []
        found: dict[int, tuple[str, str]] = {}
        for index in self._order:
            instr = self._instrs[index]
            if instr.op == "store":
                found[slot(instr.attrs[0])] = (self._value[instr.args[0]], self._work(instr))
                if not self._exact:
                    self._store(instr)
            elif instr.op == "reduce" and index in self._wanted:
                x = instr.args[0]
                found[self._wanted.index(index)] = (self._value[x], self._instrs[x].dtype)
            elif instr.op == "reduce":
                self._value[index] = self._splat[f"s{index}", instr.dtype]
            else:
                self._value[index] = self._step(instr)
        if self._exact:
            for number, (value, dtype) in found.items():
                self._put(f"out{number}", _REAL[dtype], self._hidden(value, dtype))
            return
        left = self._add(f"trunc i64 {self._add('sub i64 %end, %i')} to i32")
        lanes = ", ".join(f"i32 {lane}" for lane in range(WIDTH))
        self._here = self._add(f"icmp sgt {_type('i32')} {self._spread('i32', left)}, <{lanes}>")
        for number, sum_ in enumerate(sums[:-1]):
            value, dtype = found[number]
            kind = "square" if not self._wanted else self._sums[number][0]
            self._sum(kind, sum_, value, dtype)
        self._watch(sums[-1])

    def _sum(self, kind: str, sum_: str, value: str, dtype: str) -> None:
        """One more vector of numbers or of their squares."""
        new = sum_.replace("sum", "new")
        if kind == "max":
            value = self._present(value, dtype, -math.inf)
            self._do(f"{new} = {_called('maximum', dtype, sum_, value)}")
            return
        wide = self._widened(self._present(value, dtype, 0.0), dtype)
        if kind == "square":
            wide = self._add(f"fmul {_type('double')} {wide}, {wide}")
        self._do(f"{new} = fadd {_type('double')} {sum_}, {wide}")

    def _present(self, value: str, dtype: str, absent: float) -> str:
        """A value, and something else for the elements after the last."""
        real = _REAL[dtype]
        return self._choose(self._here, real, value, _splat(real, absent))

    def _watch(self, sum_: str) -> None:
        """x − x of every input is 0, or NaN where x is not finite."""
        total = _splat("double", 0.0)
        for value, dtype in self._watched:
            wide = self._widened(self._present(value, dtype, 0.0), dtype)
            nothing = self._add(f"fsub {_type('double')} {wide}, {wide}")
            total = self._add(f"fadd {_type('double')} {total}, {nothing}")
        self._do(f"{sum_.replace('sum', 'new')} = fadd {_type('double')} {sum_}, {total}")

    def _hidden(self, value: str, dtype: str) -> str:
        """A value, NaN where an input is not finite that it may not show."""
        for watched, of in self._watched:
            nothing = self._add(f"fsub {_type(_REAL[of])} {watched}, {watched}")
            if of != dtype:
                step = "fpext" if dtype == "F64" else "fptrunc"
                from_, to = _type(_REAL[of]), _type(_REAL[dtype])
                nothing = self._add(f"{step} {from_} {nothing} to {to}")
            value = self._add(f"fadd {_type(_REAL[dtype])} {value}, {nothing}")
        return value

    # --- steps --------------------------------------------------------------------------------

    def _call(self, name: str, dtype: str, *args: str) -> str:
        return self._add(_called(name, dtype, *args))

    def _widened(self, value: str, dtype: str) -> str:
        if dtype == "F64":
            return value
        return self._add(f"fpext {_type('float')} {value} to {_type('double')}")

    def _whole(self, op: str, x: str, number: int) -> str:
        """A step on 32-bit whole numbers."""
        return self._add(f"{op} {_type('i32')} {x}, {_splat('i32', number)}")

    def _as(self, x: str, from_: str, to: str, how: str = "bitcast") -> str:
        return self._add(f"{how} {_type(from_)} {x} to {_type(to)}")

    def _step(self, instr: Instr) -> str:
        args = [self._value[arg] for arg in instr.args]
        dtype = instr.dtype
        match instr.op:
            case "load":
                return self._load(instr)
            case "cast":
                return self._cast(args[0], self._instrs[instr.args[0]].dtype, dtype)
            case "const":
                return self._splat[instr.attrs[0], dtype]
            case "abs":
                return self._call("fabs", dtype, *args)
            case "sign":
                return self._sign(args[0], dtype)
            case "less" | "equal":
                of = _type(_REAL[self._instrs[instr.args[0]].dtype])
                test = "olt" if instr.op == "less" else "oeq"
                return self._add(f"fcmp {test} {of} {args[0]}, {args[1]}")
        vector = _type(_REAL[dtype])
        if instr.op == "select":
            where, x, y = args
            return self._choose(where, _REAL[dtype], x, y)
        if instr.op in ("scale", "fma"):
            constant = self._splat[instr.attrs[0], dtype]
            product = self._add(f"fmul {vector} {args[0]}, {constant}")
            if instr.op == "scale":
                return product
            return self._add(f"fadd {vector} {args[1]}, {product}")
        return self._add(f"f{instr.op} {vector} {args[0]}, {args[1]}")

    def _sign(self, x: str, dtype: str) -> str:
        """-1, 0 or 1; NaN stays."""
        vector, real = _type(_REAL[dtype]), _REAL[dtype]
        value = x
        for test, number in (("oeq", 0.0), ("olt", -1.0), ("ogt", 1.0)):
            where = self._add(f"fcmp {test} {vector} {x}, zeroinitializer")
            one = _splat(real, number)
            value = self._choose(where, real, one, value)
        return value

    def _load(self, instr: Instr) -> str:
        """Numbers of a file's dtype; those of narrow ones as float32."""
        stored = _STORED[instr.dtype]
        at = self._at(self._pointer[instr.attrs[0]], stored, "%i")
        align = _SIZE[stored]
        value = self._add(f"load {_type(stored)}, ptr {at}, align {align}")
        dtype = instr.dtype
        if dtype == "BF16":
            wide = self._as(value, stored, "i32", "zext")
            value, dtype = self._as(self._whole("shl", wide, 16), "i32", "float"), "F32"
        elif dtype in _SMALL:
            value = self._from_small(self._as(value, stored, "i32", "zext"), _SMALL[dtype])
            dtype = "F32"
        if self._watches:
            self._watched.append((value, dtype))
        return value

    def _from_small(self, code: str, small: _Small) -> str:
        """float32 of a code: its exponent moved by a product, which numbers under the smallest
        normal one need."""
        sign = self._whole("shl", self._whole("and", code, 1 << (31 - small.sign)), small.sign)
        size = self._whole("and", code, (1 << (31 - small.sign)) - 1)
        moved = self._as(self._whole("shl", size, small.lost), "i32", "float")
        power = _splat("float", 2.0 ** (small.least - 1))
        number = self._add(f"fmul {_type('float')} {moved}, {power}")
        bits = self._as(number, "float", "i32")
        beyond = self._whole("icmp ugt", size, small.last)
        all_ones = self._whole("or", self._whole("shl", size, small.lost), 0x7F800000)
        if not small.infinite:
            all_ones = self._whole("or", all_ones, 0x7FC00000)
        bits = self._choose(beyond, "i32", all_ones, bits)
        return self._as(self._add(f"or {_type('i32')} {bits}, {sign}"), "i32", "float")

    def _cast(self, x: str, from_: str, to: str) -> str:
        if from_ == "BOOL":
            return self._as(x, "i1", _REAL[to], "uitofp")
        from_ = from_ if from_ == "F64" else "F32"
        if from_ == to:
            return x
        how = "fpext" if to == "F64" else "fptrunc"
        return self._as(x, _REAL[from_], _REAL[to], how)

    # --- results ------------------------------------------------------------------------------

    def _put(self, name: str, stored: str, value: str) -> None:
        at = self._at(self._pointer[name], stored, "%i")
        self._do(f"store {_type(stored)} {value}, ptr {at}, align {_SIZE[stored]}")

    def _store(self, instr: Instr) -> None:
        """Round once, and write."""
        value, work = self._value[instr.args[0]], self._work(instr)
        if len(instr.attrs) > 1:
            around = self._splat[instr.attrs[1], work]
            value = self._add(f"fadd {_type(_REAL[work])} {value}, {around}")
        stored = _STORED[instr.dtype]
        if instr.dtype in _REAL:
            self._put(instr.attrs[0], stored, self._cast(value, work, instr.dtype))
            return
        bits = self._as(self._to_odd(value) if work == "F64" else value, "float", "i32")
        if instr.dtype == "BF16":
            # Half a last place is added, and a bit where that is odd.
            odd = self._whole("and", self._whole("lshr", bits, 16), 1)
            up = self._add(f"add {_type('i32')} {odd}, {bits}")
            code = self._whole("lshr", self._whole("add", up, 0x7FFF), 16)
        else:
            code = self._to_small(bits, _SMALL[instr.dtype])
        self._put(instr.attrs[0], stored, self._as(code, "i32", stored, "trunc"))

    def _to_small(self, bits: str, small: _Small) -> str:
        """The code of float32's bits rounded to a narrow float; what is too large has the code
        after its last.

        Under its smallest normal number all steps are the same, and adding a number whose own
        last place is one of them rounds.
        """
        lost, least, i32 = small.lost, small.least, _type("i32")
        size = self._whole("and", bits, 0x7FFFFFFF)
        steps = _splat("float", 2.0 ** (least + lost - 127))
        near = self._add(f"fadd {_type('float')} {self._as(size, 'i32', 'float')}, {steps}")
        low = self._whole("sub", self._as(near, "float", "i32"), (least + lost) << 23)
        odd = self._whole("and", self._whole("lshr", size, lost), 1)
        up = self._whole("add", self._add(f"add {i32} {size}, {odd}"), (1 << (lost - 1)) - 1)
        high = self._whole("lshr", self._whole("sub", up, (least - 1) << 23), lost)
        code = self._choose(self._whole("icmp ult", size, least << 23), "i32", low, high)
        last = _splat("i32", small.last + 1)
        code = self._choose(self._whole("icmp ugt", code, small.last), "i32", last, code)
        sign = self._whole("and", self._whole("lshr", bits, small.sign), 1 << (31 - small.sign))
        return self._add(f"or {i32} {code}, {sign}")

    def _choose(self, where: str, element: str, x: str, y: str) -> str:
        vector = _type(element)
        return self._add(f"select {_type('i1')} {where}, {vector} {x}, {vector} {y}")

    def _to_odd(self, x: str) -> str:
        """float32 of float64, of the two next to it the odd one: rounding that once more is
        right."""
        f64 = _type("double")
        near = self._as(x, "double", "float", "fptrunc")
        found, bits = self._as(near, "float", "double", "fpext"), self._as(near, "float", "i32")
        sizes = [self._call("fabs", "F64", one) for one in (found, x)]
        beyond = self._add(f"fcmp ogt {f64} {sizes[0]}, {sizes[1]}")
        bits = self._choose(beyond, "i32", self._whole("sub", bits, 1), bits)
        differs = self._add(f"fcmp one {f64} {found}, {x}")
        bits = self._choose(differs, "i32", self._whole("or", bits, 1), bits)
        return self._as(bits, "i32", "float")


_SIZE = {"i8": 1, "i16": 2, "float": 4, "double": 8}


def _type(element: str) -> str:
    return f"<{WIDTH} x {element}>"


def _called(name: str, dtype: str, *args: str) -> str:
    vector = _type(_REAL[dtype])
    given = ", ".join(f"{vector} {arg}" for arg in args)
    return f"call {vector} @llvm.{name}.v{WIDTH}f{dtype[1:]}({given})"


def _splat(element: str, number: float) -> str:
    """A vector of one number."""
    # Floats of either precision are written by the bits of their float64.
    text = int(number) if element == "i32" else f"0x{struct.pack('>d', number).hex()}"
    return f"<{', '.join([f'{element} {text}'] * WIDTH)}>"
