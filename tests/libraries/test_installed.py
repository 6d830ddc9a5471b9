"""Imports of libraries that are installed: what is found, and what is kept out."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support import codes, lora, pem, recipe
from support.libraries import HALF, TWICE, edited, installed
from support.locks import edit_lock, lock
from support.processes import on_a_terminal

import pemlang
from pemlang.disk import turn

USING = 'import house.merges (half)\nadapter a = "a"\nsave half(a) to "out/x"\n'
ALONE = 'adapter a = "a"\nsave 0.5 * a to "out/x"\n'


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the path, for libraries; adapters are where the test runs."""
    folder = tmp_path / "site"
    installed(folder, {"merges.pem": HALF})
    monkeypatch.syspath_prepend(folder)
    home = tmp_path / "home"
    lora(home / "a", 1)
    monkeypatch.chdir(home)
    return folder


def built_hash(text: str) -> str:
    [built] = pemlang.load(recipe(Path(), text)).build().outputs
    return built.semantic_hash


def test_a_function_of_a_library_means_what_it_says(site: Path) -> None:
    assert built_hash(USING) == built_hash(ALONE)


def test_the_page_of_a_library(site: Path) -> None:
    for name in ("house", "house.merges"):
        [library] = json.loads(pem("doc", name, "--format", "json").out)["libraries"]
        assert library["module"] == library["name"] == "house.merges"
        assert [x["name"] for x in library["names"]] == ["half"]
    assert pem("doc", "house", "--format", "markdown").out.startswith("# house.merges\n")
    assert "error[PEM0100]" in pem("doc", "house.more").err


def test_nothing_of_a_library_is_run(site: Path) -> None:
    folder = installed(site, {"merges.pem": HALF, "__init__.py": "raise SystemExit(9)"})
    before = set(sys.modules)
    assert codes(Path(), USING) == []
    assert folder.name not in sys.modules.keys() - before


def test_a_folder_that_happens_to_be_there_is_no_library(site: Path) -> None:
    recipe(Path("mouse"), HALF, "merges.pem")
    assert codes(Path(), USING.replace("house", "mouse")) == ["PEM0203"]


def test_recipes_of_a_library_import_each_other(site: Path) -> None:
    files = {
        "soups/even.pem": 'import "../parts.pem" (part)\n'
        "def even(x: adapter) -> adapter = part * x\n",
        "parts.pem": "let part = 0.5\n",
        "merges.pem": 'import "soups/even.pem" as soups\nexport import house.soups.even (even)\n'
        "def half(x: adapter) -> adapter = soups.even(x)\n",
    }
    installed(site, files)
    assert built_hash(ALONE) == built_hash(USING)
    locked = lock()
    names = ["house.merges", "house.parts", "house.soups.even"]
    assert list(locked["imports"]) == list(locked["published"]) == names
    assert {(x["distribution"], x["version"]) for x in locked["published"].values()} == {
        ("house-merges", "1.0")
    }
    assert str(site) not in Path("pem.lock").read_text()


@pytest.mark.parametrize("folder", ["src/house", "house"])
def test_a_library_that_is_being_worked_on(site: Path, tmp_path: Path, folder: str) -> None:
    edited(site, tmp_path / "project")
    recipe(tmp_path / "project" / folder, HALF, "merges.pem")
    assert codes(Path(), USING) == []
    recipe(tmp_path / "project" / folder, "", "merges.pem")
    assert codes(Path(), USING) == ["PEM0104"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("#" * (1 << 18) + "\n", "PEM0101"),
        ("-----BEGIN CERTIFICATE-----\n", "PEM0103"),
        ("let x = \n", "PEM0108"),
        ('import "/etc/x.pem" as x\n', "PEM0205"),
        ('adapter b = "/etc"\n', "PEM0391"),
        ('model b = "../../home/a"\n', "PEM0391"),
        ('import "../../../home/recipe.pem" as x\n', "PEM0391"),
    ],
)
def test_what_a_library_may_not_be(site: Path, text: str, code: str) -> None:
    installed(site, {"merges.pem": text})
    assert code in codes(Path(), 'import house.merges as merges\nadapter a = "a"\nsave a to "x"\n')


@pytest.mark.parametrize(
    "package", ["..", "../house", "/tmp", "house recipes", "house.nowhere", ""]
)
def test_a_package_that_is_none(site: Path, package: str) -> None:
    installed(site, {"merges.pem": HALF})
    [about] = site.glob("*.dist-info")
    (about / "entry_points.txt").write_text(f"[pemlang.libraries]\nhouse = {package}\n")
    told = pem("check", recipe(Path(), USING))
    assert "error[PEM0390]" in told.err
    assert "Traceback" not in told.text


@pytest.mark.parametrize(
    ("file", "data", "code"),
    [
        ("entry_points.txt", b"[pemlang.libraries]\nhouse = \xff\n", "PEM0390"),
        ("entry_points.txt", b"[pemlang.libraries\nhouse\n", "PEM0203"),
        ("METADATA", b"\xff\xfe", "PEM0390"),
        ("direct_url.json", b"[1", None),
        ("direct_url.json", b'{"dir_info": {"editable": true}, "url": 3}', None),
        ("direct_url.json", b'{"dir_info": {"editable": true}, "url": "file://[x"}', None),
        ("direct_url.json", b'{"dir_info": {"editable": true}, "url": "file:///%00"}', "PEM0390"),
        ("direct_url.json", b"\xff", None),
    ],
)
def test_what_pip_left_is_damaged(site: Path, file: str, data: bytes, code: str | None) -> None:
    [about] = site.glob("*.dist-info")
    (about / file).write_bytes(data)
    assert codes(Path(), USING)[:1] == ([] if code is None else [code])


def test_another_version_of_the_same_text_is_no_other(site: Path) -> None:
    recipe(Path(), USING)
    lock()
    installed(site, {"merges.pem": HALF, "more.pem": TWICE}, version="1.1")
    assert pem("check", "--locked", "recipe.pem").text == ""
    installed(site, {"merges.pem": TWICE}, version="1.2")
    for command in ("check", "build", "plan"):
        assert "PEM0803" in pem(command, "--locked", "recipe.pem").text


def other_text(locked: Any) -> None:
    locked["published"]["house.merges"]["text"][0] = "let x = 1"


def no_version(locked: Any) -> None:
    del locked["published"]["house.merges"]["distribution"]


def other_name(locked: Any) -> None:
    locked["published"]["../x"] = locked["published"]["house.merges"]


def no_list(locked: Any) -> None:
    locked["published"]["house.merges"]["text"] = "let x = 1"


def surrogate(locked: Any) -> None:
    locked["published"]["house.merges"]["text"][0] = "\ud800"


@pytest.mark.parametrize(
    "change",
    [other_text, no_version, other_name, no_list, surrogate, lambda x: x.update(published=1)],
)
def test_a_lock_that_was_changed(site: Path, change: Any) -> None:
    recipe(Path(), USING)
    lock()
    edit_lock(change)
    assert "PEM0801" in pem("check", "--locked", "recipe.pem").err


def test_an_upgrade_takes_nothing_else(site: Path) -> None:
    """No adapter need be there, and what is installed of another library does not count."""
    installed(site, {"parts.pem": "let part = 1\n"}, "mouse", "1.0", "mouse", "mouse")
    text = f"import mouse.parts (part)\n{USING}".replace("half(a)", "part * half(a)")
    recipe(Path(), text)
    before = lock()
    installed(site, {"merges.pem": TWICE}, version="2.0")
    installed(site, {"parts.pem": "let part = 3\n"}, "mouse", "2.0", "mouse", "mouse")
    shutil.rmtree("a")
    done = pem("lock", "--upgrade", "house", "recipe.pem")
    assert "x: a 0.5 → 2" in done.out
    after = json.loads(Path("pem.lock").read_text())
    for part in ("adapters", "recipes"):
        assert after[part] == before[part]
    assert after["published"]["mouse.parts"] == before["published"]["mouse.parts"]
    assert after["published"]["house.merges"]["version"] == "2.0"


def test_each_version_is_told_once(site: Path) -> None:
    """One that comes with a recipe more was told with those that were there."""
    recipe(Path(), USING)
    pem("lock", "recipe.pem")
    moved = {"merges.pem": 'export import "parts.pem" (half)\n', "parts.pem": HALF}
    installed(site, moved, version="2.0")
    told = pem("lock", "--upgrade", "house", "recipe.pem").out.splitlines()
    below = [line.strip() for line in told[told.index("pem.lock") + 1 :]]
    assert below == ["+ house.parts", "~ house.merges", "house-merges 1.0 → house-merges 2.0"]


def test_an_upgrade_to_what_is_wrong_writes_nothing(site: Path) -> None:
    recipe(Path(), USING)
    lock()
    before = Path("pem.lock").read_bytes()
    installed(site, {"merges.pem": "def halve(x: adapter) -> adapter = 0.5 * x\n"}, version="2.0")
    done = pem("lock", "--upgrade", "house", "recipe.pem")
    assert (done.code, "did you mean `halve`" in done.err) == (1, True)
    assert Path("pem.lock").read_bytes() == before


@pytest.mark.parametrize(("typed", "version"), [("n\n", "1.0"), ("y\n", "2.0"), ("\x04", "1.0")])
def test_on_a_terminal_an_upgrade_asks(site: Path, typed: str, version: str) -> None:
    recipe(Path(), USING)
    lock()
    installed(site, {"merges.pem": TWICE}, version="2.0")
    done = on_a_terminal(
        "lock", "--upgrade", "house", "recipe.pem",
        folder=Path(), typed=typed, PYTHONPATH=str(site),
    )  # fmt: skip
    assert done.out.index("x: a 0.5 → 2") < done.out.index("Lock it?")
    locked = json.loads(Path("pem.lock").read_text())
    assert locked["published"]["house.merges"]["version"] == version


def test_all_that_a_lock_upgrades_is_shown(site: Path) -> None:
    """Recipes of a folder have one text of a library; what is new since the lock is refused."""
    recipe(Path(), USING)
    recipe(Path(), USING.replace("out/x", "out/y"), "second.pem")
    recipe(Path(), ALONE.replace("out/x", "out/z"), "third.pem")
    lock("recipe.pem", "second.pem", "third.pem")
    installed(site, {"merges.pem": TWICE}, version="2.0")
    recipe(Path(), "let one = 1\n", "one.pem")
    recipe(Path(), f'import "one.pem" (one)\n{USING}')
    before = Path("pem.lock").read_bytes()
    assert "PEM0802" in pem("lock", "--upgrade", "house", "recipe.pem").err
    assert Path("pem.lock").read_bytes() == before
    recipe(Path(), USING)
    uses = {"adapters": [], "imports": ["house.merges"]}
    for name in ("../x.pem", "", "gone.pem", "\0"):
        edit_lock(lambda locked, name=name: locked["recipes"].update({name: uses}))
    done = pem("lock", "--upgrade", "house", "recipe.pem")
    assert "x: a 0.5 → 2" in done.out and "y: a 0.5 → 2" in done.out
    assert "third.pem" not in done.out
    for name in ("recipe.pem", "second.pem", "third.pem"):
        assert pem("check", "--locked", name).text == ""


def test_each_recipe_of_an_upgrade_takes_its_own_settings(site: Path) -> None:
    """One has a param without a default, the other has none; a name that nobody has is refused."""
    recipe(Path(), USING)
    weighed = USING.replace("out/x", "out/y").replace("half(a)", "w * half(a)")
    recipe(Path(), f"param w: number\n{weighed}", "second.pem")
    lock()
    assert pem("lock", "second.pem", "--set", "w=1").code == 0
    installed(site, {"merges.pem": TWICE}, version="2.0")
    upgrade = ("lock", "--upgrade", "house", "recipe.pem")
    assert "PEM0211" in pem(*upgrade, "--set", "w=1", "--set", "v=1").err
    done = pem(*upgrade, "--set", "w=1")
    assert "x: a 0.5 → 2" in done.out and "y: a 0.5 → 2" in done.out


@pytest.mark.parametrize("target", ["home/recipe.pem", "link.pem", "nowhere"])
def test_a_recipe_that_is_a_link_has_the_lock_of_where_it_leads(
    site: Path, tmp_path: Path, target: str
) -> None:
    recipe(Path(), USING)
    lock()
    installed(site, {"merges.pem": TWICE}, version="2.0")
    (tmp_path / "link.pem").symlink_to(target)
    done = pem("lock", "--upgrade", "house", "../link.pem")
    assert "Traceback" not in done.text
    assert ("x: a 0.5 → 2" in done.out) == (target == "home/recipe.pem")


def test_two_locks_at_once_lose_nothing(site: Path) -> None:
    recipe(Path(), USING)
    recipe(Path(), ALONE.replace("out/x", "out/y"), "second.pem")
    lock()
    first = Path("pem.lock").read_bytes()
    Path("pem.lock").unlink()
    command = [sys.executable, "-m", "pemlang", "lock", "second.pem"]
    with turn(Path()):
        other = subprocess.Popen(command)
        time.sleep(2)  # by then it waits
        Path("pem.lock").write_bytes(first)
    assert other.wait(60) == 0
    assert json.loads(Path("pem.lock").read_text())["recipes"].keys() == {
        "recipe.pem",
        "second.pem",
    }


def test_what_is_installed_meanwhile_is_seen(site: Path) -> None:
    """As an editor has to, which runs on; what is on the path is looked through once until then."""
    assert codes(Path(), USING) == []
    for version, name in (("1.1", "mouse"), ("1.2", "house")):
        installed(site, {"merges.pem": HALF}, name=name, version=version)
        assert codes(Path(), USING) == ([] if name == "house" else ["PEM0203"])


def test_many_imports_look_through_the_path_once(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []

    def entry_points(group: str) -> importlib.metadata.EntryPoints:
        looked.append(group)
        return importlib.metadata.EntryPoints()

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    text = "".join(f"import house.m{i} as m{i}\n" for i in range(9))
    assert codes(Path(), text) == ["PEM0203"] * 9
    assert looked == ["pemlang.libraries"]
