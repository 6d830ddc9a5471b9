"""What fills the matrices of a LoRA is saved at a rank that the recipe says (PEM0349)."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import build, codes, error, ia3, lora, tensors_of
from support.outputs import DECLARED

from pemlang.ops import FUNCTIONS, METHODS, RANK

FILLING = [name for name in METHODS if RANK in FUNCTIONS[name].signatures[0].params]
SETTINGS = {"density": "0.5", "epsilon": "0.2", "t": "0.1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed)
        ia3(tmp_path / f"gains_{name}", seed)
    return tmp_path


def call(name: str, *more: str) -> str:
    params = FUNCTIONS[name].signatures[0].params
    operands = ["[a, b]"] if params[0].name == "xs" else ["a", "b"]
    given = [f"{p.name}={SETTINGS[p.name]}" for p in params if p.required and p.name in SETTINGS]
    return f"{name}({', '.join([*operands, *given, *more])})"


@pytest.mark.parametrize("name", FILLING)
def test_no_method_fills_the_matrices_unless_that_is_said(folder: Path, name: str) -> None:
    wrong = error(folder, f'{DECLARED}save {call(name)} to "out"\n')
    assert (wrong.code, wrong.help) == ("PEM0349", call(name, "rank=4"))
    assert wrong.span is not None and wrong.span.text == call(name)
    params = FUNCTIONS[name].signatures[0].params
    ways = ["rank=4", "rank=full", *["over=factors" for p in params if p.name == "over"]]
    for said in (call(name, way) for way in ways):
        assert codes(folder, f'{DECLARED}save {said} to "out"\n') == []
    gains = DECLARED.replace('= "', '= "gains_')
    assert codes(folder, f'{gains}save {call(name)} to "out"\n') == []


@pytest.mark.parametrize(
    "value",
    ["t + a", "0.5 * t - b", "t[layers 0]", "join(t, a)", "pad(t, rank=12)", "slerp(t, a, t=0.5)",
     "ramp(1, 0) * t", "norm(a) * t", "rescale(t, like=a)", "compress(a, rank=2) + t"],
)  # fmt: skip
def test_whatever_it_goes_through_on_the_way(folder: Path, value: str) -> None:
    text = f"{DECLARED}let t = {call('ties')}\n"
    wrong = error(folder, f'{text}save {value} to "out"\n')
    assert (wrong.code, wrong.help) == ("PEM0349", call("ties", "rank=4"))
    assert wrong.notes[0].startswith("line 4 saves it")
    for option in ("rank=2", "energy=0.9", "rank=full"):
        assert codes(folder, f'{text}save {value} to "out" with {option}\n') == []


@pytest.mark.parametrize(
    "value",
    ["compress(t, rank=3)", "compress(t, energy=0.9)", "compress(0.5 * t + a, rank=3)",
     "compress(t, rank=12)", "a + compress(t, rank=3)", "dare([t, a], density=0.5, rank=3)",
     "cosine(t, a) * a", "0 * t + a", "lora_lego([a, t], units=2)"],
)  # fmt: skip
def test_what_is_cut_on_the_way_is_no_matter(folder: Path, value: str) -> None:
    assert codes(folder, f'{DECLARED}let t = {call("ties")}\nsave {value} to "out"\n') == []


def test_full_is_the_rank_of_every_matrix(folder: Path) -> None:
    in_the_call, on_the_save, by_number = build(
        folder,
        f'{DECLARED}save {call("ties", "rank=full")} to "x"\nsave {call("ties")} to "y" with '
        f'rank=full\nsave {call("ties", "rank=12")} to "z"\n',
    ).outputs
    assert in_the_call.semantic_hash == on_the_save.semantic_hash
    assert in_the_call.rank == on_the_save.rank == by_number.rank == 12
    assert {tuple(x.shape) for x in tensors_of(in_the_call.path).values()} == {(12, 16), (12, 12)}


def test_a_name_of_the_recipe_is_no_word_of_the_language(folder: Path) -> None:
    text = f"{DECLARED}let full = 3\n"
    for saved in (f'{call("ties", "rank=full")} to "x"', f'{call("ties")} to "x" with rank=full'):
        [built] = build(folder, f"{text}save {saved}\n").outputs
        assert built.rank == 3
    both = f"{DECLARED}def f(full: number) -> adapter = {call('ties', 'rank=full')}\n"
    [built] = build(folder, f'{both}save f(2) to "x"\n').outputs
    assert built.rank == 2


def test_every_call_of_it_is_told(folder: Path) -> None:
    """Two calls that are one value, and two that are not, under a sum."""
    text = (
        f'{DECLARED}save {call("ties")} to "x"\nsave a + {call("ties")} + {call("dare")} to "y"\n'
    )
    assert codes(folder, text) == ["PEM0349"] * 3
