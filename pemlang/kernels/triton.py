"""Elementwise programs as Triton kernels: their source text, made from the program alone.

A kernel gives the bits that the CPU kernels give. Every step is rounded as theirs is, given that
whoever launches it leaves multiplications and additions apart (`enable_fp_fusion=False`). Files'
narrow dtypes are read and written as whole numbers of their bits: no GPU has all of them, and
Triton rounds float64 to them twice.

Programs with a `reduce` need every element before they can write the first, and programs over
matrices have kernels of their own: both stay on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

from pemlang.kernels.program import Instr, Program, loaded, slot, stored

VERSION = 1
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
    "from_e5m2": '''\
@triton.jit
def from_e5m2(bits):
    """float32 of f8_e5m2: the upper half of a float16."""
    return (bits.to(tl.int16) << 8).to(tl.float16, bitcast=True).to(tl.float32)
''',
    "from_e4m3": '''\
@triton.jit
def from_e4m3(bits):
    """float32 of f8_e4m3: a float16 with an exponent that is 8 less, but for NaN."""
    wide = bits.to(tl.int16)
    half = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
    number = half.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    return tl.where((wide & 0x7F) == 0x7F, float("nan"), number)
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

_LOADED = {"BF16": "from_bf16({})", "F8_E5M2": "from_e5m2({})", "F8_E4M3": "from_e4m3({})",
           "F16": "{}.to(tl.float32)"}  # fmt: skip

_NARROW = {
    "BF16": "to_bf16({})",
    "F16": "{}.to(tl.float16)",
    "F8_E5M2": "to_f8({}, 21, 113, 128.0, 123)",
    "F8_E4M3": "to_f8({}, 20, 121, 16384.0, 126)",
}

_WORDS = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "scale": "{c} * {0}",
    "fma": "{1} + {c} * {0}", "abs": "tl.abs({0})", "sign": "sign({0})", "less": "{0} < {1}",
    "equal": "{0} == {1}", "select": "tl.where({0}, {1}, {2})",
}  # fmt: skip

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
    tensors = sum(1 + (i.op == "store") for i in program.instrs if i.op in ("load", "store"))
    return program.elementwise and not program.reduces and tensors <= MOST_TENSORS


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
    names, body = "\n    ".join(_names(program)), "\n    ".join(_body(program))
    text = _KERNEL.format(names=names, body=body)
    used = [helper for name, helper in _HELPERS.items() if f"{name}(" in text]
    return "\n\n".join([_HEAD.format(listing=program), *used, text])


def _names(program: Program) -> Iterator[str]:
    """The tensors a kernel takes, a line for each kind."""
    ins, outs = len(loaded(program)), len(stored(program))
    for kind, count in (("in", ins), ("out", outs), ("exact", outs)):
        if count:
            yield " ".join(f"{kind}{index}," for index in range(count))


def _work(dtype: str) -> str:
    """What a value of a dtype is held in."""
    return "F64" if dtype == "F64" else "F32"


def _body(program: Program) -> Iterator[str]:
    """The statements of a kernel, one for each step but stores, which take several."""
    yield from _constants(program)
    watched: list[str] = []
    for index, instr in enumerate(program.instrs):
        if instr.op == "store":
            yield from _store(program, instr, bool(watched))
            continue
        yield f"v{index} = {_value(program, instr)}"
        if instr.op == "load" and not program.linear:  # a comparison, say, would hide it
            test = f'tl.abs(v{index}) < float("inf")'
            yield f"finite = finite & ({test})" if watched else f"finite = {test}"
            watched.append(instr.attrs[0])


def _constants(program: Program) -> Iterator[str]:
    """Each constant in each precision it is used in."""
    used = {_constant(program, i) for i in program.instrs} - {""}
    for name in sorted(used):
        number, dtype = name.removeprefix("c").split("_")
        yield f"{name} = tl.load(c_{dtype} + {number})"


def _constant(program: Program, instr: Instr) -> str:
    """The name of the constant of a step, rounded to the precision the step is done in."""
    found = [attr for attr in instr.attrs if str(attr)[0] == "c"]
    dtype = program.instrs[instr.args[0]].dtype if instr.op == "store" else instr.dtype
    return f"{found[0]}_{_work(dtype).lower()}" if found else ""


def _value(program: Program, instr: Instr) -> str:
    args = [f"v{arg}" for arg in instr.args]
    match instr.op:
        case "load":
            read = f"tl.load({instr.attrs[0]} + at, mask=here)"
            return _LOADED.get(instr.dtype, "{}").format(read)
        case "cast":
            return f"{args[0]}.to(tl.float{instr.dtype[1:]})"
        case "const":
            return f"tl.broadcast_to({_constant(program, instr)}, (BLOCK,))"
        case "div" if instr.dtype == "F32":  # `/` may be off by two units in the last place
            return f"tl.math.div_rn({args[0]}, {args[1]})"
        case "div":
            return f"{args[0]} / {args[1]}"
    return _WORDS[instr.op].format(*args, c=_constant(program, instr))


def _store(program: Program, instr: Instr, watched: bool) -> Iterator[str]:
    """Write the exact numbers, and round them once."""
    name, around = f"v{instr.args[0]}", _constant(program, instr)
    number = slot(instr.attrs[0])
    exact = f'tl.where(finite, {name}, float("nan"))' if watched else name
    yield f"tl.store(exact{number} + at, {exact}, mask=here)"
    whole, work = name, _work(program.instrs[instr.args[0]].dtype)
    if around:
        whole = f"w{number}"
        yield f"{whole} = {name} + {around}"
    if instr.dtype in _NARROW:
        narrow = f"to_odd({whole})" if work == "F64" else whole
        bits = _NARROW[instr.dtype].format(narrow)
    else:
        bits = f"{whole}.to(tl.float{instr.dtype[1:]})"
    yield f"tl.store({instr.attrs[0]} + at, {bits}, mask=here)"
