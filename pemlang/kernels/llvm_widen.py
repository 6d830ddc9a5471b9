"""Narrow floats taken to float32 or float64: as LLVM IR."""

from __future__ import annotations

from pemlang.kernels.llvm_text import REAL, WIDTH, LlvmText, function, splat, stored_type, vector
from pemlang.tensorfiles.dtypes import DTYPES


def widen_source(dtype: str, work: str) -> str:
    """A module with `@widen`: some numbers of a narrow dtype in a work dtype. Gives 1 where one of
    them is infinite or NaN, else 0."""
    text = LlvmText()
    stored = stored_type(dtype)
    text.do(f"%bad = alloca {vector('i1')}")
    text.do(f"store {vector('i1')} zeroinitializer, ptr %bad")
    many = text.add(f"and i64 %count, {-WIDTH}")
    with text.loop(many, step=WIDTH) as loop:
        source, target = (
            text.at("%from", stored, loop.index),
            text.at("%to", REAL[work], loop.index),
        )
        _vector(text, dtype, work, source, target)
    rest = text.add(f"sub i64 %count, {many}")
    text.do(f"%source = alloca {vector(stored)}")
    text.do(f"%target = alloca {vector(REAL[work])}")
    text.do(f"store {vector(stored)} zeroinitializer, ptr %source")
    _bytes_copied(text, "%source", text.at("%from", stored, many), rest, DTYPES[dtype].size)
    _vector(text, dtype, work, "%source", "%target")
    _bytes_copied(text, text.at("%to", REAL[work], many), "%target", rest, DTYPES[work].size)
    bad = text.add(f"load {vector('i1')}, ptr %bad")
    bits = text.add(f"bitcast {vector('i1')} {bad} to i{WIDTH}")
    some = text.add(f"zext i1 {text.add(f'icmp ne i{WIDTH} {bits}, 0')} to i64")
    body = function("i64 @widen(i64 %count, ptr %from, ptr %to)", text, f"i64 {some}")
    return "\n".join([*body, "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)"])


def _vector(text: LlvmText, dtype: str, work: str, source: str, target: str) -> None:
    """WIDTH numbers from a place to another."""
    stored, wide = vector(stored_type(dtype)), vector(REAL[work])
    number = text.read_narrow(text.add(f"load {stored}, ptr {source}, align 1"), dtype)
    word = text.add(f"bitcast {vector('float')} {number} to {vector('i32')}")
    exponent = text.add(f"and {vector('i32')} {word}, {splat('i32', 0x7F800000)}")
    bad = text.add(f"icmp eq {vector('i32')} {exponent}, {splat('i32', 0x7F800000)}")
    before = text.add(f"load {vector('i1')}, ptr %bad")
    bad = text.add(f"or {vector('i1')} {before}, {bad}")
    text.do(f"store {vector('i1')} {bad}, ptr %bad")
    number = text.cast(number, "F32", work)
    text.do(f"store {wide} {number}, ptr {target}, align 1")


def _bytes_copied(text: LlvmText, to: str, source: str, count: str, size: int) -> None:
    many = text.add(f"mul i64 {count}, {size}")
    text.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {to}, ptr {source}, i64 {many}, i1 0)")
