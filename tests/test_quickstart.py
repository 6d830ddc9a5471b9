"""The quickstart, built and measured: what its page shows is what a person sees."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import pemlang

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "examples" / "quickstart"
OUTPUTS = ("exact-lora", "exact-lora-r8", "paper-lora", "paper-ia3")
ONE_SENTENCE = 100 / 400


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the quickstart, away from the checkout, with its recipe built."""
    folder = tmp_path_factory.mktemp("quickstart") / "quickstart"
    shutil.copytree(QUICKSTART, folder, ignore=shutil.ignore_patterns("out", "__pycache__"))
    result = pemlang.load(folder / "quickstart.pem").build()
    assert [output.path.name for output in result.outputs] == list(OUTPUTS)
    return folder


@pytest.fixture(scope="module")
def table() -> ModuleType:
    """The script that measures: examples/quickstart/table.py."""
    sys.path.insert(0, str(QUICKSTART))
    try:
        import table as script  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(QUICKSTART))
    script.quiet()
    return script  # type: ignore[no-any-return]


def shown() -> dict[str, tuple[float, float]]:
    """The table on the page."""
    page = (QUICKSTART / "README.md").read_text()
    rows = re.findall(r"^((?:adapters|out)/\S+) +([\d.]+) +([\d.]+)$", page, re.M)
    return {name: (float(movies), float(products)) for name, movies, products in rows}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_table_on_the_page_is_what_is_measured(built: Path, table: ModuleType) -> None:
    rows = shown()
    names = [f"adapters/{name}" for name in table.INPUTS] + [f"out/{name}" for name in OUTPUTS]
    assert sorted(rows) == sorted(names)
    sentences = [table.held_out(kind) for kind in table.KINDS]
    for name in names:
        model = table.load(built / name)  # every key finds its place, and every place its key
        for accuracy, texts in zip(rows[name], sentences, strict=True):
            assert table.accuracy(model, texts) == pytest.approx(accuracy, abs=2.5 * ONE_SENTENCE)


def test_the_readme_says_what_the_table_does() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    movies, products = shown()["out/exact-lora"]
    assert f"right about {movies} % of movies and {products} % of products" in text


def test_the_adapters_are_small_and_name_no_machine() -> None:
    for name in ("movies-lora", "products-lora", "movies-ia3", "products-ia3"):
        directory = QUICKSTART / "adapters" / name
        assert sorted(path.name for path in directory.iterdir()) == [
            "adapter_config.json",
            "adapter_model.safetensors",
        ]
        assert (directory / "adapter_model.safetensors").stat().st_size < 300_000
        config = json.loads((directory / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_one_head_serves_all(built: Path) -> None:
    heads = [
        {key: tensor for key, tensor in tensors.items() if "classifier" in key}
        for tensors in (
            pemlang.load(built / "quickstart.pem").evaluate(name)
            for name in ("movies", "products", "movies_ia3", "products_ia3", "both")
        )
    ]
    assert len(heads[0]) == 2
    for other in heads[1:]:
        assert other.keys() == heads[0].keys()
        assert all(torch.equal(other[key], heads[0][key]) for key in other)


def test_the_halves_that_score_goes_by_share_no_sentence(table: ModuleType) -> None:
    sys.path.insert(0, str(QUICKSTART))
    try:
        import score  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(QUICKSTART))
    for kind in table.KINDS:
        halves = [score.half(kind, test) for test in (False, True)]
        assert sorted(halves[0] + halves[1]) == sorted(table.held_out(kind))
        assert [sum(label for label, _ in half) for half in halves] == [100, 100]
