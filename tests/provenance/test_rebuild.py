"""`pem verify --rebuild`: the same bytes once more, by the recipe and the inputs as they were."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from support import build, edit, lora, pem, recipe
from support.outputs import DECLARED, PROVENANCE, TEXT, WEIGHTS, asked, flip, verified

REBUILT: dict[str, tuple[str, dict[str, Any]]] = {
    "a sum": (TEXT, {}),
    "a cut": (DECLARED + 'save a + b to "out/x" with rank=3', {}),
    "by energy": (DECLARED + 'save a + b to "out/x" with energy=0.9, dtype=bf16', {}),
    "a merge": (DECLARED + 'save ties([a, b], density=0.5, rank=4) to "out/x"', {}),
    "a measure": (DECLARED + 'save cosine(a, b) * a + b to "out/x"', {}),
    "a third": (DECLARED + 'param w: number = 1 / 3\nsave w * a + b to "out/x"', {}),
    "set": (DECLARED + 'param w: number = 1\nsave w * a + b to "out/x"', {"w": "0.333"}),
    "set by Python": (
        DECLARED + 'param w: number = 1\nparam s: string = "b"\nparam t: bool = false\n'
        'assert t\nadapter c = "{s}"\nsave w * a + c to "out/{s}"',
        {"w": 1e-07, "s": "a", "t": True},
    ),
    "two outputs": (DECLARED + 'save a - b to "out/x"\nsave a to "out/y"', {}),
    "from a library": ('import "lib/own.pem" (own)\nsave own to "out/x"', {}),
}


@pytest.mark.parametrize("name", REBUILT)
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_rebuild_gives_the_same_bytes(
    folder: Path, name: str, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe(folder / "lib", 'adapter own = "../a"\n', "own.pem")
    text, params = REBUILT[name]
    for built in build(folder, text, **params).outputs:
        monkeypatch.chdir(folder.parent)
        again = verified(built.path, "--rebuild", "--threads", threads)
        assert again.holds, again.differing
        assert again.rebuilt is not None
        names = {path.name for path in built.path.iterdir()}
        assert {verdict.what for verdict in again.rebuilt} == names
    assert {path.name for path in folder.parent.iterdir()} == {"home"}


def test_a_rebuild_tells_what_it_does_not_give(output: Path) -> None:
    """The output and its provenance were both changed, so that they agree."""
    flip(output / WEIGHTS, -1)
    data = (output / WEIGHTS).read_bytes()
    assert list(verified(output).differing) == [WEIGHTS]

    def agree(statement: Any) -> None:
        [weights] = [subject for subject in statement["subject"] if subject["name"] == WEIGHTS]
        weights["digest"] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "blake3": blake3(data).hexdigest(),
        }

    edit(output, agree)
    assert verified(output).holds
    differing = verified(output, "--rebuild").differing
    assert differing.keys() == {WEIGHTS, PROVENANCE}
    assert differing[WEIGHTS][1].startswith("the numbers of ")


def test_a_rebuild_goes_by_the_recipe_as_it_was(folder: Path, output: Path) -> None:
    (folder / "recipe.pem").write_text("let x = nowhere\n")
    assert verified(output, "--rebuild").differing.keys() == {"recipe.pem"}
    (folder / "lib/w.pem").write_text("let half = 0.75\n")
    done = pem("verify", output, "--rebuild")
    assert (done.code, "lib/w.pem is not what provenance.json has" in done.err) == (1, True)


def test_an_adapter_that_is_declared_and_not_there_is_told(folder: Path) -> None:
    lora(folder / "c", 3)
    [built] = build(folder, 'adapter c = "c"\n' + TEXT).outputs
    shutil.rmtree(folder / "c")
    assert verified(built.path).holds
    done = pem("verify", built.path, "--rebuild")
    assert (done.code, "error[PEM0410]" in done.err) == (1, True)


def test_settings_that_were_changed_are_told_by_a_rebuild(folder: Path) -> None:
    text = DECLARED + 'param w: number = 1\nsave w * a + b to "out/x"\n'
    [built] = build(folder, text, w="0.5").outputs
    edit(built.path, lambda statement: asked(statement).update(settings={"w": "0.25"}))
    assert WEIGHTS in verified(built.path, "--rebuild").differing
    edit(built.path, lambda statement: asked(statement).update(settings={"v": "0.25"}))
    assert pem("verify", built.path, "--rebuild").code in (1, 2)
