"""Instructions of LLVM IR on vectors of WIDTH elements, as text; and narrow floats, read and
written as whole numbers of their bits, which needs no library and no special instruction."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pemlang.tensorfiles.dtypes import DTYPES, FLOATS, FloatLayout

WIDTH = 16
"""Elements of a vector: one register of the widest processors, a few of the others."""

REAL = {"F32": "float", "F64": "double"}
"""What numbers are computed in."""


def stored_type(dtype: str) -> str:
    """The type that a dtype's numbers have in memory."""
    return REAL.get(dtype, f"i{8 * DTYPES[dtype].size}")


def vector(element: str) -> str:
    """The type of a vector."""
    return f"<{WIDTH} x {element}>"


def splat(element: str, number: float) -> str:
    """A vector of one number."""
    # Floats of either precision are written by the bits of their float64.
    text = int(number) if element.startswith("i") else f"0x{struct.pack('>d', number).hex()}"
    return f"<{', '.join([f'{element} {text}'] * WIDTH)}>"


class _Narrow:
    """A narrow float, as float32's integer arithmetic sees it.

    Attributes:
        lost: bits of float32's significand that it lacks.
        least: the exponent of its smallest normal number, as float32 stores it.
        last: the code of its largest number.
        infinite: whether the code after that is infinity and those beyond NaN; otherwise the code
            after it is NaN.
        sign: how far its sign is from float32's.
    """

    def __init__(self, layout: FloatLayout) -> None:
        self.lost = 24 - layout.bits
        self.least = 128 - layout.bias
        self.last, self.infinite = layout.last, layout.infinite
        self.sign = 32 - layout.exponent - layout.bits


class LlvmText:
    """A function that is being written, an instruction a line.

    Attributes:
        lines: what has been written.
        block: the block that is being written to.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.block = "entry"
        self._names = 0

    def add(self, text: str) -> str:
        """An instruction, and the name of its value."""
        self._names += 1
        self.lines.append(f"  %t{self._names} = {text}")
        return f"%t{self._names}"

    def do(self, text: str) -> None:
        """An instruction without a value, or with a name of its own."""
        self.lines.append(f"  {text}")

    # --- blocks -------------------------------------------------------------------------------

    def name(self) -> str:
        """A number that no other name has."""
        self._names += 1
        return str(self._names)

    def start_block(self, label: str) -> None:
        """Write to a new block from here on."""
        self.lines.append(f"{label}:")
        self.block = label

    @contextmanager
    def loop(self, end: str, first: str = "0", step: int | str = 1) -> Iterator[LlvmLoop]:
        """A loop over i64 numbers from a first to one before the end; its body is what is written
        inside."""
        loop = LlvmLoop(self, first, end, step)
        yield loop
        loop.close()

    @contextmanager
    def where(self, condition: str, rare: bool = False) -> Iterator[None]:
        """What is done only where a condition, an i1, holds; which it may do rarely."""
        number, weights = self.name(), ", !prof !0" if rare else ""
        self.do(f"br i1 {condition}, label %then{number}, label %after{number}{weights}")
        self.start_block(f"then{number}")
        yield
        self.do(f"br label %after{number}")
        self.start_block(f"after{number}")

    @contextmanager
    def repeat(self) -> Iterator[list[str]]:
        """What is done again and again, as long as an i64 that it puts into the list is not 0."""
        number, going = self.name(), list[str]()
        self.do(f"br label %again{number}")
        self.start_block(f"again{number}")
        yield going
        more = self.add(f"icmp ne i64 {going[0]}, 0")
        self.do(f"br i1 {more}, label %again{number}, label %enough{number}")
        self.start_block(f"enough{number}")

    # --- instructions -------------------------------------------------------------------------

    def at(self, pointer: str, type_: str, index: int | str) -> str:
        """The address of an element of an array."""
        return self.add(f"getelementptr {type_}, ptr {pointer}, i64 {index}")

    def read(self, type_: str, pointer: str, indices: Iterable[int | str]) -> list[str]:
        """Some elements of an array."""
        return [
            self.add(f"load {type_}, ptr {self.at(pointer, type_, index)}") for index in indices
        ]

    def spread(self, element: str, number: str) -> str:
        """A vector of one number that is known only at run time."""
        type_ = vector(element)
        first = self.add(f"insertelement {type_} poison, {element} {number}, i32 0")
        zeros = f"<{WIDTH} x i32> zeroinitializer"
        return self.add(f"shufflevector {type_} {first}, {type_} poison, {zeros}")

    def lanes(self, element: str, value: str, first: int, count: int) -> str:
        """Some lanes of a vector as a shorter one."""
        type_ = vector(element)
        which = ", ".join(f"i32 {lane}" for lane in range(first, first + count))
        return self.add(f"shufflevector {type_} {value}, {type_} poison, <{count} x i32> <{which}>")

    def binary(self, instruction: str, dtype: str, x: str, y: str) -> str:
        """`fadd`, `fmul`, … of two vectors of numbers."""
        return self.add(f"{instruction} {vector(REAL[dtype])} {x}, {y}")

    def compare(self, test: str, dtype: str, x: str, y: str) -> str:
        """Where an ordered comparison of numbers holds."""
        return self.add(f"fcmp {test} {vector(REAL[dtype])} {x}, {y}")

    def choose(self, where: str, dtype: str, x: str, y: str) -> str:
        """The numbers of x where a comparison holds, else those of y."""
        return self._select(where, REAL[dtype], x, y)

    def _select(self, where: str, element: str, x: str, y: str) -> str:
        type_ = vector(element)
        return self.add(f"select {vector('i1')} {where}, {type_} {x}, {type_} {y}")

    def number(self, number: float, dtype: str) -> str:
        """A vector of one number that is known now."""
        return splat(REAL[dtype], number)

    def call(self, name: str, dtype: str, *args: str) -> str:
        """An intrinsic of LLVM on vectors."""
        return self.add(called(name, dtype, *args))

    def widened(self, value: str, dtype: str) -> str:
        """A value in float64."""
        if dtype == "F64":
            return value
        return self.add(f"fpext {vector('float')} {value} to {vector('double')}")

    def cast(self, x: str, source: str, dtype: str) -> str:
        """A value in another precision; a comparison as 1 where it holds."""
        if source == "BOOL":
            return self._as(x, "i1", REAL[dtype], "uitofp")
        source = source if source == "F64" else "F32"
        if source == dtype:
            return x
        return self._as(x, REAL[source], REAL[dtype], "fpext" if dtype == "F64" else "fptrunc")

    def _integer(self, op: str, x: str, number: int) -> str:
        """A step on 32-bit whole numbers."""
        return self.add(f"{op} {vector('i32')} {x}, {splat('i32', number)}")

    def _as(self, x: str, from_: str, to: str, how: str = "bitcast") -> str:
        return self.add(f"{how} {vector(from_)} {x} to {vector(to)}")

    def bits(self, value: str, dtype: str) -> str:
        """The bits of float32 or float64 numbers as whole numbers."""
        return self._as(value, REAL[dtype], f"i{dtype[1:]}")

    def whole_numbers(self, op: str, dtype: str, x: str, number: int) -> str:
        """A step on whole numbers as wide as those of a work dtype, with one that is known."""
        word = f"i{dtype[1:]}"
        return self.add(f"{op} {vector(word)} {x}, {splat(word, number)}")

    # --- narrow floats ------------------------------------------------------------------------

    def read_narrow(self, bits: str, dtype: str) -> str:
        """float32 of the bits of a narrow float."""
        wide = self._as(bits, stored_type(dtype), "i32", "zext")
        if dtype == "BF16":
            return self._as(self._integer("shl", wide, 16), "i32", "float")
        return self._from_code(wide, _Narrow(FLOATS[dtype]))

    def _from_code(self, code: str, narrow: _Narrow) -> str:
        """float32 of a code: its exponent moved by a product, which numbers under the smallest
        normal one need."""
        top = 1 << (31 - narrow.sign)
        sign = self._integer("shl", self._integer("and", code, top), narrow.sign)
        size = self._integer("and", code, top - 1)
        moved = self._as(self._integer("shl", size, narrow.lost), "i32", "float")
        power = splat("float", 2.0 ** (narrow.least - 1))
        number = self.add(f"fmul {vector('float')} {moved}, {power}")
        bits = self._as(number, "float", "i32")
        beyond = self._integer("icmp ugt", size, narrow.last)
        all_ones = self._integer("or", self._integer("shl", size, narrow.lost), 0x7F800000)
        if not narrow.infinite:
            all_ones = self._integer("or", all_ones, 0x7FC00000)
        bits = self._select(beyond, "i32", all_ones, bits)
        return self._as(self.add(f"or {vector('i32')} {bits}, {sign}"), "i32", "float")

    def written_narrow(self, value: str, work: str, dtype: str) -> str:
        """The bits of a narrow float, from a number of a work dtype that is rounded once."""
        bits = self._as(self._to_odd(value) if work == "F64" else value, "float", "i32")
        if dtype == "BF16":
            # Half a last place is added, and a bit where that is odd.
            odd = self._integer("and", self._integer("lshr", bits, 16), 1)
            up = self.add(f"add {vector('i32')} {odd}, {bits}")
            code = self._integer("lshr", self._integer("add", up, 0x7FFF), 16)
        else:
            code = self._to_code(bits, _Narrow(FLOATS[dtype]))
        return self._as(code, "i32", stored_type(dtype), "trunc")

    def _to_code(self, bits: str, narrow: _Narrow) -> str:
        """The code of float32's bits rounded to a narrow float; what is too large has the code
        after its last.

        Under its smallest normal number all steps are the same, and adding a number whose own
        last place is one of them rounds.
        """
        lost, least, i32 = narrow.lost, narrow.least, vector("i32")
        size = self._integer("and", bits, 0x7FFFFFFF)
        steps = splat("float", 2.0 ** (least + lost - 127))
        near = self.add(f"fadd {vector('float')} {self._as(size, 'i32', 'float')}, {steps}")
        low = self._integer("sub", self._as(near, "float", "i32"), (least + lost) << 23)
        odd = self._integer("and", self._integer("lshr", size, lost), 1)
        up = self._integer("add", self.add(f"add {i32} {size}, {odd}"), (1 << (lost - 1)) - 1)
        high = self._integer("lshr", self._integer("sub", up, (least - 1) << 23), lost)
        code = self._select(self._integer("icmp ult", size, least << 23), "i32", low, high)
        beyond = splat("i32", narrow.last + 1)
        code = self._select(self._integer("icmp ugt", code, narrow.last), "i32", beyond, code)
        sign = self._integer("lshr", bits, narrow.sign)
        sign = self._integer("and", sign, 1 << (31 - narrow.sign))
        return self.add(f"or {i32} {code}, {sign}")

    def _to_odd(self, x: str) -> str:
        """float32 of float64, of the two next to it the odd one: rounding that once more is
        right."""
        f64 = vector("double")
        near = self._as(x, "double", "float", "fptrunc")
        back, bits = self._as(near, "float", "double", "fpext"), self._as(near, "float", "i32")
        sizes = [self.call("fabs", "F64", number) for number in (back, x)]
        beyond = self.add(f"fcmp ogt {f64} {sizes[0]}, {sizes[1]}")
        bits = self._select(beyond, "i32", self._integer("sub", bits, 1), bits)
        differs = self.add(f"fcmp one {f64} {back}, {x}")
        bits = self._select(differs, "i32", self._integer("or", bits, 1), bits)
        return self._as(bits, "i32", "float")


class LlvmLoop:
    """A loop that is being written.

    Attributes:
        index: the number that it is at.
    """

    def __init__(self, text: LlvmText, first: str, end: str, step: int | str) -> None:
        self._text, self._number, self._step = text, text.name(), step
        self._before = text.block
        self.index = f"%i{self._number}"
        self._carried: list[tuple[str, str, str]] = []
        self._next: dict[str, str] = {}
        text.do(f"br label %head{self._number}")
        text.start_block(f"head{self._number}")
        self._first, self._phis = first, len(text.lines)
        more = text.add(f"icmp slt i64 {self.index}, {end}")
        text.do(f"br i1 {more}, label %body{self._number}, label %done{self._number}")
        text.start_block(f"body{self._number}")

    def carry(self, type_: str, start: str) -> str:
        """A value that goes from turn to turn; after the loop it is what the last one left."""
        name = f"%carried{self._text.name()}"
        self._carried.append((name, type_, start))
        return name

    def next(self, name: str, value: str) -> None:
        """What a carried value is in the next turn."""
        self._next[name] = value

    def close(self) -> None:
        """Go on to the next turn, and write on after the loop."""
        text, number = self._text, self._number
        following = text.add(f"add i64 {self.index}, {self._step}")
        text.do(f"br label %head{number}")
        carried = [(self.index, "i64", self._first), *self._carried]
        after = {self.index: following, **self._next}
        text.lines[self._phis : self._phis] = [
            f"  {name} = phi {type_} [{start}, %{self._before}], [{after[name]}, %{text.block}]"
            for name, type_, start in carried
        ]
        text.start_block(f"done{number}")


def function(head: str, text: LlvmText, result: str = "void") -> list[str]:
    """A whole function.

    Args:
        head: what comes before its body, after `define`.
        text: the body, which begins in the block `entry`.
        result: what it gives back, with its type.
    """
    return [f"define {head} {{", "entry:", *text.lines, f"  ret {result}", "}"]


def called(name: str, dtype: str, *args: str) -> str:
    """A call of an intrinsic of LLVM on vectors."""
    type_ = vector(REAL[dtype])
    given = ", ".join(f"{type_} {arg}" for arg in args)
    return f"call {type_} @llvm.{name}.v{WIDTH}f{dtype[1:]}({given})"
