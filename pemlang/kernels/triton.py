"""Elementwise programs as Triton kernels: their source text, made from the program alone.

A kernel gives the bits that the CPU kernels give. Every step is rounded as theirs is, given that
whoever launches it leaves multiplications and additions apart (`enable_fp_fusion=False`). Files'
narrow dtypes are read and written as whole numbers of their bits: no GPU has all of them, and
Triton rounds float64 to them twice.

Programs that need whole tensors, for a number over all elements, a draw or a place in a row, and
programs over matrices stay on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

from pemlang.kernels.program import Program
from pemlang.kernels.steps.elements import Load
from pemlang.kernels.steps.results import Store
from pemlang.tensorfiles.dtypes import DTYPES, FLOATS

VERSION = 3
"""Of the text that a program gives; part of the name it is kept under."""

MOST_TENSORS = 400
"""That a kernel takes: CUDA has room for 4 KiB of arguments."""

_HELPERS = {
    "from_bf16": '''\
@triton.jit
def from_bf16(bits):
    """float32 of bf16: its upper half."""
    return (bits.to(tl.int32) << 16).to(tl.float32, bitcast=True)
''',
    "from_f8": '''\
@triton.jit
def from_f8(bits, SHIFT: tl.constexpr, POWER: tl.constexpr, LAST: tl.constexpr):
    """float32 of an 8-bit float, by way of float16, whose exponent is at least as wide: POWER
    makes up for what that is more. Codes after LAST are NaN, where those of float16 are not.
    """
    wide = bits.to(tl.int16)
    half = ((wide & 0x80) << 8) | ((wide & 0x7F) << SHIFT)
    number = half.to(tl.float16, bitcast=True).to(tl.float32) * POWER
    return tl.where((wide & 0x7F) > LAST, float("nan"), number)
''',
    "to_odd": '''\
@triton.jit
def to_odd(x):
    """float32 of float64, of the two next to it the odd one: rounding that once more is right."""
    near = x.to(tl.float32)
    found = near.to(tl.float64)
    bits = near.to(tl.uint32, bitcast=True)
    bits = tl.where(tl.abs(found) > tl.abs(x), bits - 1, bits)
    bits = tl.where(found != x, bits | 1, bits)
    return bits.to(tl.float32, bitcast=True)
''',
    "to_bf16": '''\
@triton.jit
def to_bf16(x):
    """Bits of float32 rounded to bf16: half a last place is added, and a bit where that is odd."""
    bits = x.to(tl.uint32, bitcast=True)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int16)
''',
    "to_f8": '''\
@triton.jit
def to_f8(x, LOST: tl.constexpr, LEAST: tl.constexpr, STEPS: tl.constexpr, LAST: tl.constexpr):
    """Bits of float32 rounded to an 8-bit float; what is too large has the code after LAST.

    LOST bits of the significand go. LEAST is the exponent of the smallest normal number, as
    float32 stores it. Below that number all steps are the same, and adding STEPS, whose own last
    place is one of them, rounds.
    """
    bits = x.to(tl.uint32, bitcast=True)
    size = bits & 0x7FFFFFFF
    small = (size.to(tl.float32, bitcast=True) + STEPS).to(tl.uint32, bitcast=True)
    small = small - ((LEAST + LOST) << 23)
    large = size + ((1 << (LOST - 1)) - 1) + ((size >> LOST) & 1)
    large = (large - ((LEAST - 1) << 23)) >> LOST
    code = tl.where(size < (LEAST << 23), small, large)
    code = tl.where(code > LAST, LAST + 1, code)
    return (code | ((bits >> 24) & 0x80)).to(tl.uint8)
''',
    "sign": '''\
@triton.jit
def sign(x):
    """-1, 0 or 1; NaN stays."""
    size = tl.where(x == 0, 0.0, 1.0).to(x.dtype)
    return tl.where(x != x, x, tl.where(x < 0, -size, size))
''',
}

_HEAD = '''\
"""A kernel of pemlang:

{listing}
"""

import triton
import triton.language as tl
'''

_KERNEL = """\
@triton.jit(do_not_specialize=["count"])
def kernel(
    {names}
    c_f32, c_f64, count, BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = at < count
    {body}
"""


def runs_on_gpu(program: Program) -> bool:
    """Whether a program has a Triton kernel."""
    tensors = len(program.loads) + 2 * len(program.stores)
    return program.elementwise and not program.whole and tensors <= MOST_TENSORS


def triton_source(program: Program) -> str:
    """A Python module with the kernel of a program that `runs_on_gpu`.

    Its function `kernel` takes, one after the other,

    - a tensor for each input slot: float64, float32 or float16, int16 for bf16, uint8 for f8;
    - the same for each output slot, to write the rounded numbers to;
    - for each output slot a tensor to write the exact numbers to, before the constant that they
      are stored around is added: float64 or float32, as the program computes it. Where an input
      is not finite that a comparison, say, may hide, NaN is written;
    - the constants in float32, and in float64. They are no arguments of the launch, which would
      be rounded to float32;
    - how many elements there are, and BLOCK, the elements of one instance: a power of two.
    """
    assert runs_on_gpu(program)
    kernel = TritonKernel(program)
    text = _KERNEL.format(names="\n    ".join(_names(program)), body="\n    ".join(kernel.lines))
    used = [helper for name, helper in _HELPERS.items() if f"{name}(" in text]
    return "\n\n".join([_HEAD.format(listing=program), *used, text])


def _names(program: Program) -> Iterator[str]:
    """The tensors a kernel takes, a line for each kind."""
    inputs, outputs = len(program.loads), len(program.stores)
    for kind, count in (("in", inputs), ("out", outputs), ("exact", outputs)):
        if count:
            yield " ".join(f"{kind}{index}," for index in range(count))


class TritonKernel:
    """The statements of a kernel.

    Attributes:
        lines: constants first, then one for each step but stores, which take several.
    """

    def __init__(self, program: Program) -> None:
        self._constants: dict[str, str] = {}
        self._watched = False
        body: list[str] = []
        for number, step in enumerate(program.steps):
            args = [f"v{arg}" for arg in step.args]
            if isinstance(step, Store):
                body += self._store(step, args[0])
                continue
            body.append(f"v{number} = {step.triton(self, args)}")
            if isinstance(step, Load) and not program.linear:  # a comparison, say, would hide it
                test = f'tl.abs(v{number}) < float("inf")'
                body.append(f"finite = finite & ({test})" if self._watched else f"finite = {test}")
                self._watched = True
        self.lines = [*(self._constants[name] for name in sorted(self._constants)), *body]

    def load(self, slot: int, dtype: str) -> str:
        """Numbers of an input slot; those of narrow dtypes as float32."""
        read = f"tl.load(in{slot} + at, mask=here)"
        if dtype == "BF16":
            return f"from_bf16({read})"
        if DTYPES[dtype].size == 1:
            layout = FLOATS[dtype]
            assert layout.exponent == 5 or not layout.infinite
            last = 0x7F if layout.infinite else layout.last
            return f"from_f8({read}, {11 - layout.bits}, {2.0 ** (15 - layout.bias)}, {last})"
        return f"{read}.to(tl.float32)" if dtype == "F16" else read

    def constant(self, slot: int, dtype: str) -> str:
        """A constant, rounded to a precision."""
        work = "f64" if dtype == "F64" else "f32"
        name = f"c{slot}_{work}"
        self._constants[name] = f"{name} = tl.load(c_{work} + {slot})"
        return name

    def narrowed(self, value: str, work: str, dtype: str) -> str:
        """A number of a work dtype as the bits of a file's, rounded once."""
        layout = FLOATS[dtype]
        if layout.bits >= 24:
            return f"{value}.to(tl.float{dtype[1:]})"
        narrow = f"to_odd({value})" if work == "F64" else value
        if dtype == "BF16":
            return f"to_bf16({narrow})"
        if dtype == "F16":
            return f"{narrow}.to(tl.float16)"
        lost, least = 24 - layout.bits, 128 - layout.bias
        return f"to_f8({narrow}, {lost}, {least}, {2.0 ** (least + lost - 127)}, {layout.last})"

    def _store(self, step: Store, value: str) -> Iterator[str]:
        """Write the exact numbers, and round them once."""
        exact = f'tl.where(finite, {value}, float("nan"))' if self._watched else value
        yield f"tl.store(exact{step.output} + at, {exact}, mask=here)"
        whole = step.triton(self, [value])
        yield f"tl.store(out{step.output} + at, {whole}, mask=here)"
