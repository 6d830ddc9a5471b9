"""The pool of adapters, made once for all laws; and what holds of the graph between passes."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import pytest
from support.laws import pool as adapters
from support.laws.reference import Reference

PASSES = "pemlang.check.check.PASSES"


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> adapters.Pool:
    return adapters.make(tmp_path_factory.mktemp("laws"))


@pytest.fixture(scope="session")
def dense(pool: adapters.Pool) -> Reference:
    return Reference(pool.folder)


@pytest.fixture(scope="module", autouse=True)
def between_passes() -> Iterator[None]:
    """The graph is held to its invariant after every pass of every check."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PASSES, tuple(map(held, pkgutil.resolve_name(PASSES))))
        yield


def held(run: Callable[[Any], None]) -> Callable[[Any], None]:
    """A pass, after which the graph is held to its invariant."""

    @wraps(run)
    def run_and_hold(state: Any) -> None:
        run(state)
        state.elaborator.graph.invariant()

    return run_and_hold
