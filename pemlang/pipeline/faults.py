"""What went wrong while a plan ran, in the words of a diagnostic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import singledispatch

from pemlang.diagnostics import Fault, visible
from pemlang.failures import (
    Failure,
    HeadsDiffer,
    InputChanged,
    InputNotFinite,
    InputUnreadable,
    MemoryTooSmall,
    NoGpu,
    TooLarge,
    TooSmall,
    Undefined,
)
from pemlang.graph.formula import size_text
from pemlang.tensorfiles.digests import changed
from pemlang.tensorfiles.dtypes import FLOATS


@contextmanager
def worded() -> Iterator[None]:
    """A Failure inside is raised as a Fault."""
    try:
        yield
    except Failure as failure:
        raise fault_of(failure) from None


@singledispatch
def fault_of(failure: Failure) -> Fault:
    """A failure in words."""
    raise AssertionError(f"{type(failure).__name__} has no words")


@fault_of.register
def _(failure: InputNotFinite) -> Fault:
    what = f"{visible(failure.key)} of {visible(failure.file.parent)}"
    return Fault(
        "PEM0502",
        f"{what} holds {'NaN' if failure.nan else 'an infinite number'}",
        "the file is damaged: make it or download it again",
    )


@fault_of.register
def _(failure: TooLarge) -> Fault:
    if failure.dtype is None:
        message = "a result is too large for the precision it is computed in"
        return Fault("PEM0503", message, "scale it down")
    wider = "f32" if _is_narrow(failure.dtype) else "f64"
    return Fault(
        "PEM0503",
        f"a result is too large for {failure.dtype.lower()}",
        f"save with dtype={wider}, or scale it down",
    )


@fault_of.register
def _(failure: TooSmall) -> Fault:
    wider = "bf16" if _is_narrow(failure.dtype) else "f64"
    return Fault(
        "PEM0503",
        f"a result is too small for {failure.dtype.lower()}, which would lose most of its digits",
        f"save with dtype={wider}, or scale it up",
    )


@fault_of.register
def _(failure: HeadsDiffer) -> Fault:
    return Fault(
        "PEM0505",
        f"{visible(failure.key)} is saved whole, and differs between the adapters: a sum has no "
        "meaning there",
        "choose whose to keep, with heads=NAME, or say heads=mean or heads=none",
    )


@fault_of.register
def _(failure: InputUnreadable) -> Fault:
    message = f"cannot read {visible(failure.file)}: {failure.why}"
    return Fault("PEM0411", message, "see that it is there and can be read, and build again")


@fault_of.register
def _(failure: InputChanged) -> Fault:
    return changed(failure.file)


@fault_of.register
def _(failure: MemoryTooSmall) -> Fault:
    return Fault(
        "PEM0521",
        f"this build needs {size_text(failure.needed)} of memory to work in, and is given "
        f"{size_text(failure.allowed)}",
        f"give it more: --memory {-(-failure.needed // 1_000_000)}MB",
    )


@fault_of.register
def _(failure: NoGpu) -> Fault:
    message = f"this build was to run on a GPU, but {visible(failure.why)}"
    return Fault("PEM0522", message, failure.help)


@fault_of.register
def _(failure: Undefined) -> Fault:
    return Fault(failure.code, failure.message, failure.help)


def _is_narrow(dtype: str) -> bool:
    """Whether a dtype reaches less far than float32."""
    return FLOATS[dtype].exponent < FLOATS["F32"].exponent
