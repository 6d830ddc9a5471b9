"""The Python interface, where it is not the same as a build. `apply` is in oracles/test_live.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import lora, recipe

import pemlang

TEXT = 'adapter a = "a"\nadapter b = "b"\nlet x = a ⊕ b\nlet y = a + b\n'


def test_an_evaluation_warns_as_a_build_would(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1, init=1)
    lora(tmp_path / "b", 2, init=2)
    opened = pemlang.load(recipe(tmp_path, TEXT + 'save x to "out"\n'))
    with pytest.warns(pemlang.PemWarning, match=r"PEM0701(.|\n)*init_overlap") as told:
        opened.evaluate("x")
    assert told[0].filename == __file__
    [warning] = opened.build().warnings
    assert str(told[0].message).startswith(f"warning[PEM0701]: {warning.message}")
    opened.evaluate("y")  # `+` needs no shared initialisation


def test_modules_of_one_initialisation_are_added_without_a_word(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1, init=1)
    lora(tmp_path / "b", 2, init=1)
    opened = pemlang.load(recipe(tmp_path, TEXT + 'save 1 ⊗ a ⊕ 0 ⊗ b to "out"\n'))
    opened.evaluate("x")
    assert opened.build().warnings == ()


def test_an_evaluation_has_the_heads_that_its_save_chose(tmp_path: Path) -> None:
    head = "base_model.model.classifier.weight"
    for seed, name in enumerate("ab"):
        lora(
            tmp_path / name,
            seed,
            extra={head: torch.full((2, 4), float(seed))},
            modules_to_save=["classifier"],
        )
    with pytest.raises(pemlang.PemError, match="PEM0505"):
        pemlang.load(recipe(tmp_path, TEXT)).evaluate("y")
    chosen = pemlang.load(recipe(tmp_path, TEXT + 'save y to "out" with heads=b\n'))
    assert torch.equal(chosen.evaluate("y")[head], torch.ones(2, 4))


def test_an_error_is_one_exception_with_everything_in_it(tmp_path: Path) -> None:
    opened = pemlang.load(recipe(tmp_path, 'adapter a = "a"\nlet x = b\n'))
    assert [d.code for d in opened.check()] == ["PEM0410", "PEM0206"]
    with pytest.raises(pemlang.PemError) as wrong:
        opened.build()
    assert [d.code for d in wrong.value.diagnostics] == ["PEM0410", "PEM0206"]
    assert "recipe.pem:2:9" in str(wrong.value)


def test_progress_is_told(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1)
    told: list[tuple[str, int, int]] = []
    opened = pemlang.load(recipe(tmp_path, 'adapter a = "a"\nsave a to "x"\nsave -a to "y"\n'))
    opened.build(tick=lambda *step: told.append(step))
    whole = told[-1][1]
    assert told == [("x and 1 more", step, whole) for step in range(1, whole + 1)]
