"""examples/paper: its compositions, rebuilt from the modules that come with it, are what results.md
says of them."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pemlang

PAPER = Path(__file__).parent.parent / "examples" / "paper"
RECIPES = sorted(PAPER.glob("*.pem"))
ONE_SENTENCE = 100 / 60 + 0.01  # percent, of the sixty in the sample
LOSS_NOISE = 1e-3


@pytest.fixture(scope="module")
def paper() -> Iterator[Any]:
    """The scripts of the example."""
    sys.path.insert(0, str(PAPER))
    try:
        import pages
        import record
        import settings
        import tasks

        yield SimpleNamespace(pages=pages, record=record, settings=settings, tasks=tasks)
    finally:
        sys.path.remove(str(PAPER))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipes and modules, away from the checkout."""
    folder = tmp_path_factory.mktemp("paper")
    for recipe in RECIPES:
        shutil.copy(recipe, folder)
    shutil.copy(PAPER / "pem.lock", folder)
    (folder / "modules").symlink_to(PAPER / "modules")
    return folder


def every_setting(paper: Any) -> Iterator[tuple[Any, str, str]]:
    """Each composition by each method from each seed."""
    for composition in paper.settings.COMPOSITIONS:
        for method in composition.methods:
            for seed in paper.settings.SEEDS:
                yield composition, method, seed


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::pemlang.PemWarning")
def test_rebuilt_compositions_are_what_the_results_say(paper: Any, copy: Path) -> None:
    results = paper.record.read()
    sentences = paper.tasks.read_sample()
    for composition, method, seed in every_setting(paper):
        weight = paper.record.chosen(results, composition.name, method, seed)
        params = {**composition.set(seed, method), "weight": float(weight)}
        pemlang.load(copy / composition.recipe, params).build()
        built = copy / composition.directory(seed, method, weight).relative_to(PAPER)
        measured = paper.tasks.measured(built, composition.texts, sentences)
        recorded = results["found"]["sample"][f"{composition.name}/{method}/{seed}"]
        for text, number in recorded.items():
            noise = LOSS_NOISE if text in paper.settings.LOSSES else ONE_SENTENCE
            assert measured[text] == pytest.approx(number, abs=noise), (built, text)


def test_the_page_is_what_the_numbers_give(paper: Any) -> None:
    assert (PAPER / "results.md").read_text() == paper.pages.page(paper.record.read())


def test_lambda_is_what_validation_chooses(paper: Any) -> None:
    results = paper.record.read()
    for composition, method, seed in every_setting(paper):
        curve = paper.record.curve(results, composition.name, method, seed)
        base = results["found"][f"base/{seed}"]
        chosen = paper.record.chosen(results, composition.name, method, seed)
        assert chosen == paper.settings.choose(composition.name, curve, base)


@pytest.mark.parametrize("recipe", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_recipe_is_ten_lines_and_checks(recipe: Path) -> None:
    lines = [line for line in recipe.read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) <= 10
    assert not pemlang.load(recipe).check(locked=recipe.stem == "detoxify")


def test_detoxify_is_checked_from_its_lock_and_never_built(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = copy / "detoxify.pem"
    wrong = copy / "wrong.pem"
    wrong.write_text(recipe.read_text().replace("alpaca: lora(rank=16)", "alpaca: lora(rank=8)"))
    assert [d.code for d in pemlang.load(wrong).check(locked=True)] == ["PEM0316"]
    with pytest.raises(pemlang.PemError):
        locked = pemlang.load(recipe)
        locked.build(options=pemlang.BuildOptions(lock=locked.lock_beside()))
    assert not (copy / "out" / "detoxify").exists()


def test_the_modules_are_small_and_name_no_machine() -> None:
    files = [path for path in (PAPER / "modules").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 15_000_000
    names = {path.name for path in files}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "lm_head.safetensors"}
    for path in files:
        if path.suffix == ".json":
            assert '"sentence-transformers/all-MiniLM-L6-v2"' in path.read_text()


def test_links_of_the_pages_exist() -> None:
    for page in (PAPER / "README.md", PAPER / "results.md", PAPER / "sample" / "README.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), target
