"""The Python interface, where it is not the same as a build. `apply` is in oracles/test_live.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from support import ia3, lora, recipe
from torch import nn

import pemlang

LORA = LoraConfig(r=2, target_modules=["0"])
IA3 = IA3Config(target_modules=["0"], feedforward_modules=[])
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


# --- what is shown ---------------------------------------------------------------------------


def test_a_recipe_a_diagnostic_and_a_result_show_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora(tmp_path / "a", 1)
    monkeypatch.chdir(tmp_path)
    recipe(tmp_path, 'adapter a = "a"\nparam w: number\nsave w * a to "out/x"\n', "m.pem")
    opened = pemlang.load("m.pem", {"w": 0.5})
    assert repr(opened) == "<Recipe m.pem, w=0.5>"
    built = f"<Built {tmp_path}/out/x: LoRA, rank 4, 4 sites, 3.05 kB>"
    result = opened.build()
    assert repr(result.outputs) == f"({built},)"
    assert repr(result).startswith(f"BuildResult(outputs=({built},), warnings=(), seconds=")
    recipe(tmp_path, "let x = b\n", "wrong.pem")
    [diagnostic] = pemlang.load("wrong.pem").check()
    assert repr(diagnostic) == "<error PEM0206 at wrong.pem:1:9: nothing is called `b`>"
    assert str(diagnostic).startswith("error[PEM0206]: nothing is called `b`\n --> wrong.pem:1:9")


# --- errors that say what is wrong -----------------------------------------------------------


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5))


@pytest.mark.filterwarnings("ignore:Adapter name")
@pytest.mark.parametrize(
    ("model", "name", "told"),
    [
        (plain, "a", "the model is of class Sequential, not a PeftModel"),
        (lambda: get_peft_model(plain(), LORA), "i", "type IA3, the model has LORA"),
        (lambda: get_peft_model(plain(), IA3), "a", "type LORA, the model has IA3"),
    ],
    ids=["plain", "onto LoRA", "onto (IA)3"],
)
def test_apply_says_what_a_model_lacks(
    tmp_path: Path, model: Callable[[], Any], name: str, told: str
) -> None:
    lora(tmp_path / "a", 1, {"0": (5, 6)})
    ia3(tmp_path / "i", 1, {"0": 5}, {})
    opened = pemlang.load(recipe(tmp_path, 'adapter a = "a"\nadapter i = "i"\n'))
    onto = model()
    before = set(onto.state_dict())
    with pytest.raises(pemlang.PemError, match="PEM0520") as wrong:
        pemlang.apply(onto, opened, name)
    assert told in str(wrong.value)
    assert set(onto.state_dict()) == before


def test_what_needs_torch_says_so(tmp_path: Path) -> None:
    """In an environment without it, as `pip install .` makes one."""
    lora(tmp_path / "a", 1)
    path = recipe(tmp_path, 'adapter a = "a"\n')
    script = (
        "import sys; sys.modules['torch'] = None; import importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name in ('torch', 'peft') else f(name, *more)\n"
        "import pemlang\n"
        f"recipe = pemlang.load({str(path)!r})\n"
        "for call in (lambda: recipe.evaluate('a'), lambda: pemlang.apply(None, recipe, 'a')):\n"
        "    try: call()\n"
        "    except pemlang.PemError as error: print(error)\n"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.count("error[PEM0523]") == 2, done.stderr
    assert 'pip install "pemlang[torch]"' in done.stdout
    assert 'pip install "pemlang[peft]"' in done.stdout
