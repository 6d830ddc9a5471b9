"""`pem diff` of recipes: what changed in meaning, and nothing where nothing did."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support.comparing import compared, phrases, shown

TIES = "ties([a, b], rank=4, density=0.5)"
DARE = "dare([a, b], rank=4, density=0.5, seed={})"
PHRASES: list[tuple[str, str, list[str]]] = [
    ("a - 0.6 * b", "a - 0.75 * b", ["b −0.6 → −0.75"]),
    ("a + b", "a - b", ["b 1 → −1"]),
    ("a / 3 + b", "a / 7 + b", ["a 1/3 → 1/7"]),
    ("a + b", "a + b - 0.5 * c", ["+ −0.5·c", "rank 8 → 12"]),
    ("a + b + c", "a + b", ["− c", "rank 12 → 8"]),
    ("a + b", "a + c", ["+ c", "− b"]),
    ("a", "2 * a", ["a 1 → 2"]),
    ("a", "b", ["+ b", "− a"]),
    ("a - a", "a", ["+ a", "rank 0 → 4"]),
    ("a + b with rank=6", "a + b with rank=4", ["rank 6 → 4"]),
    ("a + b", "a + b with rank=4", ["rank 8 → 4"]),
    ("a + b with energy=0.9", "a + b with energy=0.95", ["energy 0.9 → 0.95"]),
    (
        "a + b with rank=4", "a - b with energy=0.95",
        ["b 1 → −1", "energy none → 0.95", "rank 4 → at most 8"],
    ),
    ("a", "a with dtype=bf16", ["dtype of the inputs → bf16"]),
    ("a with heads=h", "a with heads=k", ["heads of h → of k"]),
    ("a", "a with heads=k", ["heads the inputs' own → of k"]),
    ("a + b", '(a + b)["*.query"]', ["−2 sites"]),
    ('join(a, b["*.query"])', "join(a, b)", ["b at 2 → 4 sites", "ranks 4 to 8 → 8"]),
    ('join(a, b["*.query"])', 'join(a, b["*.value"])', ["b at 2 other sites"]),
    ("ramp(1, 0.5) * a", "ramp(1, 0.25) * a", ["a (0.5 … 1 by site) → (0.25 … 1 by site)"]),
    (
        'ramp(1, 0.5) * a["*.query"]', 'ramp(0.5, 1) * a["*.query"]',  # exactly two sites
        ["a by other weights at some of its sites: (0.5 … 1 by site)"],
    ),
    (
        'ramp(1, 0.5) ⊗ a["*.query"]', 'ramp(1, 0.25) ⊗ a["*.query"]',
        ["(0.5 … 1 by site)⊗a → (0.25 … 1 by site)⊗a"],
    ),
    (
        'ramp(1, 0.5) ⊗ a["*.query"]', 'ramp(0.5, 1) ⊗ a["*.query"]',
        ["a by other weights at some of its sites: (0.5 … 1 by site)"],
    ),
    ("a ⊕ b", "a ⊖ b", ["b → ⊖b"]),
    ("0.5 ⊗ a ⊕ b", "0.7 ⊗ a ⊕ b", ["0.5⊗a → 0.7⊗a"]),
    ("a ⊕ b", "a ⊕ b ⊖ c", ["+ ⊖c"]),
    ("a ⊕ b ⊕ 0.5 ⊗ c", "a ⊕ b", ["− 0.5⊗c"]),
    ("a", "⊖a", ["a → ⊖a"]),
    ("i ⊕ j", "i ⊕ 0.5 ⊗ j", ["j 1 → 0.5"]),
    ("a", "i", ["+ i", "− a", "LoRA → (IA)³", "+4 sites", "−4 sites"]),
    (TIES, TIES.replace("0.5", "0.7"), ["ties: density 0.5 → 0.7"]),
    (TIES, TIES.replace("4,", "4, weights=[1, 2],"), ["ties: b 1 → 2"]),
    (TIES, TIES.replace("b]", "c]"), ["ties: + c", "ties: − b"]),
    (DARE.format(1), DARE.format(2), ["dare: seed 1 → 2"]),
    ("slerp(a, b, t=0.5)", "slerp(b, a, t=0.5)",
     ["slerp(a, b, t=0.5) → slerp(b, a, t=0.5)"]),
    ("pad(a, rank=6)", "pad(a, rank=7)", ["pad(a, rank=6) → pad(a, rank=7)", "rank 6 → 7"]),
    ("cosine(a, b) * a + b", "cosine(a, b) * a + 2 * b", ["b 1 → 2"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "wanted"), PHRASES)
def test_a_change_is_told_in_the_algebra(
    shelf: Path, old: str, new: str, wanted: list[str]
) -> None:
    assert phrases(shelf, old, new) == wanted
    assert phrases(shelf, new, old) != []
    for text in (old, new):
        assert phrases(shelf, text, text) == []


def test_a_measured_weight_that_changed_is_told(shelf: Path) -> None:
    [told] = phrases(shelf, "cosine(a, b) * a + b", "norm(b) * a + b")
    assert re.fullmatch(r"a cosine\((a, b|b, a)\) → norm\(b\)", told)


def test_another_method_is_told_whole(shelf: Path) -> None:
    [told] = phrases(shelf, TIES, DARE.format(1))
    assert told.startswith("ties([a, b]") and "→ dare([a, b]" in told


def test_ends_of_outputs(shelf: Path) -> None:
    alone, both = 'save a to "x"', 'save a to "x"\nsave b to "y"'
    assert shown(shelf, alone, both).splitlines() == [
        "a: no change of meaning",
        "b: added, b",
    ]
    assert shown(shelf, both, alone).splitlines()[1] == "b: removed, b"
    [moved] = compared(shelf, alone, 'save a to "z"').outputs
    assert (moved.state, moved.changes) == ("changed", ["saved to z, was x"])
    swapped = compared(shelf, both, 'save b to "x"\nsave a to "y"')
    assert [change.changes for change in swapped.outputs] == [["+ b", "− a"], ["+ a", "− b"]]
    assert compared(shelf, both, 'save b to "y"\nsave a to "x"').same


def test_of_recipes_that_save_nothing_nothing_can_be_said(shelf: Path) -> None:
    assert not compared(shelf, "let z = 1", "let z = 2").same
    assert shown(shelf, "let z = 1", "let z = 2") == (
        "nothing is saved on either side: compare the recipes that import it\n"
    )


def test_assertions(shelf: Path) -> None:
    saved = 'save a to "x"'
    old, new = f"assert norm(a) < 3\n{saved}", f"assert norm(a) < 4\n{saved}"
    changes = compared(shelf, old, new)
    assert changes.assertions == ["− norm(a) < 3", "+ norm(a) < 4"]
    assert not changes.same
    assert "assertions changed, no output did" in shown(shelf, old, new, "markdown")
    same = [
        ('assert norm(a) < 3 else "one"', 'assert norm(a) < 3 else "two"'),
        ("assert norm(a) < 3", "let n = norm(a)\nassert n < 1 + 2"),
        ("assert norm(a) < 3\nassert norm(b) < 3", "assert norm(b) < 3\nassert norm(a) < 3"),
    ]
    for old, new in same:
        assert compared(shelf, f"{old}\n{saved}", f"{new}\n{saved}").same
    changes = compared(shelf, saved, f"assert norm(a) < 3 and not norm(b) > 2\n{saved}")
    assert changes.assertions == ["+ (norm(a) < 3 and not (norm(b) > 2))"]


def test_a_long_assertion_is_compared_to_its_end(shelf: Path) -> None:
    many = " + ".join(TIES.replace("0.5", f"0.{n}") for n in range(100, 140))
    old, new = (f'assert norm({many} + {end}) < 9\nsave a to "x"' for end in ("a", "2 * a"))
    assert compared(shelf, old, old).same
    assert not compared(shelf, old, new).same
    assert len(compared(shelf, old, new).assertions) == 2


def test_an_adapter_under_another_name_is_the_same(shelf: Path) -> None:
    old = 'adapter a = "a"\nadapter b = "b"\nsave a - b to "x"'
    assert compared(shelf, old, 'adapter b = "a"\nadapter a = "b"\nsave b - a to "x"').same


def test_another_adapter_under_the_same_name_is_told(shelf: Path) -> None:
    old = 'adapter a = "a"\nadapter b = "b"\nsave a - 0.5 * b to "x"'
    content, weight = phrases(shelf, old, old.replace('"b"', '"c"').replace("0.5", "0.25"))
    assert re.fullmatch(r"b: other content, [0-9a-f]{12} → [0-9a-f]{12}", content)
    assert weight == "b −0.5 → −0.25"
    base = 'base m = "one/base"\nadapter a on m = "nameless"\nsave a to "x"'
    told = phrases(shelf, base, base.replace("one/base", "two/base"))
    assert told == ["a: on another base", "base one/base → two/base"]


def test_two_adapters_of_one_name_are_both_told(shelf: Path) -> None:
    head = 'import "lib/l.pem" as l\nadapter a = "a"\nadapter b = "b"\n'
    told = phrases(shelf, f'{head}save a + 2 * l.a to "x"', f'{head}save b to "x"')
    assert sorted(told) == ["+ b", "rank 8 → 4", "− 2·a", "− a"]


def test_models_are_compared_too(shelf: Path) -> None:
    head = 'base m = "base"\nmodel chat on m = "chat"\nadapter a = "a"\n'
    old, new = (f'{head}save m + {by} * (chat - m) to "x"' for by in ("0.5", "0.25"))
    assert compared(shelf, old, old).same
    assert not compared(shelf, old, new).same


REFACTORINGS = [
    'let other = a - 0.6 * b\nsave other to "out"',
    'save -0.6 * b + a to "out"',
    'param w: number = 0.6\nsave a - w * b to "out"',
    'def without(x: adapter, y: adapter) -> adapter = x - 0.6 * y\nsave without(a, b) to "out"',
    'let half = 0.3 * b\n# twice\nsave a - half - half to "out"',
    'save (a + b) - 1.6 * b to "out"',
    'save 0.4 * a + 3 / 5 * (a - b) to "out"',
]


@pytest.mark.parametrize("new", REFACTORINGS)
def test_a_refactoring_is_no_change(shelf: Path, new: str) -> None:
    old = 'let safe = a - 0.6 * b\nsave safe to "out"'
    assert compared(shelf, old, new).same
    assert shown(shelf, old, new) == "no change of meaning in 1 output\n"


def test_an_adapter_twice_in_a_merge_is_told_whole(shelf: Path) -> None:
    [told] = phrases(
        shelf,
        "ties([a, a, b], rank=4, density=0.5, weights=[1, 2, 1])",
        "ties([a, a, b], rank=4, density=0.7, weights=[3, 2, 1])",
    )
    assert "→" in told
    assert told.count("ties([") == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [("norm(a) < 9", "9 > norm(a)"), ("norm(a) >= 0.1", "0.1 <= norm(a)"),
     ("norm(a) != norm(b)", "norm(b) != norm(a)")],
)  # fmt: skip
def test_a_comparison_turned_round_is_the_same(shelf: Path, old: str, new: str) -> None:
    saved = 'save a to "x"\nassert '
    assert compared(shelf, saved + old, saved + new).same
    assert not compared(shelf, saved + "norm(a) < 9", saved + "norm(a) > 9").same


def test_an_assertion_of_other_content_is_told(shelf: Path) -> None:
    text = 'adapter a = "a"\nadapter b = "b"\nsave a to "x"\nassert cosine(a, b) < 0.9\n'
    changes = compared(shelf, text, text.replace('b = "b"', 'b = "c"'))
    assert not changes.same
    assert changes.assertions == ["~ cosine(a, b) < 0.9, of other content"]


def test_copies_in_another_order_are_the_same(shelf: Path) -> None:
    shutil.copytree(shelf / "a", shelf / "copy", dirs_exist_ok=True)
    lines = ['adapter a = "a"\n', 'adapter z = "copy"\n']
    saved = 'save a + 0.5 * z to "x"\n'
    assert compared(shelf, "".join(lines) + saved, "".join(lines[::-1]) + saved).same
    [changed] = compared(
        shelf, "".join(lines) + saved, "".join(lines) + 'save 0.5 * a + z to "x"\n'
    ).outputs
    assert changed.changes == ["a 1 → 0.5", "z 0.5 → 1"]
