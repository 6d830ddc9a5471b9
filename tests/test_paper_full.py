"""The recipes of examples/paper/smollm2 of which all weights are trained, on small models, against
their formulas."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.peft_made import llama

import pemlang

FOLDER = Path(__file__).parent.parent / "examples" / "paper" / "smollm2" / "full"
RECIPES = sorted(FOLDER.glob("*.pem"))
W = 0.3
Formula = Callable[..., torch.Tensor]

FORMULAS: dict[str, tuple[tuple[str, ...], Formula]] = {
    "generalise": (("subset_a", "subset_b"), lambda base, a, b: W * a + (1 - W) * b),
    "multitask": (("movies", "subjectivity"), lambda base, a, b: W * a + (1 - W) * b),
    "unlearn": (("cons",), lambda base, cons: base - W * (cons - base)),
    "transfer": (
        ("movies", "lm_products", "lm_movies"),
        lambda base, task, target, source: base + W * (task - base) + (1 - W) * (target - source),
    ),
}
"""By recipe: the fine-tunes that it takes, and what it makes of one tensor of each."""


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_its_formula(recipe: Path, tmp_path: Path) -> None:
    names, formula = FORMULAS[recipe.stem]
    folders = ["base", *(f"0/{name}" for name in names)]
    torch.manual_seed(0)
    for folder in folders:
        model = llama()
        weights = {
            key: weight + (folder != "base") * 0.01 * torch.randn_like(weight)
            for key, weight in model.state_dict().items()
        }
        directory = tmp_path / "out" / "models" / folder
        model.config.save_pretrained(directory)
        save_file(weights, directory / "model.safetensors", {"format": "pt"})
    loaded = pemlang.load(shutil.copy(recipe, tmp_path), {"weight": W})
    assert not loaded.check()
    loaded.build()
    built = load_file(tmp_path / "out" / recipe.stem / "0" / "0.3" / "model.safetensors")
    inputs = [load_file(tmp_path / "out" / "models" / f / "model.safetensors") for f in folders]
    assert built.keys() == inputs[0].keys()
    for key, weight in built.items():
        expected = formula(*(model[key].double() for model in inputs))
        torch.testing.assert_close(weight.double(), expected, rtol=0, atol=1e-6)


def test_a_recipe_is_ten_lines() -> None:
    assert {path.stem for path in RECIPES} == FORMULAS.keys()
    for recipe in RECIPES:
        text = re.sub(r"^#.*", "", recipe.read_text(), flags=re.MULTILINE)
        assert sum(map(bool, text.splitlines())) <= 10, recipe.name
