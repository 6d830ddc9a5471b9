"""What can go wrong while a plan runs, as data: it may run in another process, or on another
machine, where nothing is known of recipes. Whoever drives the build puts it into words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Failure(Exception):
    """Why a tensor could not be computed. What it is made with is all that it is: it can be sent
    from process to process."""


class InputNotFinite(Failure):
    """A tensor of an input holds infinity or NaN.

    Attributes:
        file, key: the tensor.
        nan: whether it holds NaN; else it holds an infinite number.
    """

    def __init__(self, file: Path, key: str, nan: bool) -> None:
        super().__init__(file, key, nan)
        self.file, self.key, self.nan = file, key, nan


class TooLarge(Failure):
    """A result is infinite: in a dtype of a file, or before it is rounded to one (None)."""

    def __init__(self, dtype: str | None) -> None:
        super().__init__(dtype)
        self.dtype = dtype


class TooSmall(Failure):
    """The smallest steps of a file's dtype would lose most digits of a tensor."""

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        self.dtype = dtype


class HeadsDiffer(Failure):
    """Adapters whose heads have to be the same differ in a tensor."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class InputUnreadable(Failure):
    """A file of an input cannot be read, in the system's words."""

    def __init__(self, file: Path, why: str) -> None:
        super().__init__(file, why)
        self.file, self.why = file, why


class InputChanged(Failure):
    """A file of an input is not what it was when the recipe was checked."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.file = file


class MemoryTooSmall(Failure):
    """The working memory does not suffice: bytes needed, and bytes allowed."""

    def __init__(self, needed: int, allowed: int) -> None:
        super().__init__(needed, allowed)
        self.needed, self.allowed = needed, allowed


class NoGpu(Failure):
    """There is no GPU to run on: why, and what to do about it, in words."""

    def __init__(self, why: str, help: str) -> None:
        super().__init__(why, help)
        self.why, self.help = why, help


class Undefined(Failure):
    """What was asked for has no value for these tensors. Only the method that computes it knows
    why: it brings the words of a diagnostic along."""

    def __init__(self, code: str, message: str, help: str) -> None:
        super().__init__(code, message, help)
        self.code, self.message, self.help = code, message, help
