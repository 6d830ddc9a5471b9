"""What a build, a check and a plan hold to pem.lock: all that the recipe is made from, by its
bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import SITES, lora, pem, recipe
from support.locks import (
    DECLARED,
    RIGHT,
    SUM,
    built_hash,
    collected,
    edit_lock,
    lock,
    pickled,
    planned,
)
from support.outputs import CONFIG, WEIGHTS, flip


def other_weights(folder: Path) -> str:
    lora(folder / "adapters/b", 9)
    return f"{WEIGHTS} of adapters/b"


def one_bit(folder: Path) -> str:
    flip(folder / "adapters/a" / WEIGHTS, -1)
    return f"{WEIGHTS} of adapters/a"


def other_config(folder: Path) -> str:
    path = folder / "adapters/a" / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 9}))
    return f"{CONFIG} of adapters/a"


def other_rank(folder: Path) -> str:
    """Which the recipe could not do with: that it is another adapter is said all the same."""
    recipe(folder, SUM.replace("adapter b", "adapter b: lora(rank=4)"))
    lock()
    lora(folder / "adapters/b", 1, rank=8)
    return f"{CONFIG} of adapters/b"


def other_sites(folder: Path) -> str:
    path = folder / "adapters/b" / CONFIG
    config = path.read_text()
    lora(folder / "adapters/b", 1, sites=dict(list(SITES.items())[:2]))
    path.write_text(config)
    return f"{WEIGHTS} of adapters/b"


def pickled_since(folder: Path) -> str:
    pickled(folder)
    return "adapter_model.safetensors of adapters/a"


def statistics_since(folder: Path) -> str:
    collected(folder)
    return "statistics.safetensors of adapters/a"


def other_import(folder: Path) -> str:
    recipe(folder / "lib", "let half = 0.5\n", "w.pem")
    recipe(folder, 'import "lib/w.pem" (half)\n' + SUM)
    lock()
    recipe(folder / "lib", "let half = 0.25\n", "w.pem")
    return "lib/w.pem is not what pem.lock has"


SWAPS = [
    other_weights, one_bit, other_config, other_rank, other_sites, pickled_since,
    statistics_since, other_import,
]  # fmt: skip


@pytest.mark.parametrize("swap", SWAPS, ids=lambda swap: swap.__name__)
def test_a_build_by_a_lock_names_what_has_changed(
    folder: Path, swap: Callable[[Path], str]
) -> None:
    lock()
    named = swap(folder)
    done = pem("build", "--locked", "recipe.pem")
    assert (done.code, "error[PEM0803]" in done.err, named in done.err) == (1, True, True), done
    assert not (folder / "out").exists()
    if pem("check", "recipe.pem").code == 0:
        lock()
        assert pem("build", "--locked", "recipe.pem").code == 0


def test_every_adapter_that_changed_is_named(folder: Path) -> None:
    lock()
    other_weights(folder)
    one_bit(folder)
    assert pem("build", "--locked", "recipe.pem").err.count("error[PEM0803]") == 2


def test_an_output_that_is_up_to_date_is_held_to_the_lock_too(folder: Path) -> None:
    lock()
    one_bit(folder)
    assert pem("build", "recipe.pem").code == 0
    assert pem("build", "--locked", "recipe.pem").code == 1


def test_an_adapter_that_was_not_locked_is_refused(folder: Path) -> None:
    lock()
    lora(folder / "adapters/c", 4)
    recipe(folder, SUM + 'adapter c = "adapters/c"\n')
    for command in ("check", "plan", "build"):
        done = pem(command, "--locked", "recipe.pem")
        assert (done.code, "PEM0802" in done.err) == (1, True)


@pytest.mark.parametrize("command", ["check", "plan", "build"])
def test_what_is_there_is_held_to_the_lock(folder: Path, command: str) -> None:
    lock()
    lora(folder / "adapters/b", 5)
    done = pem(command, "--locked", "recipe.pem")
    assert (done.code, "PEM0803" in done.err, WEIGHTS in done.err) == (1, True, True)


def test_a_git_lfs_pointer_is_held_to_the_lock(folder: Path) -> None:
    lock()
    weights = folder / "adapters/b" / WEIGHTS
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1\n"
    own = hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.write_text(pointer.format(own))
    assert pem("check", "--locked", "recipe.pem") == RIGHT
    weights.write_text(pointer.format("0" * 64))
    done = pem("check", "--locked", "recipe.pem")
    assert (done.code, "PEM0803" in done.err) == (1, True)


def test_a_signature_that_is_not_the_files_is_told(folder: Path) -> None:
    lock()

    def lower(locked: Any) -> None:
        adapter = locked["adapters"]["adapters/a"]
        adapter["config"]["r"] = 2
        adapter["tensors"] = {
            key: shape.replace("[4, ", "[2, ").replace(", 4]", ", 2]")
            for key, shape in adapter["tensors"].items()
        }

    edit_lock(lower)
    done = pem("build", "--locked", "recipe.pem")
    assert (done.code, "PEM0803" in done.err, "signature" in done.err) == (1, True, True)


def test_a_lock_of_another_version_holds_a_check_and_no_build(folder: Path) -> None:
    lock()
    edit_lock(lambda locked: locked.update(pemlang="0.0.1\x1b[31m"))
    assert pem("check", "--locked", "recipe.pem") == RIGHT
    done = pem("build", "--locked", "recipe.pem")
    assert (done.code, "PEM0804" in done.err, "\x1b" in done.text) == (1, True, False)


MERGE = DECLARED + 'save regmean([a, b]) to "out/merged" with rank=8\n'


def test_statistics_that_a_recipe_does_not_use_change_neither_its_lock_nor_its_hash(
    folder: Path,
) -> None:
    before, first = lock(), built_hash()
    collected(folder)
    recipe(folder, SUM)
    assert lock() == before
    assert (built_hash(), planned()) == (first, [first])
    assert pem("build", "recipe.pem", "--locked").out.count("up to date") == 1
    assert pem("verify", "out/x", "--rebuild").code == 0
    assert pem("check", "recipe.pem", "--locked") == RIGHT


def test_a_recipe_that_uses_statistics_is_held_to_them_beside_one_that_does_not(
    folder: Path,
) -> None:
    collected(folder)
    recipe(folder, SUM)
    recipe(folder, MERGE, "merge.pem")
    both = lock("recipe.pem", "merge.pem")
    assert lock("recipe.pem") == lock("merge.pem", "recipe.pem") == both
    for name in ("recipe.pem", "merge.pem"):
        assert planned(name) == [built_hash(name)]
    flip(folder / "adapters/b/statistics.safetensors", -1)
    for command in ("check", "plan", "build"):
        told = pem(command, "merge.pem", "--locked")
        assert (told.code, "statistics.safetensors of adapters/b" in told.err) == (1, True)
        assert pem(command, "recipe.pem", "--locked").code == 0
    assert pem("verify", "out/merged").code == 1
    assert pem("verify", "out/x").code == 0
    (folder / "merge.pem").unlink()
    assert "statistics" not in json.dumps(lock("recipe.pem"))
