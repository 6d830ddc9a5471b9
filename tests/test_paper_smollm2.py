"""examples/paper on SmolLM2: its compositions, rebuilt from the modules that come with it, are what
results.md says of them."""

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
FOLDER = PAPER / "smollm2"
RECIPES = sorted(FOLDER.glob("*.pem"))
MEASURED = set(re.findall(r"^\[(\w+)\.pem\]", (FOLDER / "results.md").read_text(), re.MULTILINE))
"""The settings that the page has; modules of others may not be there."""
NOT_TRAINED = "PEM0410"

LOSS_NOISE = 0.01  # nats
ONE_SENTENCE = 100 / 24 + 0.01  # percent, of the 24 in the sample


@pytest.fixture(scope="module")
def paper() -> Iterator[Any]:
    """The scripts of the example."""
    sys.path.insert(0, str(PAPER))
    try:
        import record
        from smollm2 import pages, settings, stages, tasks, texts

        yield SimpleNamespace(
            pages=pages, record=record, settings=settings, stages=stages, tasks=tasks, texts=texts
        )
    finally:
        sys.path.remove(str(PAPER))


@pytest.fixture(scope="module")
def results(paper: Any) -> Any:
    """All that was measured."""
    return paper.record.read(paper.settings.RESULTS)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipes and modules, away from the checkout."""
    folder = tmp_path_factory.mktemp("smollm2")
    for recipe in RECIPES:
        shutil.copy(recipe, folder)
    (folder / "modules").symlink_to(FOLDER / "modules")
    return folder


def every_setting(paper: Any, results: Any) -> Iterator[tuple[Any, str, str]]:
    """Each composition that has been measured, by each method from each seed."""
    for composition in paper.settings.complete(results):
        for method in composition.methods:
            for seed in paper.settings.SEEDS:
                yield composition, method, seed


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::pemlang.PemWarning")
def test_rebuilt_compositions_are_what_the_results_say(
    paper: Any, results: Any, copy: Path
) -> None:
    for composition, method, seed in every_setting(paper, results):
        weight = paper.record.chosen(results, composition.name, method, seed)
        params = {**composition.set(seed, method), "weight": float(weight)}
        pemlang.load(copy / composition.recipe, params).build()
        built = copy / composition.directory(seed, method, weight).relative_to(FOLDER)
        measured = paper.tasks.on_sample(composition, built)
        recorded = results["found"][f"sample/{composition.name}/{method}/{seed}"]
        assert measured.keys() == recorded.keys()
        for text, number in recorded.items():
            noise = ONE_SENTENCE if text in paper.texts.TASKS else LOSS_NOISE
            assert measured[text] == pytest.approx(number, abs=noise), (built, text)


def test_the_page_is_what_the_numbers_give(paper: Any, results: Any) -> None:
    assert paper.settings.PAGE.read_text() == paper.pages.page(results)


def test_lambda_is_what_validation_chooses(paper: Any, results: Any) -> None:
    for composition, method, seed in every_setting(paper, results):
        curve = paper.record.curve(results, composition.name, method, seed)
        assert tuple(curve) == composition.grid
        base = results["found"][f"base/{seed}"]
        chosen = paper.record.chosen(results, composition.name, method, seed)
        assert chosen == paper.settings.choose(composition.name, curve, base)


def test_fine_tunes_are_trained_for_what_takes_them(paper: Any, results: Any) -> None:
    for composition in paper.settings.COMPOSITIONS:
        if taken := set(composition.fine_tunes):
            recipe = (FOLDER / "full" / composition.recipe).read_text()
            assert taken == set(re.findall(r"out/models/\{seed\}/(\w+)", recipe))
    needing = paper.stages.needing("cons", "1")
    assert needing == {
        f"{of}/full/1" for of in ("validation/unlearn", "test/unlearn", "parts/cons")
    }
    for module in paper.settings.TRAINED:
        assert bool(paper.stages.needing(module.name, "0")) == ("full" in module.methods)
        assert paper.stages.needing(module.name, "0") <= results["found"].keys()


@pytest.mark.parametrize("recipe", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_recipe_is_ten_lines_and_checks(recipe: Path) -> None:
    lines = [line for line in recipe.read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) <= 10
    said = {diagnostic.code for diagnostic in pemlang.load(recipe).check()}
    assert said <= (set() if recipe.stem in MEASURED else {NOT_TRAINED})


def test_the_modules_are_small_and_name_no_machine() -> None:
    files = [path for path in PAPER.glob("**/modules/**/*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 15_000_000
    for path in FOLDER.glob("modules/*/*/adapter_config.json"):
        assert '"HuggingFaceTB/SmolLM2-135M-Instruct"' in path.read_text()


def test_losses_are_those_of_the_whole_model(paper: Any) -> None:
    """What the layers below the modules make of a text is kept; the whole model says the same."""
    import torch
    from smollm2 import models

    _, tokenizer = models.base()
    examples = paper.texts.read_sample()["plots"][:4]
    total, count = 0.0, 0
    with models.with_module(FOLDER / "modules" / "0" / "cons-lora") as whole, torch.no_grad():
        for begin, text in examples:
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            first = len(tokenizer(text[:begin])["input_ids"])
            labels = ids.masked_fill(torch.arange(ids.shape[1]) < first, -100)
            answered = ids.shape[1] - first
            total += float(whole(input_ids=ids, labels=labels).loss) * answered
            count += answered
        found = models.States(exact=True).token_loss(examples)
    assert found == pytest.approx(total / count, abs=1e-4)


def test_links_of_the_pages_exist() -> None:
    for page in (FOLDER / "README.md", FOLDER / "results.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), target
