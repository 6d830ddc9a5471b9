"""Lists, what is chosen, and what a file hands on: each means what is written out beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from support import codes, recipe
from support.adapters import lora

import pemlang

DECLARED = """adapter a = "a"
adapter b = "b"
adapter c = "c"
let all = [a, b, c]
let ws = [0.5, 0.3, 0.2]
param first: bool = true
def soup(xs: [adapter], by: [number]) -> adapter = sum([w * x for w, x in zip(by, xs)])
def best(xs: [adapter], one: bool) -> adapter = if one then xs[0] else mean(xs)
"""

SAME = [
    ("sum(all)", "a + b + c"),
    ("sum([x for x in all])", "a + b + c"),
    ("sum([2 * x for x in all])", "2 * a + 2 * b + 2 * c"),
    ("sum([w * x for w, x in zip(ws, all)])", "0.5 * a + 0.3 * b + 0.2 * c"),
    ("soup(all, ws)", "0.5 * a + 0.3 * b + 0.2 * c"),
    ("soup([x for x in all], [w / sum(ws) for w in ws])", "0.5 * a + 0.3 * b + 0.2 * c"),
    ("sum(all) / len(all)", "mean([a, b, c])"),
    ("mean([all[0], all[2]])", "mean([a, c])"),
    ("best(all, true)", "a"),
    ("best(all, false)", "mean([a, b, c])"),
    ("if first then a else b", "a"),
    ("if not first then a else if 1 < 2 then b else c", "b"),
    ("0.5 * (if first then a else b)", "0.5 * a"),
    ("sum([if w > 0.25 then x else -x for w, x in zip(ws, all)])", "a + b - c"),
    ("sum([sum([w * x for w in ws]) for x in all])", "a + b + c"),
    ("sum([ramp(1, n) * a for n in [0.5, 0.25]])", "ramp(1, 0.5) * a + ramp(1, 0.25) * a"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lists")
    for seed, name in enumerate("abc"):
        lora(root / name, seed)
    return root


def meaning(folder: Path, expression: str, **params: bool) -> str:
    """The semantic hash of an expression."""
    text = f'{DECLARED}save {expression} to "out/x"\n'
    [output] = pemlang.load(recipe(folder, text), params).plan().outputs
    return output.semantic_hash


@pytest.mark.parametrize(("short", "long"), SAME)
def test_it_means_what_is_written_out(folder: Path, short: str, long: str) -> None:
    assert meaning(folder, short) == meaning(folder, long)


def test_a_choice_goes_by_what_is_set_from_outside(folder: Path) -> None:
    chosen = "if first then a else b"
    assert meaning(folder, chosen, first=False) == meaning(folder, "b") != meaning(folder, chosen)


def test_what_is_not_chosen_is_not_evaluated(folder: Path) -> None:
    text = 'adapter a = "a"\nlet xs = [1]\nsave if len(xs) > 1 then xs[1] * a else a to "out/x"\n'
    assert codes(folder, text) == []


@pytest.mark.parametrize("kind", ["1", '"x"', "true", "a", "[a][0]"])
def test_a_length_is_that_of_any_list(folder: Path, kind: str) -> None:
    text = f'adapter a = "a"\nlet xs = [{kind}, {kind}]\nassert len(xs) == 2\nsave a to "out/x"\n'
    assert codes(folder, text) == []


def test_lists_in_lists_expand_within_bounds(folder: Path) -> None:
    many = ", ".join(map(str, range(300)))
    text = f"let ns = [{many}]\nlet total = sum([sum([n * m for n in ns]) for m in ns])\n"
    assert codes(folder, text) == ["PEM0333"]


NUMBERS = st.integers(-8, 8).map(lambda n: n / 4)


@st.composite
def loops(draw: DrawFn, depth: int = 2) -> tuple[str, str]:
    """A sum over lists, and the same written out. A loop in a loop has names of its own."""
    x, w = f"x{depth}", f"w{depth}"
    adapters = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3))
    weights = [draw(NUMBERS) for _ in adapters]
    pairs = list(zip(weights, adapters, strict=True))
    terms = [f"{weight} * {adapter}" for weight, adapter in pairs]
    each, first = f"[{', '.join(adapters)}]", weights[0]
    both = f"for {w}, {x} in zip([{', '.join(map(str, weights))}], {each})"
    match draw(st.sampled_from(["plain", "if", "index", "nested"] if depth else ["zip"])):
        case "plain":
            return f"sum([{first} * {x} for {x} in {each}])", added(
                f"{first} * {a}" for a in adapters
            )
        case "if":
            short = f"sum([if {w} > 0 then {x} else {w} * {x} {both}])"
            return short, added(a if weight > 0 else f"{weight} * {a}" for weight, a in pairs)
        case "index":
            at = draw(st.integers(0, len(pairs) - 1))
            return f"len({each}) * [{w} * {x} {both}][{at}]", f"{len(pairs)} * ({terms[at]})"
        case "nested":
            short, long = draw(loops(depth - 1))
            return f"sum([{w} * ({short}) + {x} {both}])", added(
                f"{weight} * ({long}) + {a}" for weight, a in pairs
            )
    return f"sum([{w} * {x} {both}])", added(terms)


def added(terms: Iterable[str]) -> str:
    return " + ".join(f"({term})" for term in terms)


@settings(max_examples=60, deadline=None)
@given(pair=loops())
def test_a_loop_means_the_sum_written_out(folder: Path, pair: tuple[str, str]) -> None:
    short, long = pair
    assert meaning(folder, f"a + {short}") == meaning(folder, f"a + {long}"), (short, long)


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("[[1 for norm in [1]] for n in []]", ["PEM0202"]),
        ("house.sample(nothing)", ["PEM0206", "PEM0206"]),
        ("house.same(nothing, 1)", ["PEM0206", "PEM0206"]),
    ],
)
def test_names_are_looked_at_wherever_they_stand(
    folder: Path, expression: str, wrong: list[str]
) -> None:
    recipe(folder, "let one = 1\n", "house.pem")
    text = f'import "house.pem" as house\ndef f(x: number) -> number = {expression}\n'
    assert codes(folder, text) == wrong


def test_what_a_file_hands_on(folder: Path) -> None:
    recipe(folder, "def twice(x: adapter) -> adapter = 2 * x\n", "twice.pem")
    middle = (
        'import "twice.pem" as kept\nexport import "twice.pem" (twice)\n'
        "def _half(x: adapter) -> adapter = x / 2\n"
        "def half(x: adapter) -> adapter = _half(x)\n"
    )
    recipe(folder, middle, "middle.pem")
    start = 'import "middle.pem" as middle\nadapter a = "a"\n'
    for name, said in (("half", []), ("twice", []), ("_half", ["PEM0208"])):
        assert codes(folder, f'{start}save middle.{name}(a) to "out/x"\n') == said
    assert codes(folder, 'import "middle.pem" (kept)\n') == ["PEM0208"]
