"""Where two ways to say one thing are not one node yet. Each row fails when its limit is lifted."""

from __future__ import annotations

import pytest
from pool import Pool, declared

from pemlang import PemError

SITES = "what is no linear combination is not split by sites"
CONTENT = "a check knows adapters by place, a build by content"

SAME = [
    (SITES, '(a ⊕ b)["*.q"]', 'a["*.q"] ⊕ b["*.q"]'),
    (SITES, '(a ⊕ b)["*.q"] ⊕ c["*.q"]', '(a ⊕ b ⊕ c)["*.q"]'),
    (SITES, 'pad(a, rank=5)["*.q"]', 'pad(a["*.q"], rank=5)'),
    (SITES, 'compress(a, rank=1)["*.q"]', 'compress(a["*.q"], rank=1)'),
]


ROWS = [
    pytest.param(
        left,
        right,
        id=left,
        marks=pytest.mark.xfail(reason=why, strict=True, raises=AssertionError),
    )
    for why, left, right in SAME
]


@pytest.mark.parametrize(("left", "right"), ROWS)
def test_both_are_one_node(pool: Pool, left: str, right: str) -> None:
    text = f"{declared('abc')}let left = {left}\nlet right = {right}\n"
    values = pool.checked(text).scope.values
    assert values["left"] is values["right"]


@pytest.mark.xfail(reason=CONTENT, strict=True, raises=PemError)
@pytest.mark.parametrize("said", ["let x: lora(rank=4) = a + far", "let x = (a + far) ⊕ (a + b)"])
def test_what_checks_builds(pool: Pool, said: str) -> None:
    """`far` has the content of `a`: the sum has rank 2, and 4 to a check."""
    recipe = pool.recipe(f'{declared("ab")}adapter far = "elsewhere/a"\n{said}\nsave x to "out"')
    assert not recipe.check()
    recipe.build()
