"""A diff of drawn recipes: a rewrite by a law is no change, and another coefficient is one that is
named."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.laws.drawing import IA3, LORA, adapters, refactored
from support.laws.expressions import Tree, Writer
from support.laws.pool import LAWS, Pool, declared

from pemlang.compare import RecipeComparison, compare_recipes

SAVE = 'save x to "out"\n'
NAMES = {"a": "α", "t": "tiny"}


def compared(pool: Pool, old: str, new: str) -> RecipeComparison:
    return compare_recipes(pool.checked(old), pool.checked(new), ("old", "new"))


@settings(LAWS, max_examples=40)
@given(st.sampled_from([LORA, IA3]).flatmap(adapters), st.data(), st.booleans())
def test_a_refactoring_is_no_change(
    pool: Pool, tree: Tree, data: st.DataObject, ascii: bool
) -> None:
    """Operands that commute swapped, parts named, adapters renamed, the whole made a function."""
    old = Writer().recipe(tree) + SAVE
    other = Writer(ascii, NAMES).recipe(data.draw(refactored(tree)))
    assert compared(pool, old, other + SAVE).same
    whole = f"{other}def through(y: adapter, n: number = 2) -> adapter = n * y / 2\n"
    assert compared(pool, old, f'{whole}let z = through(x)\nsave z to "out"\n').same


TERMS = st.dictionaries(
    st.sampled_from("abcdgprh"),
    st.fractions(-3, 3, max_denominator=20).filter(bool),
    min_size=1,
    max_size=5,
)


def written(terms: dict[str, Fraction], order: list[str]) -> str:
    return " + ".join(
        f"({terms[n].numerator}/{terms[n].denominator}) * {n}".replace("(-", "(0 - ") for n in order
    )


@settings(LAWS, max_examples=60)
@given(TERMS, st.fractions(-3, 3, max_denominator=20).filter(bool), st.data())
def test_a_changed_coefficient_is_named_and_no_other(
    pool: Pool, terms: dict[str, Fraction], by: Fraction, data: st.DataObject
) -> None:
    changed = data.draw(st.sampled_from(sorted(terms)))
    other = terms | {changed: by}
    orders = [data.draw(st.permutations(sorted(terms))) for _ in range(2)]
    texts = [
        f"{declared(terms)}let x = {written(what, order)}\n{SAVE}"
        for what, order in zip((terms, other), orders, strict=True)
    ]
    comparison = compared(pool, *texts)
    assert comparison.same == (terms == other)
    if terms != other:
        [output] = comparison.outputs
        [change] = output.changes
        assert change.startswith(f"{changed} ") and " → " in change


@settings(LAWS, max_examples=40)
@given(TERMS, st.data())
def test_a_term_that_goes_or_comes_is_named(
    pool: Pool, terms: dict[str, Fraction], data: st.DataObject
) -> None:
    assume(len(terms) > 1)
    gone = data.draw(st.sampled_from(sorted(terms)))
    rest = {name: by for name, by in terms.items() if name != gone}
    both = [
        f"{declared(what)}let x = {written(what, sorted(what))}\n{SAVE}" for what in (terms, rest)
    ]
    for (old, new), sign in ((both, "−"), (both[::-1], "+")):
        [output] = compared(pool, old, new).outputs
        named = [text for text in output.changes if text[0] in "+−" and "site" not in text]
        assert len(named) == 1
        assert named[0].startswith(f"{sign} ") and named[0].endswith(gone)


@pytest.mark.parametrize("world", [LORA, IA3])
def test_a_recipe_is_itself(pool: Pool, world: object) -> None:
    name = "a" if world is LORA else "i"
    text = f"{declared(name)}let x = 2 * {name}\n{SAVE}"
    assert compared(pool, text, text).same
    assert not compared(pool, text, text.replace("2 *", "3 *")).same
