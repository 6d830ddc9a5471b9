"""What the documents show is so: every recipe in them checks, every command and link exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support import lora, recipe
from support.models import model

import pemlang
from pemlang.cli.main import command_names

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```pem\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [
    (page, block)
    for page in PAGES
    if page.name != "library.md"  # its recipes are those of stdlib/, which `pem test` runs
    for block in BLOCK.findall(page.read_text())
]
SITES = {f"layers.{i}.{name}": (64, 64) for i in range(16) for name in ("q_proj", "v_proj")}


@pytest.mark.parametrize(
    ("page", "block"), BLOCKS, ids=[f"{page.stem}-{i}" for i, (page, _) in enumerate(BLOCKS)]
)
def test_a_recipe_in_the_documents_checks(tmp_path: Path, page: Path, block: str) -> None:
    declared = re.findall(r'^adapter \w+.*? = "([^"]*)"', block, re.MULTILINE)
    [rank, *_] = [*re.findall(r"lora\(rank=(\d+)\) on", block), "16"]
    for seed, path in enumerate(declared or ["adapters/a", "adapters/b"]):
        lora(tmp_path / path, seed, SITES, rank=int(rank), base_model_name_or_path=...)
    named = re.findall(r'^(?:base|model) \w+.*= "(models/.*)"', block, re.MULTILINE)
    for number, path in enumerate(named):
        weights = {f"model.{site}.weight": size for site, size in SITES.items()}
        tokens = {f"t{token}": token for token in range(8 + number * ("[like" in block))}
        weights["model.embed_tokens.weight"] = (len(tokens), 64)
        at = model(tmp_path / path, number, weights)
        (at / "tokenizer.json").write_text(json.dumps({"model": {"vocab": tokens}}))
    defines = block.startswith("def ")  # its params may be called a and b
    both = 'adapter a = "adapters/a"\nadapter b = "adapters/b"\n'
    prelude = "" if declared or defines or named else both
    diagnostics = pemlang.load(recipe(tmp_path, prelude + block)).check()
    wrong = [told for told in diagnostics if told.code != "PEM0114"]  # a part saves nothing
    assert wrong == [], pemlang.PemError(wrong)


def test_there_are_recipes_in_the_documents() -> None:
    assert {"README", "language"} <= {page.stem for page, _ in BLOCKS}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_and_commands_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for command in re.findall(r"^(?:\$ )?pem ([\w-]+)", text, re.MULTILINE):
        assert command in (*command_names(), "help")
    for target in re.findall(r"^make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
