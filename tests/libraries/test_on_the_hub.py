"""Recipes on the hub, imported through its cache and pinned by their commits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import Done, lora, pem, recipe
from support.hub_server import Hub, serving
from support.libraries import HALF, TWICE

NAME = "hf://org/recipes@main/soups/merges.pem"
USING = f'import "{NAME}" (half)\nadapter a = "a"\nsave half(a) to "out/x"\n'


@dataclass
class World:
    """A hub that has recipes, and a user with an empty cache."""

    hub: Hub
    source: Path
    home: Path
    cache: Path

    def pem(self, *words: str, **env: str) -> Done:
        return pem(*words, folder=self.home, process=True, **self.hub.env(self.cache) | env)

    def says(self, text: str) -> str:
        recipe(self.home, text)
        return self.pem("check", "recipe.pem").err


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    source = tmp_path / "source"
    recipe(source / "soups", HALF, "merges.pem")
    recipe(source, "v = 1\n", "README.md")
    lora(tmp_path / "home/a", 1)
    recipe(tmp_path / "home", USING)
    with serving({"org/recipes": {"main": source}}) as hub:
        yield World(hub, source, tmp_path / "home", tmp_path / "cache")


def moved(world: World, text: str) -> None:
    """The branch has another commit; the old one is still there by its own."""
    new = world.source.with_name("new")
    recipe(new / "soups", text, "merges.pem")
    recipe(new, f"{text}\n", "README.md")
    world.hub.repos["org/recipes"] = {"main": new, "old": world.source}


def test_a_branch_is_pinned_and_needs_no_network_again(world: World) -> None:
    done = world.pem("lock", "recipe.pem")
    assert done.code == 0, done.err
    commit = world.hub.commit(world.source)
    [published] = json.loads((world.home / "pem.lock").read_text())["published"].items()
    assert (published[0], published[1]["version"]) == (NAME, commit)
    assert world.pem("build", "--locked", "recipe.pem").code == 0
    assert (
        f"hf://org/recipes@{commit}/soups/merges.pem"
        in (world.home / "out/x/provenance.json").read_text()
    )
    moved(world, TWICE)
    world.hub.sent.clear()
    for command in (("check",), ("plan",), ("build", "--force")):
        assert world.pem(*command, "--locked", "recipe.pem", HF_HUB_OFFLINE="1").code == 0
    assert world.pem("verify", "--rebuild", "out/x", HF_HUB_OFFLINE="1").code == 0
    shutil.rmtree(world.cache)
    assert world.pem("check", "--locked", "recipe.pem").code == 0
    assert world.hub.sent == []
    # Built again by its provenance alone, from the commit.
    (world.home / "pem.lock").rename(world.home / "pem.lock.old")
    assert world.pem("verify", "--rebuild", "out/x").code == 0
    (world.home / "pem.lock.old").rename(world.home / "pem.lock")
    told = world.pem("lock", "--upgrade", "hf://org/recipes", "recipe.pem")
    assert "x: a 0.5 → 2" in told.out, told.err


def test_a_lock_names_a_commit(world: World) -> None:
    """The hub is asked for what lies beside a recipe by that, which was written by anyone."""
    assert world.pem("lock", "recipe.pem").code == 0
    lock = world.home / "pem.lock"
    text, commit = lock.read_text(), world.hub.commit(world.source)
    for version in ("main", "../../x", "A" * 40):
        lock.write_text(text.replace(commit, version))
        assert "PEM0801" in world.pem("check", "--locked", "recipe.pem").err


def test_relative_imports_come_from_the_same_commit(world: World) -> None:
    text = 'import "../parts.pem" (part)\ndef half(x: adapter) -> adapter = part * x\n'
    recipe(world.source / "soups", text, "merges.pem")
    recipe(world.source, "let part = 0.5\n", "parts.pem")
    assert world.pem("lock", "recipe.pem").code == 0
    names = ["hf://org/recipes@main/parts.pem", NAME]
    assert list(json.loads((world.home / "pem.lock").read_text())["published"]) == names


def test_two_names_of_one_commit(world: World) -> None:
    """Tomorrow they may stand for two: a lock has both, and so has a provenance."""
    text = 'import "../parts.pem" (part)\ndef half(x: adapter) -> adapter = part * x\n'
    recipe(world.source / "soups", text, "merges.pem")
    recipe(world.source, "let part = 0.5\n", "parts.pem")
    other = NAME.replace("@main", "")
    recipe(world.home, f'import "{other}" as other\n{USING}'.replace("half(a)", "other.half(a)"))
    assert world.pem("lock", "recipe.pem").code == 0
    names = {
        name.replace("soups/merges", x) for name in (NAME, other) for x in ("parts", "soups/merges")
    }
    assert json.loads((world.home / "pem.lock").read_text())["published"].keys() == names
    for words in (("check",), ("build",), ("plan",)):
        done = world.pem(*words, "--locked", "recipe.pem", HF_HUB_OFFLINE="1")
        assert done.code == 0, done.err
    (world.home / "pem.lock").unlink()
    assert world.pem("verify", "--rebuild", "out/x").code == 0


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HALF + "#" * (1 << 18), "PEM0101"),
        ("-----BEGIN CERTIFICATE-----\n", "PEM0103"),
        ("PK\x03\x04", "PEM0105"),
        ('import "../../other/x.pem" as x\n', "PEM0391"),
        ('import "../../../x.pem" as x\n', "PEM0391"),
        ('adapter b = "a"\n', "PEM0391"),
    ],
)
def test_what_may_not_be_there(world: World, text: str, code: str) -> None:
    recipe(world.source / "soups", text, "merges.pem")
    assert code in world.says(f'import "{NAME}" as x\nadapter a = "a"\nsave a to "out/x"\n')
    if code == "PEM0101":
        assert world.hub.bytes_of("merges.pem") == 0


@pytest.mark.parametrize(
    "name",
    [
        "hf://org/recipes",
        "hf://org/recipes@main",
        "hf://org/recipes/../x.pem",
        "hf://org/recipes@main/./soups/merges.pem",
        "hf://org/recipes@main/x.safetensors",
        "hf://recipes/x.pem",
        "hf://",
    ],
)
def test_what_is_no_recipe_on_the_hub(world: World, name: str) -> None:
    assert "PEM0392" in world.says(f'import "{name}" as x\n')


def test_what_is_not_there(world: World) -> None:
    assert "PEM0441" in world.says(USING.replace("merges.pem", "nowhere.pem"))
    assert "PEM0441" in world.says(USING.replace("@main", "@v9"))
