"""A library from its first file to its third version: made, tested, documented, built to a wheel,
installed into another environment, imported, locked and upgraded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support import lora, pem, recipe
from support.git import commit, git
from support.libraries import environment, wheel

USING = """\
import house.merges (mixed)
adapter a = "adapters/a"
adapter b = "adapters/b"
save mixed(a, b) to "out/x" with rank=8
"""
MIXED = re.compile(r"def mixed\(.*?\n\)\n", re.DOTALL)
REFACTORED = """\
def _rest(x: adapter, by: number) -> adapter = (1 - by) * x

def mixed(first: adapter, second: adapter, by: number in 0..1 = 0.5) -> adapter = (
    _rest(second, by) + by * first
)
"""


class Publishing:
    """A library being published, and a recipe of someone who imports it elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.home, self._wheels = folder / "home", folder / "wheels"
        assert pem("new", "library", "house", folder=folder).code == 0
        self.project = folder / "house"
        self._environment = environment(folder / "venv")
        for seed, name in enumerate("ab"):
            lora(self.home / "adapters" / name, seed)
        recipe(self.home, USING)

    def run(self, *words: str, code: int = 0) -> str:
        done = self._environment.pem(*words, folder=self.home)
        assert done.code == code, done.text
        return done.text

    def publish(self, version: str, changes: dict[str, str]) -> None:
        """Publish a version in which some texts of the recipe are others, and install it."""
        about, text = self.project / "pyproject.toml", self.project / "src/house/merges.pem"
        about.write_text(re.sub("(?m)^version = .*", f'version = "{version}"', about.read_text()))
        for old, new in changes.items():
            assert old in text.read_text()
            text.write_text(text.read_text().replace(old, new))
        assert pem("test", self.project / "src").code == 0
        pages = self._wheels.with_name(f"pages-{version}")
        assert pem("doc", self.project / "src", "--format", "html", "-o", pages).code == 0
        assert "mixed(" in (pages / "merges.html").read_text()
        wheel(self.project, self._wheels)
        self.pip("install", "--find-links", self._wheels, f"house=={version}")

    def pip(self, *words: str | Path) -> None:
        self._environment.pip(*words)

    def locked(self) -> str:
        lock = json.loads((self.home / "pem.lock").read_text())
        version: str = lock["published"]["house.merges"]["version"]
        return version


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Publishing:
    return Publishing(tmp_path_factory.mktemp("published"))


def test_made_installed_imported_and_locked(world: Publishing) -> None:
    assert "there is no module `house.merges`" in world.run("check", "recipe.pem", code=1)
    world.publish("0.1.0", {})
    assert "of house 0.1.0" in world.run("lock", "recipe.pem")
    assert world.locked() == "0.1.0"
    git(world.home, "init", "-q")
    commit(world.home)
    world.run("build", "--locked", "recipe.pem")
    assert "house.merges" in world.run("verify", "--rebuild", "out/x")


def test_a_version_that_means_the_same(world: Publishing) -> None:
    text = (world.project / "src/house/merges.pem").read_text()
    [was] = MIXED.findall(text)
    world.publish("0.2.0", {was: REFACTORED})
    refused = world.run("check", "--locked", "recipe.pem", code=1)
    assert "error[PEM0803]: house.merges is not what pem.lock has" in refused
    assert "it was of house 0.1.0, house 0.2.0 is installed" in refused
    assert "PEM0803" in world.run("build", "--locked", "recipe.pem", code=1)
    told = world.run("lock", "--upgrade", "house", "recipe.pem")
    assert "recipe.pem: house 0.1.0 → house 0.2.0\n    no change of meaning in 1 output\n" in told
    assert world.locked() == "0.2.0"
    world.run("check", "--locked", "recipe.pem")
    assert "up to date" in world.run("build", "--locked", "recipe.pem")
    assert "no change of meaning" in world.run("diff", "HEAD:recipe.pem", "recipe.pem")
    commit(world.home)


def test_a_version_that_changes_a_weight(world: Publishing) -> None:
    law = "same(mixed(a, b), mixed(b, a))"
    mean = {"in 0..1 = 0.5": "in 0..1 = 0.75", law: "same(mixed(a, b), 0.75 * a + 0.25 * b)"}
    world.publish("0.3.0", mean)
    changed = "a 0.5 → 0.75; b 0.5 → 0.25"
    assert changed in world.run("diff", "HEAD:recipe.pem", "recipe.pem")
    before = (world.home / "pem.lock").read_bytes()
    assert "no library 'hose'" in world.run("lock", "--upgrade", "hose", "recipe.pem", code=1)
    assert (world.home / "pem.lock").read_bytes() == before
    shown = world.run("lock", "--upgrade", "house", "recipe.pem", "--format", "json")
    [upgrade] = json.loads(shown)["upgrades"]
    assert not upgrade["same"]
    assert (upgrade["old"], upgrade["new"]) == ("house 0.2.0", "house 0.3.0")
    assert changed in "; ".join(upgrade["outputs"][0]["changes"])
    world.run("check", "--locked", "recipe.pem")


def test_what_is_locked_needs_no_library(world: Publishing) -> None:
    world.pip("uninstall", "--yes", "house")
    world.run("build", "--locked", "--force", "recipe.pem")
    assert "no module" in world.run("build", "recipe.pem", code=1)
