"""`dataclass`, made in a third of the time.

Python's own writes six methods of every class as source text and compiles each. A build has 180
such classes, and to make them took a third of the time in which it starts. Here `__init__` alone
is written; the other methods are the same functions for all classes.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(kind=None, /, *, frozen=False, eq=True, repr=True, slots=False):
        """As `dataclasses.dataclass` of the same arguments. What is frozen and has slots is frozen
        for the type checker alone: there are many of them, and to ask at each field takes long."""

        def made(kind):
            own = set(kind.__dict__)
            shared = {}
            if repr:
                shared["__repr__"] = _shown
            if eq:
                shared |= {"__eq__": _same, "__hash__": _hashed if frozen else None}
            if frozen and not slots:
                shared["__setattr__"] = _set_once
            kind = dataclasses.dataclass(eq=False, repr=False, slots=slots)(kind)
            if eq:
                names = [field.name for field in dataclasses.fields(kind) if field.compare]
                kind.__compared__ = attrgetter(*names) if names else _nothing
            for name, method in shared.items():
                if name not in own:
                    setattr(kind, name, method)
            return kind

        return made if kind is None else made(kind)


def _nothing(record: Any) -> None:
    """What two of a class without fields are compared by."""


@recursive_repr()
def _shown(record: Any) -> str:
    values = ", ".join(f"{name}={getattr(record, name)!r}" for name in record.__dataclass_fields__)
    return f"{type(record).__qualname__}({values})"


def _same(record: Any, other: object) -> bool:
    compared = type(record).__compared__
    return compared(record) == compared(other) if type(other) is type(record) else NotImplemented


def _hashed(record: Any) -> int:
    return hash(type(record).__compared__(record))


def _set_once(record: Any, name: str, value: object) -> None:
    if name in record.__dict__:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
    object.__setattr__(record, name, value)
