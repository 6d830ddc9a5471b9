"""Text that breaks where it is too long, after Wadler's "A prettier printer".

A box is written on one line if it fits, and otherwise over several: the outermost first.
"""

from __future__ import annotations

from dataclasses import field
from typing import TypeAlias

from pemlang.dataclass import dataclass

WIDTH = 100
INDENT = 4


@dataclass(frozen=True, slots=True)
class Line:
    """Where a line may end; what stands there when it does not."""

    flat: str = ""


@dataclass(frozen=True, slots=True)
class Newline:
    """Where a line ends: all that is around it is written over several lines."""


@dataclass(frozen=True, slots=True)
class Overhang:
    """Text that is too long for any line, so that breaking for its sake would not help."""

    text: str


@dataclass(frozen=True, slots=True)
class IfBroken:
    """Text that stands only where what is around it is written over several lines."""

    text: str


@dataclass(frozen=True, slots=True)
class Nest:
    """Lines that begin further in."""

    inner: Box


@dataclass(frozen=True, slots=True)
class Flat:
    """On one line, however long."""

    inner: Box


@dataclass(frozen=True, slots=True)
class Group:
    """On one line, or else with a line's end at each of its own Lines."""

    inner: Box
    broken: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "broken", has_newline(self.inner))


@dataclass(frozen=True, slots=True)
class Hug:
    """`head` on one line and `last` broken, as in `0.5 * f(…)`; `otherwise` where head is too
    long for that. `last` is no Hug itself."""

    head: Box
    last: Box
    otherwise: Group


Box: TypeAlias = (
    "str | Line | Newline | Overhang | IfBroken | Nest | Flat | Group | Hug | tuple[Box, ...]"
)

PlacedBox: TypeAlias = "tuple[int, bool, Box]"  # how far in, whether on one line, and what


def has_newline(box: Box) -> bool:
    """Whether a line ends in a box in any case."""
    match box:
        case Newline():
            return True
        case Group():
            return box.broken
        case Nest():
            return has_newline(box.inner)
        case Hug():
            return has_newline(box.head) or has_newline(box.last)
        case tuple():
            return any(map(has_newline, box))
    return False


def written(box: Box) -> str:
    """The text of a box, of lines as long as WIDTH where its Lines allow that."""
    out: list[str] = []
    column = 0
    stack: list[PlacedBox] = [(0, False, box)]
    while stack:
        indent, flat, box = stack.pop()
        match box:
            case str() | Overhang():
                text = box if isinstance(box, str) else box.text
                out.append(text)
                column += len(text)
            case Newline() | Line() if not flat or isinstance(box, Newline):
                out.append("\n" + " " * indent)
                column = indent
            case _:
                stack += _opened(box, indent, flat, WIDTH - column, stack)
    return "".join(out)


def _opened(box: Box, indent: int, flat: bool, room: int, rest: list[PlacedBox]) -> list[PlacedBox]:
    """What a box consists of, the first last."""
    match box:
        case Line():
            return [(indent, flat, box.flat)]
        case IfBroken():
            return [] if flat else [(indent, flat, box.text)]
        case Nest():
            return [(indent + INDENT, flat, box.inner)]
        case Flat():
            return [(indent, True, box.inner)]
        case Group():
            flat = flat or (not box.broken and _fits([(0, True, box.inner)], room, rest))
            return [(indent, flat, box.inner)]
        case Hug():
            whole = (box.head, box.last)
            if flat or (not has_newline(whole) and _fits([(0, True, whole)], room, rest)):
                return [(indent, True, whole)]
            hugged: list[PlacedBox] = [(indent, False, box.last), (indent, True, box.head)]
            return hugged if _fits(hugged, room, rest) else [(indent, False, box.otherwise)]
        case tuple():
            return [(indent, flat, part) for part in reversed(box)]
    raise TypeError(box)


def _fits(placed: list[PlacedBox], room: int, rest: list[PlacedBox]) -> bool:
    """Whether what is written up to the next place where a line may end has room."""
    stack, after = list(placed), len(rest)
    while room >= 0:
        if not stack:
            if not after:
                return True
            after -= 1
            stack.append(rest[after])
        _, flat, box = stack.pop()
        match box:
            case str():
                room -= len(box)
            case Line() if flat:
                room -= len(box.flat)
            case Line() | Newline():
                return True
            case IfBroken() if not flat:
                room -= len(box.text)
            case Nest() | Flat() | Group():
                stack.append((0, flat or isinstance(box, Flat), box.inner))
            case Hug():
                stack += [(0, flat, (box.head, box.last) if flat else box.otherwise)]
            case tuple():
                stack += [(0, flat, part) for part in reversed(box)]
    return False
