"""A quickly made dataclass is what Python's own is of the same arguments."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from pemlang.dataclass import dataclass
from pemlang.source import Source, Span

MAKERS = [dataclasses.dataclass, dataclass]
OPTIONS = [
    {},
    {"frozen": True},
    {"frozen": True, "eq": False},
    {"frozen": True, "repr": False},
    {"frozen": True, "slots": True},
    {"eq": False, "repr": False},
]


def made(maker: Callable[..., Any], **options: bool) -> Any:
    class Pair:
        left: int
        right: tuple[int, ...] = (2,)
        remembered: int = dataclasses.field(default=0, compare=False)

    return maker(**options)(Pair)


def facts(kind: Any) -> dict[str, object]:
    """What can be seen of a class and two equal instances of it."""
    one, equal, other = kind(1), kind(1, remembered=5), kind(1, (3,))
    comparable = kind.__eq__ is not object.__eq__
    return {
        "equal": (one == equal, one == other, one == one, one == (1, (2,), 0), one.__eq__(3)),  # noqa: PLR0124
        "hash": kind.__hash__ is not None and (not comparable or hash(one) == hash(equal)),
        "told": repr(one) if kind.__repr__ is not object.__repr__ else "",
        "replaced": dataclasses.replace(one, left=4).left,
        "dict": dataclasses.asdict(one),
        "matched": kind.__match_args__,
        "slots": getattr(kind, "__slots__", None),
    }


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_seen_to_be_the_same(options: dict[str, bool]) -> None:
    pythons, ours = (facts(made(maker, **options)) for maker in MAKERS)
    assert ours == pythons


@pytest.mark.parametrize("maker", MAKERS)
def test_what_is_frozen_is_assigned_once(maker: Callable[..., Any]) -> None:
    pair = made(maker, frozen=True)(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'left'"):
        pair.left = 2
    assert pair.left == 1


@pytest.mark.parametrize("maker", MAKERS)
def test_methods_of_its_own_stay(maker: Callable[..., Any]) -> None:
    @maker(frozen=True)
    class Named:
        name: str

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

        def __repr__(self) -> str:
            return "a name"

    assert Named("a") == 5
    assert (hash(Named("a")), repr(Named("a"))) == (7, "a name")


def test_one_of_another_class_is_never_equal() -> None:
    @dataclass(frozen=True)
    class Base:
        value: int

    @dataclass(frozen=True)
    class Derived(Base):
        pass

    assert Base(1) != Derived(1)
    assert len({Base(1), Derived(1), Base(1)}) == 2


def test_one_that_holds_itself_is_shown() -> None:
    @dataclass
    class Ring:
        items: list[Any]

    ring = Ring([])
    ring.items.append(ring)
    assert repr(ring).endswith("Ring(items=[...])")


def test_it_is_copied_and_pickled() -> None:
    span = Span(Source("recipe.pem", "let x = 1"), 0, 3)
    assert copy.copy(span) == span
    assert pickle.loads(pickle.dumps(span)).text == "let"
