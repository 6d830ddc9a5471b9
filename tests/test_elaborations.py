"""How often a command evaluates the statements of a recipe: once, whatever it does with it then.
That an adapter becomes known by its content changes the graph, and evaluates nothing again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import lora, pem, recipe
from support.outputs import DECLARED

from pemlang.check import FileElaborator

NEW = (
    'import "lib/w.pem" (half)\n' + DECLARED + "param w: number = 0.5\nassert norm(a) > 0\n"
    'save cosine(a, b) * a + half * b to "out/x{w}" with energy=0.9\n'
    'save w ⊗ a ⊕ (1 - w) ⊗ b to "out/y{w}"\n'
)
OLD = DECLARED + 'save a + b to "out/z"\n'
NEW_ONCE = {"new.pem": 1, "w.pem": 1}
BOTH_ONCE = {"old.pem": 1, "new.pem": 1, "w.pem": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2)
    recipe(tmp_path / "lib", "let half = 0.5\n", "w.pem")
    recipe(tmp_path, NEW, "new.pem")
    recipe(tmp_path, OLD, "old.pem")
    return tmp_path


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the statements of each file have been evaluated."""
    counted: Counter[str] = Counter()
    run = FileElaborator.run

    def counting(self: FileElaborator, statements: tuple[Any, ...]) -> None:
        counted[Path(statements[0].span.source.name).name] += 1
        run(self, statements)

    monkeypatch.setattr(FileElaborator, "run", counting)
    return counted


COMMANDS = {
    "pem check new.pem": NEW_ONCE,
    "pem check new.pem old.pem": BOTH_ONCE,
    "pem plan new.pem": NEW_ONCE,
    "pem build new.pem": NEW_ONCE,
    "pem build new.pem --set w=0.25 --force": NEW_ONCE,
    "pem build new.pem --dump-kernels": NEW_ONCE,
    "pem build new.pem old.pem": BOTH_ONCE,
    "pem lock new.pem": NEW_ONCE,
    "pem lock new.pem old.pem": BOTH_ONCE,
    "pem report new.pem": NEW_ONCE,
    "pem diff old.pem new.pem": BOTH_ONCE,
    "pem graph new.pem": NEW_ONCE,
}


@pytest.mark.parametrize(("line", "once"), COMMANDS.items(), ids=COMMANDS)
def test_a_command_evaluates_a_recipe_once(
    folder: Path, evaluated: Counter[str], line: str, once: dict[str, int]
) -> None:
    done = pem(*line.split()[1:], folder=folder)
    assert done.code == 0, done
    assert evaluated == once


@pytest.mark.parametrize("command", ["check", "plan", "build"])
def test_a_lock_evaluates_nothing_again(
    folder: Path, evaluated: Counter[str], command: str
) -> None:
    assert pem("lock", "new.pem", folder=folder).code == 0
    evaluated.clear()
    assert pem(command, "--locked", "new.pem", folder=folder).code == 0
    assert evaluated == NEW_ONCE


def test_what_is_up_to_date_is_evaluated_once(folder: Path, evaluated: Counter[str]) -> None:
    for _ in range(2):
        evaluated.clear()
        assert pem("build", "new.pem", folder=folder).code == 0
        assert evaluated == NEW_ONCE


def test_a_sweep_evaluates_it_once_at_each_value(folder: Path, evaluated: Counter[str]) -> None:
    done = pem("build", "new.pem", "--sweep", "w=0.1,0.2", folder=folder)
    assert done.code == 0, done
    assert evaluated == {"new.pem": 2, "w.pem": 2}
    assert len(list((folder / "out").iterdir())) == 4


def test_an_output_is_rebuilt_by_evaluating_it_once(folder: Path, evaluated: Counter[str]) -> None:
    assert pem("build", "old.pem", folder=folder).code == 0
    evaluated.clear()
    assert pem("verify", "out/z", "--rebuild", folder=folder).code == 0
    assert evaluated == {"old.pem": 1}
