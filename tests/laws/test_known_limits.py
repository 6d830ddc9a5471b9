"""Where two ways to say one thing are not one node yet. Each row fails when its limit is lifted."""

from __future__ import annotations

import pytest
from support.laws.pool import Pool, declared

SITES = "what is no linear combination is not split by sites"

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
    names = pool.checked(text).names
    assert names["left"] is names["right"]


def test_a_copy_elsewhere_is_another_adapter(pool: Pool) -> None:
    """`far` has the content of `a`, which a check does not know: what checks builds."""
    value = "let x: lora(rank=4) = a + far"
    recipe = pool.recipe(f'{declared("ab")}adapter far = "elsewhere/a"\n{value}\nsave x to "out"')
    assert not recipe.check()
    [built] = recipe.build().outputs
    assert built.rank == 4
