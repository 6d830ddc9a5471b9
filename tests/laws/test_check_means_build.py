"""What a check calls right, a build builds; and what a build refuses, the check has said."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from support import tensors_of
from support.laws.pool import LAWS, LORAS, Pool, declared
from support.laws.wild import SAVES, recipes, surroundings

import pemlang

OF_WEIGHTS = {"PEM0501", "PEM0502", "PEM0503", "PEM0504", "PEM0505"}
"""What only weights can tell: assertions, numbers that are none or too large, heads that differ."""

RECIPES = 256  # of eight saves each


def refused(recipe: pemlang.Recipe) -> set[str]:
    """The codes for which a recipe is not built; none where it is."""
    try:
        recipe.build(options=pemlang.BuildOptions(threads=1))
    except pemlang.PemError as error:
        return {told.code for told in error.diagnostics if told.severity == "error"}
    return set()


def wrong_lines(recipe: pemlang.Recipe) -> dict[int, str]:
    """The lines that a check finds a mistake in, with the code of one."""
    wrong = {}
    for told in recipe.check():
        if told.severity == "error":
            assert told.span is not None
            wrong[told.span.source.position(told.span.start)[0]] = told.code
    return wrong


@pytest.fixture
def pool(pool: Pool) -> Iterator[Pool]:
    """Without the folder of outputs, where others save."""
    yield pool
    shutil.rmtree(pool.folder / "out", ignore_errors=True)


def test_what_a_check_calls_right_is_built(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes right and wrong, over values that the laws draw. A build refuses nothing that the
    check has not said, but for what weights tell."""
    surroundings(pool.folder)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    seen: Counter[str] = Counter()

    def built(head: str, right: Sequence[str]) -> None:
        shutil.rmtree(pool.folder / "out", ignore_errors=True)
        codes = refused(pool.recipe(head + "\n".join(right)))
        assert codes <= OF_WEIGHTS
        if codes and len(right) > 1:
            for one in right:
                built(head, [one])
        else:
            seen.update(codes or {"built": len(right)})

    @settings(LAWS, max_examples=RECIPES)
    @given(recipes())
    def check(drawn: tuple[str, list[str]]) -> None:
        head, saves = drawn
        recipe = pool.recipe(head + "\n".join(saves))
        first, wrong = head.count("\n") + 1, wrong_lines(recipe)
        assert all(line >= first for line in wrong)
        seen.update(wrong.values())
        right = [save for line, save in enumerate(saves, first) if line not in wrong]
        if wrong:
            assert refused(recipe) & set(wrong.values())
        if right:
            built(head, right)

    check()
    assert 0.3 < seen["built"] / (RECIPES * SAVES) < 0.8, seen
    assert {"PEM0349", "PEM0510", "PEM0511", "PEM0512"} <= set(seen)


PARTS = [
    (name, glob)
    for name in "aetu"
    for glob in ("*", "*.q", "*.v", "m.layers.[01].?", "m.layers.1.?")
    if fnmatch.filter(LORAS[name], glob)
]


def test_outputs_that_share_a_build_hold_tensors_of_their_own(pool: Pool) -> None:
    """An adapter, and a part of another, in either order: programs are shared by sites that are
    alike for both outputs, and one of them, or its adapter, may lack some."""
    whole = 'save a to "shared/whole" with reader=peft\n'
    for other, glob in PARTS:
        part = f'save {other}["{glob}"] to "shared/part" with reader=peft\n'
        for saves in (whole + part, part + whole):
            shutil.rmtree(pool.folder / "shared", ignore_errors=True)
            pool.recipe(declared({"a", other}) + saves).build()
            for to, source in (("whole", "a"), ("part", other)):
                wanted = tensors_of(pool.folder / source)
                for key, tensor in tensors_of(pool.folder / "shared" / to).items():
                    assert torch.equal(tensor, wanted[key]), (to, other, glob, key)
