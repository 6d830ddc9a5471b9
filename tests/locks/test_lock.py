"""pem.lock: what it says, and that it is enough to check, plan and compare by."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from support import build, codes, ia3, lora, pem, recipe
from support.locks import DECLARED, RIGHT, SUM, built_hash, collected, lock, pickled, planned
from support.outputs import CONFIG, WEIGHTS
from support.processes import with_imports

ROOT = Path(__file__).parents[2]
NAMES = ["adapters", "pem.lock", "recipe.pem"]


def test_a_lock_has_the_digests_of_all_that_is_read(folder: Path) -> None:
    recipe(folder / "lib", "let half = 0.5\n", "w.pem")
    recipe(folder, 'import "lib/w.pem" (half)\nimport std.paper (merge)\n' + SUM)
    locked = lock()
    assert locked["adapters"].keys() == {"adapters/a", "adapters/b"}
    for name, adapter in locked["adapters"].items():
        for file, digest in adapter["files"].items():
            assert blake3((folder / name / file).read_bytes()).hexdigest() == digest
        assert list(adapter["files"]) == [CONFIG, WEIGHTS]
    standard = (ROOT / "stdlib/paper.pem").read_bytes()
    assert locked["imports"] == {
        "lib/w.pem": blake3(b"let half = 0.5\n").hexdigest(),
        "std.paper": blake3(standard).hexdigest(),
    }
    assert locked["recipes"] == {
        "recipe.pem": {
            "adapters": ["adapters/a", "adapters/b"],
            "imports": ["lib/w.pem", "std.paper"],
        }
    }


def test_a_lock_is_the_same_to_the_byte_elsewhere(folder: Path, tmp_path: Path) -> None:
    lock()
    first = Path("pem.lock").read_bytes()
    lock()
    assert Path("pem.lock").read_bytes() == first
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    (elsewhere / "pem.lock").unlink()
    assert pem("lock", elsewhere / "recipe.pem").code == 0
    assert (elsewhere / "pem.lock").read_bytes() == first
    assert str(tmp_path).encode() not in first
    assert sorted(path.name for path in folder.iterdir()) == NAMES


def test_what_a_lock_changed_is_told(folder: Path) -> None:
    first = pem("lock", "recipe.pem").out.splitlines()
    assert first[1:] == ["    + adapters/a", "    + adapters/b"]
    assert "nothing has changed" in pem("lock", "recipe.pem").out
    lora(folder / "adapters/a", 7)
    recipe(folder, 'adapter a = "adapters/a"\nsave a to "out/x"\n')
    then = pem("lock", "recipe.pem").out.splitlines()
    assert then[1:] == ["    − adapters/b", f"    ~ adapters/a: {WEIGHTS}"]


def test_recipes_of_a_folder_share_a_lock(folder: Path) -> None:
    lora(folder / "adapters/c", 3)
    recipe(folder, 'adapter c = "adapters/c"\nadapter a = "adapters/a"\nsave a + c to "y"', "o.pem")
    lock("recipe.pem", "o.pem")
    assert planned("o.pem") == [built_hash("o.pem")]
    # An adapter goes once no recipe needs it.
    recipe(folder, 'adapter a = "adapters/a"\nsave a to "y"', "o.pem")
    assert lock("o.pem")["adapters"].keys() == {"adapters/a", "adapters/b"}
    (folder / "recipe.pem").unlink()
    locked = lock("o.pem")
    assert (locked["adapters"].keys(), locked["recipes"].keys()) == ({"adapters/a"}, {"o.pem"})


def test_recipes_of_two_folders_have_a_lock_each(folder: Path) -> None:
    recipe(folder / "deep", SUM.replace('= "', '= "../'))
    assert pem("lock", "recipe.pem", "deep/recipe.pem").code == 0
    locked = json.loads((folder / "deep/pem.lock").read_text())
    assert locked["adapters"].keys() == {"../adapters/a", "../adapters/b"}
    shutil.rmtree(folder / "adapters")
    assert pem("check", "--locked", "deep/recipe.pem") == RIGHT


def test_a_wrong_recipe_is_not_locked(folder: Path) -> None:
    lock()
    before = Path("pem.lock").read_bytes()
    recipe(folder, DECLARED + "let x = nowhere\n")
    done = pem("lock", "recipe.pem")
    assert (done.code, "PEM0206" in done.err) == (1, True)
    assert Path("pem.lock").read_bytes() == before


def test_a_recipe_behind_a_link_is_locked_where_it_is(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link.pem").symlink_to(folder / "recipe.pem")
    assert pem("lock", tmp_path / "link.pem").code == 0
    locked = json.loads((folder / "pem.lock").read_text())
    assert locked["recipes"].keys() == {"recipe.pem"}
    assert not (tmp_path / "pem.lock").exists()


def test_a_lock_that_cannot_be_written_leaves_the_old_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock()
    before = Path("pem.lock").read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    lora(folder / "adapters/a", 7)
    done = pem("lock", "recipe.pem")
    assert (done.code, "PEM0512" in done.err) == (1, True)
    assert Path("pem.lock").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == NAMES


def test_build_writes_no_lock(folder: Path) -> None:
    build(folder, SUM)
    assert not (folder / "pem.lock").exists()


# --- what it is enough for -----------------------------------------------------------------


def copies(folder: Path) -> None:
    shutil.copytree(folder / "adapters/a", folder / "adapters/copy")
    recipe(folder, DECLARED + 'adapter c = "adapters/copy"\nsave a - c + b to "out/x"\n')


def two_paths(folder: Path) -> None:
    recipe(folder, DECLARED + 'adapter c = "./deep/../adapters/a"\nsave a + c + b to "out/x"\n')


def linked(folder: Path) -> None:
    (folder / "adapters/link").symlink_to("a")
    recipe(folder, DECLARED + 'adapter c = "adapters/link"\nsave a + c + b to "out/x"\n')


def imported(folder: Path) -> None:
    lora(folder / "lib/own", 5)
    recipe(folder / "lib", 'adapter own = "own"\nadapter a = "../adapters/a"\n', "l.pem")
    recipe(folder, 'import "lib/l.pem" (own, a)\nsave own + a to "out/x"\n')


def gained(folder: Path) -> None:
    ia3(folder / "adapters/a", 1)
    ia3(folder / "adapters/b", 2)
    recipe(folder, DECLARED + 'save a ⊕ b to "out/x"\n')


def headed(folder: Path) -> None:
    head = {"base_model.model.classifier.weight": torch.ones(2, 3)}
    lora(folder / "adapters/a", 1, extra=head, modules_to_save=["classifier"])
    recipe(folder, DECLARED + 'save a + b to "out/x" with heads=a, dtype=bf16, energy=0.9\n')


def measured(folder: Path) -> None:
    recipe(folder, DECLARED + 'assert norm(a) < 999\nsave cosine(a, b) * a + b to "out/x"\n')


def set_path(folder: Path) -> None:
    text = 'param which: string = "a"\nadapter a = "adapters/{which}"\nsave a to "out/x"\n'
    recipe(folder, text)


CASES = [
    lambda folder: None, pickled, collected, copies, two_paths, linked, imported, gained, headed,
    measured, set_path,
]  # fmt: skip


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_lock_stands_for_the_adapters(folder: Path, make: Callable[[Path], None]) -> None:
    """Checked and planned without them, the meaning is that of a build; and a build by the lock
    is that of one without."""
    make(folder)
    wanted = built_hash()
    first = (folder / "out/x" / WEIGHTS).read_bytes()
    lock()
    shutil.rmtree(folder / "out")
    assert pem("build", "--locked", "recipe.pem").code == 0
    assert (folder / "out/x" / WEIGHTS).read_bytes() == first
    shutil.rmtree(folder / "adapters")
    shutil.rmtree(folder / "lib/own", ignore_errors=True)
    assert pem("check", "--locked", "recipe.pem") == RIGHT
    assert planned() == [wanted]
    assert codes(folder, (folder / "recipe.pem").read_text()) != []  # they are needed without it


def test_a_param_in_a_path_is_locked_at_its_value(folder: Path) -> None:
    set_path(folder)
    lock()
    assert pem("check", "--locked", "recipe.pem", "--set", "which=b").code == 1
    assert pem("lock", "recipe.pem", "--set", "which=b").code == 0
    assert pem("check", "--locked", "recipe.pem", "--set", "which=b") == RIGHT
    assert planned(which="b") == [built_hash(which="b")]


def test_no_torch_and_no_adapter_is_needed(tmp_path: Path) -> None:
    home = shutil.copytree(ROOT / "examples/quickstart", tmp_path / "q")
    shutil.rmtree(home / "out", ignore_errors=True)
    assert pem("lock", "quickstart.pem", folder=home, process=True).code == 0
    shutil.rmtree(home / "adapters")
    for words in (
        ["check", "--locked", "quickstart.pem"],
        ["plan", "--locked", "quickstart.pem"],
        ["diff", "quickstart.pem", "quickstart.pem"],
    ):
        done = with_imports(*words, folder=home, of=["torch", "peft"])
        assert (done.code, done.err) == (0, "[]\n")
